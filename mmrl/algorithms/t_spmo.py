"""T-SPMO: what each token adds to the expected reward of its prefix (a variant).

arXiv 2504.20834. A(v | p) = E[r | prefix p + v] - E[r | p] over the group; every (prefix, token)
enters the loss once, with the first response that has it. Its normalisation is not published.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.credit import FixedGroup, pair, scorable
from mmrl.objective import Reducer
from mmrl.objectives.clipped_ratio import Clipped
from mmrl.stage import Context, Stage
from mmrl.types import Bools, Floats, Group, TrainSample
from mmrl.validation import Section

SUMMARY = "token advantages from the group's tree of prefixes (variant)"
PAPER = "arXiv 2504.20834"


class Params(Section):
    group_size: int = Field(16, gt=1)


@dataclass(frozen=True)
class PrefixTree(Stage):
    """The gain of every token over its prefix; later copies of a prefix are masked."""

    def __call__(self, groups: list[Group], context: Context) -> list[TrainSample]:
        return [s for i, group in enumerate(groups) for s in self._samples(group, i)]

    def _samples(self, group: Group, index: int) -> list[TrainSample]:
        gains, first = prefix_gains([r.ids.tolist() for r in group.responses], group.rewards)
        return [
            replace(sample, mask=first[i] & sample.mask)
            for i, sample in enumerate(pair(group, gains, index))
        ]


def prefix_gains(
    responses: Sequence[Sequence[int]], rewards: Floats
) -> tuple[list[Floats], list[Bools]]:
    """Gain of every token [T], and whether its response is the first with that prefix [T].

    Prefixes are numbered as they appear, so the time is linear in the number of tokens.
    """
    nodes: dict[tuple[int, int], int] = {}
    totals, counts = [0.0], [0]
    paths = []
    for ids, reward in zip(responses, rewards, strict=True):
        path = [0]
        for token in ids:
            node = nodes.setdefault((path[-1], token), len(totals))
            if node == len(totals):
                totals.append(0.0)
                counts.append(0)
            path.append(node)
        for node in path if scorable(reward) else ():
            totals[node] += float(reward)
            counts[node] += 1
        paths.append(path)
    means = np.array(totals) / np.maximum(counts, 1)
    gains = [means[path[1:]] - means[path[:-1]] for path in paths]
    return gains, _first_visits(paths, len(totals))


def _first_visits(paths: Sequence[Sequence[int]], count: int) -> list[Bools]:
    seen = np.zeros(count, dtype=bool)
    firsts = []
    for path in paths:
        firsts.append(~seen[path[1:]])
        seen[path[1:]] = True
    return firsts


def build(params: Params) -> Algorithm:
    """Fill credit and reducer."""
    return Algorithm(
        name="t_spmo",
        plan=FixedGroup(params.group_size),
        credit=PrefixTree(),
        objective=Clipped(),
        reducer=Reducer("token-mean"),
    )
