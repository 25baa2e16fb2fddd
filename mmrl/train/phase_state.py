"""What of a phase is in a checkpoint: written at a step, and taken up again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor

from mmrl.data.sources import Say
from mmrl.policy.weights import weights_of
from mmrl.train import checkpoint
from mmrl.train.ahead import older
from mmrl.train.changes import refuse_records
from mmrl.train.checkpoint import Checkpoint
from mmrl.train.checkpoint_files import CRITIC
from mmrl.train.critic import Critic
from mmrl.train.parts import Parts
from mmrl.train.phases import Phase
from mmrl.train.requirements import critic_folder

REFERENCE = "reference"
"""The file of a reference that moves."""
EXTRAPOLATION = "extrapolation"
"""The file of what a step ahead began with."""


def save(
    parts: Parts,
    step: int,
    seconds: float,
    *,
    ended: bool = False,
    rolled_back: Sequence[int] = (),
) -> Path:
    """Write the checkpoint of `step` of the run; `ended`: it is the phase's last.

    `rolled_back` are the steps after which the run went back to earlier weights.
    """
    setting, asker = parts.setting, parts.trainer.asker
    state: dict[str, Any] = {
        "phases": setting.place.to_state(ended=ended),
        "stream": asker.stream.state(),
        "algorithm": asker.state,
        "seconds": seconds,
        "data": dict(parts.digests),
        "versions": versions(),
        "rolled_back": list(rolled_back),
    }
    more: dict[str, dict[str, Tensor]] = {}
    if parts.ahead is not None:
        state["ahead"], tokens = parts.ahead.state()
        more |= {"ahead": tokens} if state["ahead"] else {}
    if parts.models.critic is not None:
        more[CRITIC], state["critic"] = parts.models.critic.state()
    if parts.models.reference is not None and parts.models.reference.moves:
        more[REFERENCE] = parts.models.reference.state()
    if (kept := parts.trainer.learner.extrapolation) is not None:
        tensors, state[EXTRAPOLATION] = kept.state()
        more |= {EXTRAPOLATION: tensors} if tensors else {}
    return checkpoint.save(
        setting.config.run,
        step,
        parts.models.policy,
        parts.models.backend,
        state,
        setting.config.trainer.keep_checkpoints,
        setting.world,
        more,
        pinned=setting.place.starts,
    )


def take_up(parts: Parts, found: Checkpoint | None) -> int:
    """Go on from a checkpoint of the phase, or from that of the border before it.

    Returns how many steps of the phase are done. None: the run begins.
    """
    setting, models, phase = parts.setting, parts.models, parts.setting.phase
    if found is None:
        begin_critic(models.critic, phase, None, setting.say)
        return 0
    state, border = found.state(), found.step == setting.place.before
    if not border or "state" in phase.keep:
        parts.trainer.asker.state.update(state["algorithm"])
    if border:
        begin_critic(models.critic, phase, found, setting.say)
        moved = (found.path / "trainer" / f"{REFERENCE}.safetensors").is_file()
        if "reference" in phase.keep and models.reference is not None and moved:
            models.reference.load_state(found.tensors(REFERENCE))
    else:
        _go_on(parts, found, state)
    if not border or "optimizer" in phase.keep:
        found.restore(models.backend)
    done = found.step - setting.place.before
    parts.rollout.engine.sync(weights_of(models.policy, done))
    return done


def versions() -> dict[str, str]:
    """The versions of what a step's numbers come from."""
    return {name: version(name) for name in ("torch", "transformers", "numpy")}


def say_versions(before: Mapping[str, str], say: Say) -> None:
    """Say which packages are others than those that a checkpoint was written with."""
    here = versions()
    other = [
        f"{name} {was} -> {here.get(name)}" for name, was in before.items() if here.get(name) != was
    ]
    if other:
        say(f"resumed with other packages, which may round otherwise: {', '.join(other)}")


def _go_on(parts: Parts, found: Checkpoint, state: Mapping[str, Any]) -> None:
    """Take over what a step in the middle of the phase left."""
    setting = parts.setting
    before = state.get("data", {})
    refuse_records(before, parts.digests, allowed=setting.allow_changes, say=setting.say)
    say_versions(state.get("versions", {}), setting.say)
    _take_models(parts, found, state)
    parts.trainer.asker.stream.load_state(state["stream"])
    rows = state.get("ahead", [])
    if parts.ahead is not None:
        tokens = found.tensors("ahead") if rows else {}
        parts.ahead.load_state(found.step - setting.place.before, rows, tokens)
    elif rows:
        raise older(len(rows))
    setting.say(f"resumed after step {found.step}")


def roll_back(parts: Parts, found: Checkpoint) -> None:
    """Give the models and the optimiser the state of an earlier checkpoint of the phase.

    What was drawn stays drawn, and what the algorithm keeps stays, so the run goes on with others.
    """
    _take_models(parts, found, found.state())
    found.restore(parts.models.backend)


def _take_models(parts: Parts, found: Checkpoint, state: Mapping[str, Any]) -> None:
    """Load weights, the critic and a reference that moves."""
    models = parts.models
    found.load_weights(models.policy)
    if models.critic is not None:
        models.critic.load_state(found.tensors(CRITIC), state["critic"])
    if models.reference is not None and models.reference.moves:
        models.reference.load_state(found.tensors(REFERENCE))
    if (kept := parts.trainer.learner.extrapolation) is not None:
        held = (found.path / "trainer" / f"{EXTRAPOLATION}.safetensors").is_file()
        kept.load_state(found.tensors(EXTRAPOLATION) if held else {}, state[EXTRAPOLATION])


def begin_critic(critic: Critic | None, phase: Phase, found: Checkpoint | None, say: Say) -> None:
    """Let the phase's critic start as the last phase's, as another run's, or anew."""
    path = phase.config.critic.path
    if critic is None:
        return
    if found is not None and "critic" in phase.keep:
        if "optimizer" in phase.keep:  # the schedule is the phase's own
            critic.load_state(found.tensors(CRITIC), {**found.state()["critic"], "updates": 0})
        else:
            critic.take(found.tensors(CRITIC))
    elif path is not None:
        critic.take(Checkpoint(critic_folder(path), 0).tensors(CRITIC))
    elif found is not None and "critic" in found.state():
        say(
            f"phase '{phase.name}' begins with a new critic; keep: [state, critic] would "
            "go on with the last one"
        )
