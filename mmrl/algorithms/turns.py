"""Episodes of several turns: spans of tokens, and advantages that differ by turn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmrl.algorithm import TokenSpan, carried
from mmrl.types import Bools, Floats, Group, Response


def turns(group: Group) -> Sequence[Sequence[TokenSpan]]:
    """The turns of every episode; raises UserError where the run has none."""
    found: Sequence[Sequence[TokenSpan]] = carried(group, "turns")
    return found


def in_turns(response: Response, spans: Sequence[TokenSpan]) -> Bools:
    """True for the tokens [T] the model wrote; tool output lies between turns."""
    mask = np.zeros(len(response.ids), dtype=bool)
    for span in spans:
        mask[span.start : span.end] = True
    return mask


def by_turn(
    response: Response, spans: Sequence[TokenSpan], values: Sequence[float] | Floats
) -> Floats:
    """Spread one value a turn on the turn's tokens [T]; 0 elsewhere."""
    tokens = np.zeros(len(response.ids))
    for span, value in zip(spans, values, strict=True):
        tokens[span.start : span.end] = value
    return tokens
