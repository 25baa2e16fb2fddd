"""An algorithm from its config section: a name, its parameters, and stages put in place of its own.

    algorithm:
      name: stepgrpo
      alpha: 0.1
      objective: {name: cispo, high: 4.0}
      edit: [dapo_filter]
      kl: {schedule: {name: grpo_d, low: 0.04, high: 0.1}}

A stage without a name changes options of the algorithm's own: `objective: {high: 0.28}`. In a
list, `own` stands for the algorithm's own stages: `shape: [own, soft_overlong]`. Options that any
algorithm may be given are in `mmrl.algorithms.common`.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast, get_type_hints

from pydantic import TypeAdapter, ValidationError

from mmrl import plugins
from mmrl.algorithm import Algorithm, Updates
from mmrl.algorithms import common
from mmrl.algorithms.checks import refuse
from mmrl.algorithms.stages import lengths
from mmrl.algorithms.stages.credit import CREDITS, GroupCredit
from mmrl.algorithms.stages.editors import EDITORS
from mmrl.algorithms.stages.lengths import Length
from mmrl.algorithms.stages.refiners import REFINERS
from mmrl.algorithms.stages.samplers import SAMPLERS
from mmrl.algorithms.stages.schedules import SCHEDULES
from mmrl.algorithms.stages.shapers import SHAPERS, SoftOverlong
from mmrl.errors import ConfigError
from mmrl.objective import KL, Objective, Reducer, Schedule
from mmrl.objectives.clipped_ratio import Clipped
from mmrl.objectives.named import OBJECTIVES
from mmrl.stage import FROM_DATA, NEEDS, Need
from mmrl.validation import validate

T = TypeVar("T")

_WITH_OPTIONS: Mapping[str, type[Any]] = {
    "updates": Updates,
    "kl": KL,
    "objective": Clipped,
    "reducer": Reducer,
}
STAGES = ("sampler", "objective", "reducer", "kl", "updates", "credit", "shape", "edit", "refine")


def compose(section: Mapping[str, Any], longest: int | None = None) -> Algorithm:
    """Build the algorithm a config section describes, for responses of at most `longest` tokens.

    Its `notes` say which options have no use and which lengths follow `longest` (None: the papers'
    stand). Raises ConfigError for unknown names and options, and where stages do not go together.
    """
    values = dict(section)
    name = str(values.pop("name", "grpo"))
    module = plugins.load("algorithm", name)
    sections = {key: values.pop(key) for key in STAGES if key in values}
    known = [*{**module.Params.model_fields, **common.Common.model_fields}, *STAGES]
    for key in values:
        if key not in known:
            raise ConfigError(
                f"algorithm '{name}' has no option '{key}': {_stage_hint(key, known)}"
            )
    own_values, lacking, unused = common.split(module.Params, values)
    params = validate(module.Params, own_values, f"algorithm '{name}'")
    given = validate(common.Common, lacking, f"algorithm '{name}'")
    followed = lengths.following_params(params, longest)
    params = params.model_copy(update={key: length.value for key, length in followed.items()})
    if hasattr(module, "unused"):
        reasons = module.unused(params)
        unused |= {key: reason for key, reason in reasons.items() if values.get(key) is not None}
    built = cast(Algorithm, module.build(params))
    own = _replace_stages(built, sections, longest, followed)
    algorithm = common.apply(
        own, given, sections, unused, lambda stage, options: _options("objective", stage, options)
    )
    if algorithm.kl is not None and common.is_empty(algorithm.kl):
        algorithm = dataclasses.replace(algorithm, kl=None)
        unused |= {"kl": common.NO_KL} if sections.get("kl") else {}
    refuse(algorithm)
    notes = (_unused_note({**values, **sections}, unused), _following_note(followed, algorithm))
    said = tuple(filter(None, (*notes, common.wide_clip(own, algorithm))))
    return dataclasses.replace(algorithm, notes=tuple(f"algorithm '{name}': {s}" for s in said))


def _unused_note(values: Mapping[str, Any], unused: Mapping[str, str]) -> str:
    idle = [f"{key}={values[key]} ({reason})" for key, reason in unused.items()]
    return f"without use here: {', '.join(idle)}" if idle else ""


def _following_note(followed: Mapping[str, Length], algorithm: Algorithm) -> str:
    """Which lengths follow the run's longest response, and what a punishment by them does."""
    by_cause = {
        after: [f"{key} {length}" for key, length in followed.items() if length.after == after]
        for after in dict.fromkeys(length.after for length in followed.values())
    }
    listed = "; ".join(
        f"{', '.join(said)} tokens, the paper's share of {after}"
        for after, said in by_cause.items()
    )
    costs = [stage.words() for stage in algorithm.shape if isinstance(stage, SoftOverlong)]
    return f"{'; '.join(costs)} ({listed})" if listed and costs else listed


def require(algorithm: Algorithm, provided: frozenset[Need]) -> None:
    """Raise ConfigError if the algorithm needs something a run does not provide."""
    missing = sorted(algorithm.needs - provided - FROM_DATA)
    if missing:
        listed = "; ".join(NEEDS[need] for need in missing)
        raise ConfigError(
            f"algorithm '{algorithm.name}' needs what this run does not have: {listed}"
        )


