"""A run is a list of phases: supervised, then RL; estimates, then regression; RL, then pairs.

    phases:
      - name: warm-up
        algorithm: {name: sft}
        rollout: {engine: targets}
        trainer: {steps: 200}
      - name: rl
        algorithm: {name: stepgrpo}
        optimizer: {learning_rate: 1.0e-6}

A phase is the run's configuration with its own sections over it. Weights are carried over, through
the checkpoint at the border, so that a run that resumes there is the same run; `weights` names
another phase's in their place, or `start`, and `reference: {path: "phase:warm-up"}` compares with
what a phase ended with. What else is kept is named: `state` (what algorithms remember), `optimizer`
(its moments, and those of a critic that is kept), `reference` (the frozen policy of the phase
before, instead of this phase's start), `critic` (what it learnt; without, a new one starts, or the
one at `critic.path`).

An algorithm that needs estimates from an earlier phase gets one where the run names no phases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mmrl.algorithms.compose import compose
from mmrl.config import PhaseConfig, RunConfig
from mmrl.data_config import OWN_PHASE
from mmrl.errors import ConfigError
from mmrl.stage import ESTIMATED_BY
from mmrl.train.reference_config import START, reference_of
from mmrl.validation import validate

MERGED = ("model", "rollout", "optimizer", "critic", "trainer", "media")


@dataclass(frozen=True)
class Phase:
    """One part of a run: its number from 0, its name and its whole configuration."""

    index: int
    name: str
    config: RunConfig
    keep: frozenset[str] = frozenset()
    note: str = ""
    weights: str | None = None


def phases_of(config: RunConfig) -> list[Phase]:
    """The phases of a run; one that names none is a single phase, after its estimates if any.

    Raises ConfigError for a phase whose configuration is not valid.
    """
    if not config.phases:
        return _with_estimates(config)
    found: list[Phase] = []
    for index, given in enumerate(config.phases):
        name = given.name or str(index + 1)
        if not index and given.keep not in ((), ("state",)):
            raise ConfigError(f"phase '{name}' is the first: it has nothing to keep")
        if "critic" in given.keep and "path" in (given.critic or {}):
            raise ConfigError(
                f"phase '{name}' keeps a critic: leave critic.path or keep: [critic] out"
            )
        whole = validate(RunConfig, _merged(config, given, index), f"phase '{name}'")
        if found and "optimizer" in given.keep and whole.model != found[-1].config.model:
            raise ConfigError(f"phase '{name}': other parts learn: leave keep: [optimizer] out")
        _refuse_later(whole, name, found)
        found.append(Phase(index, name, whole, frozenset(given.keep), weights=given.weights))
    names = [phase.name for phase in found]
    if len(set(names)) < len(names):
        raise ConfigError(f"two phases have the same name: {', '.join(names)}")
    return found


def _refuse_later(config: RunConfig, name: str, before: Sequence[Phase]) -> None:
    """Raise ConfigError where a phase takes completions of one that is not before it."""
    for data in config.data:
        stored = str(data.stored or "")
        asked = stored.removeprefix(OWN_PHASE)
        if stored.startswith(OWN_PHASE) and asked not in [phase.name for phase in before]:
            known = ", ".join(phase.name for phase in before) or "there is none"
            raise ConfigError(f"phase '{name}': data.stored: no phase '{asked}' before it: {known}")


def require_earlier(phases: Sequence[Phase]) -> None:
    """Raise ConfigError where a phase begins with, or is compared with, one that is not before."""
    for index, phase in enumerate(phases):
        where, earlier = _named(phase), [START, *(before.name for before in phases[:index])]
        asked = reference_of(phase.config.reference).phases
        for key, name in (("weights", phase.weights), *(("reference", name) for name in asked)):
            if name is not None and name not in earlier:
                raise ConfigError(
                    f"{where}{key} names '{name}', which is no phase before it: there "
                    f"{'is' if len(earlier) == 1 else 'are'} {', '.join(earlier)}"
                )
        if phase.weights is not None and "optimizer" in phase.keep:
            raise ConfigError(
                f"{where}the optimizer's moments are those of other weights: leave keep: "
                "[optimizer] or weights out"
            )


UNTIL_ASKED = 100_000
"""Steps of an estimate phase, which ends when every sample was asked once."""


def _with_estimates(config: RunConfig) -> list[Phase]:
    """A run without phases: its algorithm, behind the estimates that it needs."""
    needs = compose(config.algorithm).needs
    estimators = [ESTIMATED_BY[need] for need in sorted(needs & ESTIMATED_BY.keys())]
    if not estimators:
        return [Phase(0, "", config)]
    (estimator,) = estimators
    estimates = {
        "name": "estimates",
        "algorithm": {"name": estimator},
        "trainer": {"steps": UNTIL_ASKED, "eval_every": 0},
    }
    named = {"name": config.algorithm_name, "algorithm": dict(config.algorithm)}
    values = {**config.model_dump(), "phases": [estimates, named]}
    first, second = phases_of(validate(RunConfig, values, "the run"))
    note = (
        f"algorithm '{config.algorithm_name}' reads estimates: {estimator} asks every sample once, "
        "as a phase of its own, before the first of its steps"
    )
    return [replace(first, note=note), second]


def require_critics(phases: Sequence[Phase], have: Sequence[bool]) -> None:
    """Raise ConfigError where a phase's critic cannot be what it is said to be.

    `have` says which phases' algorithms have one.
    """
    for index, (phase, has) in enumerate(zip(phases, have, strict=True)):
        critic, kept, where = phase.config.critic, "critic" in phase.keep, _named(phase)
        if kept and not has:
            raise ConfigError(
                f"{where}keep: [critic] is for algorithms with a critic, "
                f"'{phase.config.algorithm_name}' has none"
            )
        if kept and not have[index - 1]:
            raise ConfigError(
                f"{where}phase '{phases[index - 1].name}' before it has no critic to keep"
            )
        if kept and phases[index - 1].config.critic.trunk != critic.trunk:
            raise ConfigError(
                f"{where}a critic that is kept keeps its trunk: set critic.trunk to "
                f"{phases[index - 1].config.critic.trunk}"
            )
        if has and critic.frozen and not kept and critic.path is None:
            raise ConfigError(
                f"{where}critic.frozen needs a critic that has learnt: set critic.path, or "
                "keep: [critic] in a later phase"
            )


def _named(phase: Phase) -> str:
    return f"phase '{phase.name}': " if phase.name else ""


def _merged(config: RunConfig, given: PhaseConfig, index: int) -> dict[str, Any]:
    """The run's sections with the phase's over them, and seeds of the phase's own."""
    values = config.model_dump(exclude={"phases"})
    own = given.model_dump(exclude={"name", "keep", "weights", "language"}, exclude_none=True)
    for section, changes in own.items():
        if section in MERGED or (section == "algorithm" and "name" not in changes):
            values[section] = {**values[section], **changes}
        else:
            values[section] = changes
    # A phase goes on with the language weights of the one before, unless it takes others.
    first = not index or given.weights == START
    values["start"] = {
        "add_tokens": values["start"]["add_tokens"],
        "language": given.language or (values["start"]["language"] if first else None),
    }
    # Later phases draw other prompts and answers than the first, from the same seed.
    values["seed"] = config.seed + 1_000_003 * index
    return values


