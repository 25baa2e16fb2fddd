"""Which questions a group of answers makes, and each answer's value from their verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from itertools import combinations

import numpy as np

from mmrl.scoring.judges.judge_config import JudgeConfig
from mmrl.scoring.judges.question import LETTERS, Verdict

Places = tuple[int, ...]
"""The answers that a question shows, by their places in the group and in the order shown."""


def shown_together(config: JudgeConfig, answers: Sequence[str]) -> list[Places]:
    """The questions to ask about a group; equal answers are asked about once, as one.

    Pairs are asked in both orders, and a list once forwards and once backwards, so that a judge
    that likes what stands first favours nobody.
    """
    first = {text: i for i, text in reversed(list(enumerate(answers)))}
    distinct = sorted(first.values())
    if config.form == "pointwise":
        return [(i,) for i in distinct]
    if config.form == "pairwise":
        pairs = _pairs(distinct, config.opponents)
        if config.reference:
            drawn = reference_of(answers)
            pairs = [(drawn, place) for place in distinct if place != drawn]
        return [order for a, b in pairs for order in ((a, b), (b, a))]
    chunks = [distinct[i : i + len(LETTERS)] for i in range(0, len(distinct), len(LETTERS))]
    return [
        order for chunk in chunks if len(chunk) > 1 for order in (tuple(chunk), tuple(chunk[::-1]))
    ]


def reference_of(answers: Sequence[str]) -> int:
    """The place of the answer that all others of its group are compared with.

    It is drawn from what they say, so that a run that resumes draws the same.
    """
    distinct = sorted({text: i for i, text in reversed(list(enumerate(answers)))}.values())
    said = "\x00".join(answers).encode("utf-8", "backslashreplace")
    return distinct[int.from_bytes(sha256(said).digest()[:8], "big") % len(distinct)]


def _pairs(places: Sequence[int], opponents: int) -> list[tuple[int, int]]:
    """All pairs, or each place with so many that follow it in a ring."""
    count = len(places)
    if not opponents or opponents >= count // 2:
        return list(combinations(places, 2))
    return [
        (places[i], places[(i + k) % count]) for i in range(count) for k in range(1, opponents + 1)
    ]


def values_of(
    config: JudgeConfig, answers: Sequence[str], verdicts: Mapping[Places, Verdict]
) -> list[float | None]:
    """A value from 0 to 1 for each answer; None where the verdicts do not reach for one.

    Of pairs it is the share that an answer wins, ties by half. A pair, or a list, counts only
    where both orders have a verdict; an answer that has met fewer than half of those that it was to
    meet has no value. One that is the only one of its kind has nobody to be compared with: 0.5,
    which is also the reference's, which is as good as itself.
    """
    asked = shown_together(config, answers)
    found: dict[int, list[float]] = {}
    wanted: dict[int, int] = {}
    for places in asked:
        whole = verdicts.keys() >= {places, places[::-1]}
        for i, place in enumerate(places):
            wanted[place] = wanted.get(place, 0) + 1
            if whole:
                found.setdefault(place, []).append(verdicts[places][i])
    first = {text: i for i, text in reversed(list(enumerate(answers)))}
    alone = config.form != "pointwise" and len(first) == 1
    if config.reference and not alone:
        drawn = reference_of(answers)
        known = any(place != drawn for place in found)
        found[drawn], wanted[drawn] = ([0.5], 1) if known else ([], 1)
    return [0.5 if alone else _mean(found, wanted, first[text]) for text in answers]


def _mean(
    found: Mapping[int, Sequence[float]], wanted: Mapping[int, int], place: int
) -> float | None:
    known = found.get(place, ())
    if not known or 2 * len(known) < wanted[place]:
        return None
    return float(np.mean(known))