def _replace_stages(
    algorithm: Algorithm,
    sections: Mapping[str, Any],
    longest: int | None,
    followed: dict[str, Length],
) -> Algorithm:
    """Put the stages of a config in the place of the algorithm's own.

    `followed` takes the lengths of them that follow `longest`.
    """
    changed: dict[str, Any] = {}
    stages = _Stages(longest, followed)
    for key, value in sections.items():
        match key:
            case "sampler":
                changed[key] = stages.one(key, value, SAMPLERS, algorithm.sampler)
            case "objective":
                changed[key] = stages.one(key, value, OBJECTIVES, algorithm.objective)
            case "credit":
                changed[key] = stages.one(key, value, CREDITS, None)
            case "kl":
                changed[key] = None if value is None else _kl(value, algorithm.kl, stages)
            case "reducer":
                changed[key] = _reducer(value, algorithm.reducer, longest, followed)
            case "updates":
                changed[key] = _options(key, algorithm.updates, value)
            case "shape":
                changed[key] = stages.several(key, value, SHAPERS, algorithm.shape)
            case "edit":
                changed[key] = stages.several(key, value, EDITORS, algorithm.edit)
            case "refine":
                changed[key] = stages.several(key, value, REFINERS, algorithm.refine)
    return dataclasses.replace(algorithm, **_with_reducer(changed))


def _with_reducer(changed: dict[str, Any]) -> dict[str, Any]:
    """Bring along the only reducer that makes sense for a new objective."""
    objective = changed.get("objective")
    if isinstance(objective, Objective) and objective.reducer and "reducer" not in changed:
        return {**changed, "reducer": Reducer(objective.reducer)}
    return changed


def _reducer(value: Any, own: Reducer, longest: int | None, followed: dict[str, Length]) -> Reducer:
    """Read a reducer; a constant one without a length divides by the longest response."""
    reducer = _options("reducer", own, {"name": value} if isinstance(value, str) else value)
    if reducer.name != "constant" or reducer.length or longest is None:
        return reducer
    followed["reducer.length"] = Length(longest, f"rollout.max_new_tokens={longest}")
    return dataclasses.replace(reducer, length=float(longest))


def _kl(value: Any, own: KL | None, stages: _Stages) -> KL:
    """Read a KL section; a schedule takes the place of the coefficient."""
    options = dict(_mapping("kl", value))
    schedule = options.pop("schedule", None)
    kl = _options("kl", own or KL(), options)
    if schedule is None:
        return kl
    made: Schedule = stages.one("kl.schedule", schedule, SCHEDULES, None)
    return dataclasses.replace(kl, schedule=made)


@dataclasses.dataclass(frozen=True)
class _Stages:
    """Reads stages; what follows `longest` of those taken by name is noted in `followed`."""

    longest: int | None
    followed: dict[str, Length]

    def several(
        self, where: str, value: Any, table: Mapping[str, T], own: Sequence[T]
    ) -> tuple[T, ...]:
        """Read a list of stages, in which `own` stands for the algorithm's own."""
        if not isinstance(value, list | tuple):
            raise ConfigError(f"algorithm.{where} is a list of stages, got {value!r:.80}")
        stages: list[T] = []
        for item in value:
            if item == "own":
                stages += own
            else:
                stages.append(self.one(where, item, table, None))
        return tuple(stages)

    def one(self, where: str, value: Any, table: Mapping[str, T], own: T | None) -> T:
        """Read one stage: a name, or a name with options, or options of the algorithm's own."""
        options = {"name": value} if isinstance(value, str) else dict(_mapping(where, value))
        name = options.pop("name", None)
        if name is None and own is None:
            raise ConfigError(f"algorithm.{where} needs a name: {', '.join(sorted(table))}")
        if name is not None and name not in table:
            raise ConfigError(
                f"algorithm.{where}: unknown name '{name}': {_hint(name, list(table))}"
            )
        made = _options(where, cast(T, own if name is None else table[name]), options)
        if name is None or not dataclasses.is_dataclass(made):
            return made
        found = lengths.following_stage(made, options, self.longest)
        self.followed.update({f"{name}.{key}": length for key, length in found.items()})
        values = {key: length.value for key, length in found.items()}
        return cast(T, dataclasses.replace(cast(Any, made), **values))


def _options(where: str, default: T, values: Any) -> T:
    """Replace fields of a stage, with the types its dataclass declares.

    Credit by groups has the options of the advantages that it gives.
    """
    if isinstance(default, GroupCredit):
        return cast(T, GroupCredit(_options(where, default.advantages, values)))
    given = _mapping(where, values)
    options = dataclasses.fields(default) if dataclasses.is_dataclass(default) else ()
    hints = get_type_hints(type(default), include_extras=True) if options else {}
    known = [option.name for option in options]
    checked = {}
    for key, value in given.items():
        if key not in known:
            raise ConfigError(f"algorithm.{where} has no option '{key}': {_hint(key, known)}")
        try:
            checked[key] = TypeAdapter(hints[key]).validate_python(value)
        except ValidationError as error:
            message = error.errors()[0]["msg"].lower()
            raise ConfigError(f"algorithm.{where}.{key}: {message} (got {value!r:.80})") from None
    return cast(T, dataclasses.replace(cast(Any, default), **checked)) if checked else default


def _stage_hint(key: str, known: Sequence[str]) -> str:
    """Say where an option that belongs to a stage is written, or which algorithms have it."""
    for stage, default in _WITH_OPTIONS.items():
        if key in (field.name for field in dataclasses.fields(default)):
            return f"write it as {stage}.{key}"
    owners = [
        name
        for name in sorted(plugins.available("algorithm"))
        if key in plugins.load("algorithm", name).Params.model_fields
    ]
    if not owners:
        return _hint(key, known)
    near = difflib.get_close_matches(key, known, n=1)
    return f"{_hint(key, known)} ({_owned(owners)})" if near else _owned(owners)


def _owned(owners: Sequence[str]) -> str:
    return f"it is an option of {', '.join(owners)}"


def _mapping(where: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"algorithm.{where} is a section of options, got {value!r:.80}")
    return value


def _hint(key: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    return f"did you mean '{near[0]}'?" if near else f"known: {', '.join(sorted(known)) or 'none'}"
