"""An algorithm from its config section: a name, its parameters, and stages put in place of its own.

    algorithm:
      name: stepgrpo
      alpha: 0.1
      objective: {name: cispo, high: 4.0}
      edit: [dapo_filter]
      kl: {schedule: {name: grpo_d, low: 0.04, high: 0.1}}

A stage without a name changes options of the algorithm's own: `objective: {high: 0.28}`. In a
list, `own` stands for the algorithm's own stages: `shape: [own, soft_overlong]`.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast, get_type_hints

from pydantic import TypeAdapter, ValidationError

from mmrl import plugins
from mmrl.algorithm import (
    FROM_DATA,
    KL,
    NEEDS,
    Algorithm,
    Need,
    Objective,
    Reducer,
    Schedule,
    Updates,
)
from mmrl.algorithms.checks import refuse
from mmrl.algorithms.credit import CREDITS
from mmrl.algorithms.editors import EDITORS
from mmrl.algorithms.objectives import OBJECTIVES, Clipped
from mmrl.algorithms.refiners import REFINERS
from mmrl.algorithms.schedules import SCHEDULES
from mmrl.algorithms.shapers import SHAPERS
from mmrl.config import validate
from mmrl.errors import UserError

T = TypeVar("T")

_WITH_OPTIONS: Mapping[str, type[Any]] = {
    "updates": Updates,
    "kl": KL,
    "objective": Clipped,
    "reducer": Reducer,
}
STAGES = ("objective", "reducer", "kl", "updates", "credit", "shape", "edit", "refine")


def compose(section: Mapping[str, Any]) -> Algorithm:
    """Build the algorithm a config section describes.

    Raises UserError for unknown names and options, and for stages that do not go together.
    """
    values = dict(section)
    name = str(values.pop("name", "grpo"))
    module = plugins.load("algorithm", name)
    overrides = {key: values.pop(key) for key in STAGES if key in values}
    known = [*module.Params.model_fields, *STAGES]
    for key in values:
        if key not in known:
            raise UserError(f"algorithm '{name}' has no option '{key}': {_stage_hint(key, known)}")
    params = validate(module.Params, values, f"algorithm '{name}'")
    algorithm = cast(Algorithm, module.build(params))
    algorithm = _replace_stages(algorithm, overrides)
    refuse(algorithm)
    return algorithm


def require(algorithm: Algorithm, provided: frozenset[Need]) -> None:
    """Raise UserError if the algorithm needs something a run does not provide."""
    missing = sorted(algorithm.needs - provided - FROM_DATA)
    if missing:
        listed = "; ".join(NEEDS[need] for need in missing)
        raise UserError(f"algorithm '{algorithm.name}' needs what this run does not have: {listed}")


def _replace_stages(algorithm: Algorithm, overrides: Mapping[str, Any]) -> Algorithm:
    changed: dict[str, Any] = {}
    for key, value in overrides.items():
        match key:
            case "objective":
                changed[key] = _stage(key, value, OBJECTIVES, algorithm.objective)
            case "credit":
                changed[key] = _stage(key, value, CREDITS, None)
            case "kl":
                changed[key] = None if value is None else _kl(value, algorithm.kl)
            case "reducer":
                own = {"name": value} if isinstance(value, str) else value
                changed[key] = _options(key, algorithm.reducer, own)
            case "updates":
                changed[key] = _options(key, algorithm.updates, value)
            case "shape":
                changed[key] = _list(key, value, SHAPERS, algorithm.shape)
            case "edit":
                changed[key] = _list(key, value, EDITORS, algorithm.edit)
            case "refine":
                changed[key] = _list(key, value, REFINERS, algorithm.refine)
    return dataclasses.replace(algorithm, **_with_reducer(changed))


def _with_reducer(changed: dict[str, Any]) -> dict[str, Any]:
    """Bring along the only reducer that makes sense for a new objective."""
    objective = changed.get("objective")
    if isinstance(objective, Objective) and objective.reducer and "reducer" not in changed:
        return {**changed, "reducer": Reducer(objective.reducer)}
    return changed


def _kl(value: Any, own: KL | None) -> KL:
    """Read a KL section; a schedule takes the place of the coefficient."""
    options = dict(_mapping("kl", value))
    schedule = options.pop("schedule", None)
    kl = _options("kl", own or KL(), options)
    if schedule is None:
        return kl
    made: Schedule = _stage("kl.schedule", schedule, SCHEDULES, None)
    return dataclasses.replace(kl, schedule=made)


def _list(where: str, value: Any, table: Mapping[str, T], own: Sequence[T]) -> tuple[T, ...]:
    if not isinstance(value, list | tuple):
        raise UserError(f"algorithm.{where} is a list of stages, got {value!r:.80}")
    stages: list[T] = []
    for item in value:
        if item == "own":
            stages += own
        else:
            stages.append(_stage(where, item, table, None))
    return tuple(stages)


def _stage(where: str, value: Any, table: Mapping[str, T], own: T | None) -> T:
    """Read one stage: a name, or a name with options, or options of the algorithm's own."""
    options = {"name": value} if isinstance(value, str) else dict(_mapping(where, value))
    name = options.pop("name", None)
    if name is None and own is None:
        raise UserError(f"algorithm.{where} needs a name: {', '.join(sorted(table))}")
    if name is not None and name not in table:
        raise UserError(f"algorithm.{where}: unknown name '{name}': {_hint(name, list(table))}")
    return _options(where, cast(T, own if name is None else table[name]), options)


def _options(where: str, default: T, options: Any) -> T:
    """Replace fields of a stage, with the types its dataclass declares."""
    given = _mapping(where, options)
    hints = get_type_hints(type(default), include_extras=True)
    known = [f.name for f in dataclasses.fields(cast(Any, default))]
    checked = {}
    for key, value in given.items():
        if key not in known:
            raise UserError(f"algorithm.{where} has no option '{key}': {_hint(key, known)}")
        try:
            checked[key] = TypeAdapter(hints[key]).validate_python(value)
        except ValidationError as error:
            message = error.errors()[0]["msg"].lower()
            raise UserError(f"algorithm.{where}.{key}: {message} (got {value!r:.80})") from None
    return cast(T, dataclasses.replace(cast(Any, default), **checked))


def _stage_hint(key: str, known: Sequence[str]) -> str:
    """Say where an option that belongs to a stage is written."""
    for stage, default in _WITH_OPTIONS.items():
        if key in (field.name for field in dataclasses.fields(default)):
            return f"write it as {stage}.{key}"
    return _hint(key, known)


def _mapping(where: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UserError(f"algorithm.{where} is a section of options, got {value!r:.80}")
    return value


def _hint(key: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    return f"did you mean '{near[0]}'?" if near else f"known: {', '.join(sorted(known)) or 'none'}"
