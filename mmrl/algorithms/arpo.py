"""ARPO: a stored success of the same task stands in where a whole group fails.

arXiv 2505.16282, for GUI agents. The stored response replaces the first of the group before
advantages are computed, and counts as on-policy (ratio 1), as in the released code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.credit import FixedGroup, GroupCredit, GroupRelative, outcomes, scorable
from mmrl.algorithms.stages.replay import freeze, is_taken_in, put_first, taken_in, thaw
from mmrl.objectives.clipped_ratio import Clipped
from mmrl.stage import Context, Edit, Stage
from mmrl.types import Floats, Group
from mmrl.validation import Section

SUMMARY = "replays a stored success where a group fails as a whole"
PAPER = "arXiv 2505.16282"


class Params(Section):
    group_size: int = Field(8, gt=1)
    size: int = Field(8, gt=0, description="successes kept for each sample")
    part: str | None = Field(None, description="reward part that says how well the task was done")


@dataclass(frozen=True)
class ReplaySuccess(Stage):
    """Put a stored success in the place of the first response of a failing group.

    Failing: outcomes with standard deviation (ddof 0) under `spread` and mean under `mean`. What
    scores over `store` is kept, the oldest goes first. State: sample id -> frozen responses.
    """

    size: int = 8
    part: str | None = None
    spread: float = 0.05
    mean: float = 0.2
    store: float = 0.1

    def __call__(self, groups: list[Group], context: Context) -> Edit:
        buffer: dict[str, list[Any]] = context.state.setdefault("successes", {})
        edited = []
        for group in groups:
            if is_taken_in(group):
                edited.append(group)
                continue
            values = outcomes(group, self.part)
            stored = buffer.get(group.prompt.sample.id, [])
            failing = self.fails(values) and stored
            new = self._injected(group, stored, context) if failing else group
            edited.append(taken_in(new))
            self._keep(buffer, group, values)
        return Edit(edited)

    def fails(self, values: Floats) -> bool:
        """True if the group, of outcomes [G], failed as a whole; NaN is unscorable."""
        known = values[scorable(values)]
        return bool(len(known) and known.std() < self.spread and known.mean() < self.mean)

    def _injected(self, group: Group, stored: list[Any], context: Context) -> Group:
        chosen = stored[int(context.rng.integers(len(stored)))]
        return put_first(group, *thaw(chosen, on_policy=True))

    def _keep(self, buffer: dict[str, list[Any]], group: Group, values: Floats) -> None:
        successes = [
            freeze(response, score)
            for response, score, value in zip(group.responses, group.scores, values, strict=True)
            if value > self.store
        ]
        if successes:
            kept = buffer.setdefault(group.prompt.sample.id, [])
            kept += successes
            del kept[: -self.size]


def build(params: Params) -> Algorithm:
    """Fill editing; the rest is GRPO with clip-higher."""
    return Algorithm(
        name="arpo",
        plan=FixedGroup(params.group_size),
        edit=(ReplaySuccess(params.size, params.part),),
        credit=GroupCredit(GroupRelative()),
        objective=Clipped(low=0.2, high=0.3),
    )
