"""Reading lists of calls, and Reason-RFT's graded match of two sets of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

from mmrl.rewards.parsed import Parsed, malformed, ok

MAX_CALLS = 64
_CALL = re.compile(
    r"\s{0,9}([A-Za-z_]\w{0,63})\(\s{0,9}([^,()\n]{1,64}),\s{0,9}([^,()\n]{1,64})\)\s{0,9}"
)


class Change(NamedTuple):
    """One transformation; object and value without quotes, in lower case."""

    function: str
    object: str
    value: str


def parse_changes(text: str) -> Parsed[tuple[Change, ...]]:
    """Read calls `f(object, value)` separated by commas, semicolons or lines, and nothing else."""
    text = text.strip()
    changes: list[Change] = []
    at = 0
    while at < len(text):
        match = _CALL.match(text, at)
        if match is None:
            return malformed(f"not a call: '{text[at : at + 40]}'")
        changes.append(_change(match))
        if len(changes) > MAX_CALLS:
            return malformed(f"more than {MAX_CALLS} calls")
        at = match.end()
        if at < len(text):
            if text[at] not in ",;" and "\n" not in match[0]:
                return malformed(f"no separator before '{text[at : at + 40]}'")
            at += text[at] in ",;"
    return ok(tuple(changes)) if changes else Parsed("missing", None, "no call")


def find_changes(text: str) -> Parsed[tuple[Change, ...]]:
    """Read whatever calls the text contains, prose ignored, as published."""
    changes = tuple(_change(match) for match in _CALL.finditer(text))[:MAX_CALLS]
    return ok(changes) if changes else Parsed("missing", None, "no call")


def set_score(
    calls: Sequence[Change],
    golds: Sequence[Change],
    matching: Literal["graded", "full", "penalty"] = "graded",
) -> float:
    """Credit of greedily paired calls over the larger set, times the share of distinct calls.

    Whole matches pay 1, then pairs that share function and object 0.5, function and value 0.5,
    function 0.25. `penalty` makes these -0.25, -0.25 and -0.5, `full` 0.
    """
    if not calls or not golds:
        return 0.0
    credits = {
        "graded": (1, 0.5, 0.5, 0.25),
        "full": (1, 0, 0, 0),
        "penalty": (1, -0.25, -0.25, -0.5),
    }
    ours, theirs = list(dict.fromkeys(calls)), list(golds)
    distinct = len(ours) / len(calls)
    item = distinct / max(len(ours), len(theirs))
    stages = ((0, 1, 2), (0, 1), (0, 2), (0,))
    total = 0.0
    for credit, fields in zip(credits[matching], stages, strict=True):
        for call in list(ours):
            partner = next((g for g in theirs if all(g[f] == call[f] for f in fields)), None)
            if partner is not None:
                ours.remove(call)
                theirs.remove(partner)
                total += credit * item
    return total


def _change(match: re.Match[str]) -> Change:
    function, thing, value = (part.strip().strip("'\"").strip().lower() for part in match.groups())
    return Change(function, thing, value)
