"""Observations between a scoring worker and its parent, as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from mmrl.corpus.references import part_of, part_values
from mmrl.types import Observation


def observation_values(observation: Observation) -> dict[str, Any]:
    """Plain data that `observation_of` reads back."""
    values = {f.name: getattr(observation, f.name) for f in dataclasses.fields(observation)}
    return {**values, "parts": [part_values(part) for part in observation.parts]}


def observation_of(values: Mapping[str, Any]) -> Observation:
    """The observation of what `observation_values` made."""
    parts = tuple(map(part_of, values["parts"]))
    history = tuple((role, count) for role, count in values["history"])
    return Observation(**{**values, "parts": parts, "history": history})
