"""KTAE: a token's own value, from how it parts right from wrong responses of its group.

arXiv 2505.16826. Fisher's exact test, information gain and term frequency of every vocabulary
token; a token that stands only in right responses saturates.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.credit import (
    PRESETS,
    FixedGroup,
    GroupCredit,
    Normalise,
    group_relative,
    outcomes,
    scorable,
)
from mmrl.objectives.clipped_ratio import Clipped
from mmrl.stage import Context, Stage
from mmrl.types import Floats, Group
from mmrl.validation import Section

SUMMARY = "adds statistical key-token values to the advantage"
PAPER = "arXiv 2505.16826"

K1, B, SMOOTH = 2.0, 0.5, 1e-5  # BM25 and the guard of its ratios, as in the released code


class Params(Section):
    group_size: int = Field(16, gt=1)
    fisher_weight: float = Field(1.0, ge=0)
    gain_weight: float = Field(1.0, ge=0)
    most: float = Field(1.0, gt=0, description="bound of a token's value")
    part: str | None = Field(None, description="reward part that says right or wrong")


@dataclass(frozen=True)
class Counts:
    """Right and wrong responses with (a, b) and without (c, d) a token, and how often it stands.

    `share_right` is its share of all tokens of right responses, `share_wrong` of wrong ones;
    `length_right` and `length_wrong` are lengths relative to their mean.
    """

    a: int
    b: int
    c: int
    d: int
    share_right: float
    share_wrong: float
    length_right: float = 1.0
    length_wrong: float = 1.0


def fisher(n: Counts) -> float:
    """Two-sided p of Fisher's exact test, by exact integers."""
    rows, column, total = (n.a + n.b, n.c + n.d), n.a + n.c, n.a + n.b + n.c + n.d
    ways = [
        math.comb(rows[0], k) * math.comb(rows[1], column - k)
        for k in range(max(0, column - rows[1]), min(column, rows[0]) + 1)
    ]
    seen = math.comb(rows[0], n.a) * math.comb(rows[1], n.c)
    return sum(w for w in ways if w <= seen) / math.comb(total, column)


def information_gain(n: Counts) -> float:
    """Bits that knowing whether a response has the token tells about it being right."""

    def entropy(right: int, wrong: int) -> float:
        shares = [k / (right + wrong) for k in (right, wrong) if k]
        return -sum(p * math.log2(p) for p in shares)

    total = n.a + n.b + n.c + n.d
    parts = [(n.a, n.b), (n.c, n.d)]
    after = sum((r + w) / total * entropy(r, w) for r, w in parts if r + w)
    return entropy(n.a + n.c, n.b + n.d) - after


def term_frequency(share: float, length: float) -> float:
    """BM25's saturated term frequency."""
    return share * (K1 + 1) / (share + K1 * (1 - B + B * length))


def direction(n: Counts) -> float:
    """How much more the token belongs to right responses than to wrong ones."""
    right = term_frequency(n.share_right, n.length_right)
    wrong = term_frequency(n.share_wrong, n.length_wrong)
    presence = math.asin(math.sqrt(n.a / (n.a + n.c))) - math.asin(math.sqrt(n.b / (n.b + n.d)))
    return presence + right / (wrong + SMOOTH) - wrong / (right + SMOOTH)


@dataclass(frozen=True)
class KeyTokens(Stage):
    """Group-relative advantages [T] of every response plus the value of each of its tokens."""

    fisher_weight: float = 1.0
    gain_weight: float = 1.0
    most: float = 1.0
    part: str | None = None
    normalise: Normalise = PRESETS["paper"].normalise

    def __call__(self, group: Group, context: Context) -> list[Floats]:
        base = group_relative(group.rewards, self.normalise)
        values = self._values(group)
        return [
            a + np.array([values.get(int(t), 0.0) for t in r.ids])
            for a, r in zip(base, group.responses, strict=True)
        ]

    def value(self, n: Counts) -> float:
        """Value of a token in (-most, most)."""
        return math.tanh(self.key(n) / 2) * self.most  # 2 (sigmoid(key) - 1/2), without overflow

    def key(self, n: Counts) -> float:
        """Weight of evidence, signed: positive where right responses have the token."""
        p = fisher(n)
        certainty = 0.0 if math.isclose(p, 1.0) else math.exp(-2 * p)
        weights = self.fisher_weight + self.gain_weight
        evidence = self.fisher_weight * certainty + self.gain_weight * information_gain(n)
        return evidence * direction(n) / weights if weights else 0.0

    def _values(self, group: Group) -> dict[int, float]:
        """Value of every token but the last of a complete response (the end token)."""
        right = outcomes(group, self.part)
        said = [r.ids[r.written] for r in group.responses]
        bodies = [
            ids if r.truncated else ids[:-1] for ids, r in zip(said, group.responses, strict=True)
        ]
        known = [(ids, flag > 0) for ids, flag in zip(bodies, right, strict=True) if scorable(flag)]
        sides = [[Counter(ids.tolist()) for ids, r in known if r == side] for side in (True, False)]
        if not all(sides):
            return {}
        totals = [sum(sides[0], Counter()), sum(sides[1], Counter())]
        lengths = [float(total.total()) for total in totals]
        mean = sum(lengths) / 2
        values = {}
        for token in totals[0].keys() | totals[1].keys():
            a, b = (sum(token in response for response in side) for side in sides)
            shares = [t[token] / n if n else 0.0 for t, n in zip(totals, lengths, strict=True)]
            relative = [length / mean for length in lengths]
            counts = Counts(a, b, len(sides[0]) - a, len(sides[1]) - b, *shares, *relative)
            values[token] = self.value(counts)
        return values


def build(params: Params) -> Algorithm:
    """Fill credit."""
    keys = KeyTokens(params.fisher_weight, params.gain_weight, params.most, params.part)
    return Algorithm(
        name="ktae",
        plan=FixedGroup(params.group_size),
        credit=GroupCredit(keys),
        objective=Clipped(),
    )
