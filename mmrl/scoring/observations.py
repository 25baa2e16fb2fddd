"""Observations between a scoring worker and its parent, as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from mmrl import task as contract
from mmrl.corpus.references import part_of, part_values
from mmrl.rewards.own_code import Misreturned, defined_at
from mmrl.types import Answer, Observation


def observation_values(observation: Observation) -> dict[str, Any]:
    """Plain data that `observation_of` reads back."""
    values = {f.name: getattr(observation, f.name) for f in dataclasses.fields(observation)}
    return {**values, "parts": [part_values(part) for part in observation.parts]}


def observation_of(values: Mapping[str, Any]) -> Observation:
    """The observation of what `observation_values` made."""
    parts = tuple(map(part_of, values["parts"]))
    history = tuple((role, count) for role, count in values["history"])
    return Observation(**{**values, "parts": parts, "history": history})


def carried_out(task: contract.Task, gold: Any, state: Any, answer: Answer) -> str:
    """The observation of a turn as JSON; raises Misreturned where `step` gives what is none."""
    step = getattr(type(task), "step", contract.Task.step)
    if step is contract.Task.step:
        raise Misreturned(f"task '{task.name}' has episodes (`start`), and no `step` for a turn")
    seen = task.step(gold, state, answer)
    where = defined_at(step)
    if not isinstance(seen, Observation):
        kind = type(seen).__name__
        raise Misreturned(f"{where}`step` returned a {kind}: return an Observation (mmrl.types)")
    try:
        return json.dumps(observation_values(seen))
    except (TypeError, ValueError) as error:
        raise Misreturned(
            f"{where}`step` gave what is no plain JSON ({error}): make its state of dicts, lists, "
            "strings and numbers, its parts of Text and MediaRef"
        ) from None
