"""Completions that a row holds beside its question, and what each earned: pairs, lists, scores.

TRL's `chosen` and `rejected` (texts, messages, or whole conversations), ms-swift's
`rejected_response` and `rejected_messages` beside a reply, scores and margins of pairs, and lists
of `completions` or `responses` with their `rewards` or `scores`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mmrl.corpus.cells import as_value
from mmrl.corpus.conversation import is_conversation, reply_text
from mmrl.corpus.fields import Fields
from mmrl.types import Reference

Ranked = tuple[tuple[str, float | None], ...]
"""Completions with what each earned, all different; None: the task's score says."""

REJECTED = ("rejected", "rejected_response", "rejected_messages")
LISTS = ("completions", "responses")
_REWARDS = ("rewards", "scores")
_SCORES = ("score_{}", "{}_score", "rating_{}", "{}_rating", "{}-rating", "reward_{}", "{}_reward")
_NOTHING: tuple[Any, ...] = (None, "", [], ())


def reference_of(fields: Fields) -> Reference | None:
    """What a row gives as the right completion, with all the completions that it holds."""
    found = fields.reference
    ranked = ranked_of(fields.own, found.text if found else "")
    return replace(found or Reference(), ranked=ranked) if ranked else found


def ranked_of(row: Mapping[str, Any], reply: str) -> Ranked:
    """The completions that a row holds, the chosen before the rejected; () where it holds none.

    `reply` is the completion that the row gives as the right one, which stands against what it
    rejects where no `chosen` does. The sides of a pair earn their scores, or their margin and 0;
    1 and 0 where there are none, or where those do not say that the chosen one is better.
    """
    try:
        chosen, rejected = _side(row, ("chosen",)), _side(row, REJECTED)
        if rejected:
            high, low = _scores_of_pair(row)
            better = chosen or ([reply] if reply else [])
            return _distinct([*((t, high) for t in better), *((t, low) for t in rejected)])
        for name in LISTS:
            listed = as_value(row.get(name))
            if isinstance(listed, list | tuple) and listed and not is_conversation(listed):
                texts = _texts(listed)
                return _distinct(list(zip(texts, _rewards(row, len(texts)), strict=True)))
    except ValueError:
        pass  # columns of that name which hold something else
    return ()


def merged(*several: Ranked) -> Ranked:
    """The completions of all, each once; a known reward goes before one that is not known."""
    return _distinct([pair for ranked in several for pair in ranked])


def _distinct(pairs: Sequence[tuple[str, float | None]]) -> Ranked:
    found: dict[str, float | None] = {}
    for text, reward in pairs:
        if found.get(text) is None:
            found[text] = reward
    return tuple(found.items())


def _side(row: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """The completions of one side of a pair: one, or a list of several."""
    value = next((row[name] for name in names if row.get(name) not in _NOTHING), None)
    return [] if value is None else _texts(value)


def _texts(value: Any) -> list[str]:
    """One completion as a text, a message or a conversation, or a list of such."""
    value = as_value(value)
    several = isinstance(value, list | tuple) and not is_conversation(value)
    return [reply_text(as_value(item)) for item in (value if several else [value])]


def _rewards(row: Mapping[str, Any], count: int) -> Sequence[float | None]:
    for name in _REWARDS:
        values = as_value(row.get(name))
        if isinstance(values, list | tuple) and len(values) == count:
            return [_number(value) for value in values]
    return [None] * count


def _scores_of_pair(row: Mapping[str, Any]) -> tuple[float, float]:
    for form in _SCORES:
        high, low = (_number(row.get(form.format(side))) for side in ("chosen", "rejected"))
        if high is not None and low is not None and high > low:
            return high, low
    margin = _number(row.get("margin"))
    return (1.0, 0.0) if margin is None or margin <= 0 else (margin, 0.0)


def _number(value: Any) -> float | None:
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if known and math.isfinite(value) else None