@dataclass(frozen=True)
class Place:
    """Where a run stands: in the phase `len(starts) - 1`; starts[i] steps came before phase i.

    The steps of a phase that ended early are those it had.
    """

    starts: tuple[int, ...] = (0,)

    @property
    def phase(self) -> int:
        return len(self.starts) - 1

    @property
    def before(self) -> int:
        """Steps of the run before its current phase."""
        return self.starts[-1]

    def begun(self, phases: Sequence[Phase], index: int | None = None) -> int:
        """Steps behind the weights that a phase, the current one, began with; 0: model.path."""
        index = self.phase if index is None else index
        name = phases[index].weights
        return self.starts[index] if name is None else self.ended(phases, name)

    def ended(self, phases: Sequence[Phase], name: str) -> int:
        """Steps of the run up to the end of an earlier phase; 0 up to its start."""
        names = [START, *(phase.name for phase in phases)]
        return self.starts[names.index(name)]

    def reference_phase(self, phases: Sequence[Phase]) -> int:
        """The phase whose start is the current phase's reference."""
        index = self.phase
        while index and "reference" in phases[index].keep:
            index -= 1
        return index

    def done(self, phases: Sequence[Phase]) -> dict[str, tuple[int, int]]:
        """The steps of the phases before the current one, by name: after one, up to the other."""
        ends = zip(phases, self.starts, self.starts[1:], strict=False)
        return {phase.name: (start, end) for phase, start, end in ends}

    def next(self, step: int) -> Place:
        """The place after the current phase, which ended with `step` of the run."""
        return Place((*self.starts, step))

    def to_state(self, *, ended: bool) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {"starts": list(self.starts), "ended": ended}

    def remaining(self, phases: Sequence[Phase]) -> int:
        """Steps of the run up to the planned end of its last phase."""
        return self.before + sum(p.config.trainer.steps for p in phases[self.phase :])


def place_of(state: Mapping[str, Any], step: int, phases: Sequence[Phase]) -> Place:
    """Where a run that stopped with this checkpoint goes on."""
    known = state.get("phases", {"starts": [0], "ended": False})
    if len(known["starts"]) > len(phases):
        raise ConfigError("the configuration has fewer phases than the run has begun")
    place = Place(tuple(known["starts"]))
    over = known["ended"] and place.phase + 1 < len(phases)
    return place.next(step) if over else place
