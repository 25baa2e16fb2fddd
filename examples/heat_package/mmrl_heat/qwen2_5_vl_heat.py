"""Qwen2.5-VL with heat maps: they pass its processor and tower as pictures do."""

from __future__ import annotations

import dataclasses
from typing import Any, cast

from mmrl.policy.families import grid, qwen2_5_vl
from mmrl.policy.family import Family, Limits
from mmrl.types import MediaKind

HEATMAP = cast(MediaKind, "heatmap")

# No model types: it is taken where `model.family` names it, never by itself.
DECLARATION = dataclasses.replace(
    qwen2_5_vl.DECLARATION,
    model_types=(),
    takes=(*qwen2_5_vl.DECLARATION.takes, HEATMAP),
    vllm=(),
    notes="Qwen2.5-VL that also takes heat maps",
)


def build(model: Any, processor: Any, limits: Limits) -> Family:
    """Bind the family to a loaded model and its processor."""
    family = grid.build(model, processor, limits, DECLARATION, fix_positions=True)
    intakes = {**family.intakes, HEATMAP: family.intakes["image"]}
    return dataclasses.replace(family, intakes=intakes)
