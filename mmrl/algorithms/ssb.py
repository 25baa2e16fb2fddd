"""SSB: groups with signal are kept, and take the place of groups without (a variant).

Skywork R1V2, arXiv 2504.16656, against vanishing advantages. Size and weights are not published;
groups are drawn by sum |A| x standard deviation, as TRL's replay buffer scores them. Replayed
responses keep the log-probs of the policy that sampled them. The hybrid with preference losses
(MPO) is a phase of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.credit import (
    PRESETS,
    FixedGroup,
    GroupCredit,
    GroupRelative,
    group_relative,
    is_uniform,
    scorable,
)
from mmrl.algorithms.stages.replay import freeze, is_taken_in, taken_in, thaw
from mmrl.objectives.clipped_ratio import Clipped
from mmrl.stage import Context, Edit, Stage
from mmrl.types import Extra, Floats, Group
from mmrl.validation import Section

SUMMARY = "replays groups with signal in place of groups without (variant)"
PAPER = "arXiv 2504.16656"


class Params(Section):
    group_size: int = Field(8, gt=1)
    size: int = Field(64, gt=0, description="groups the buffer holds; the lowest score goes first")


@dataclass(frozen=True)
class ReplaySignal(Stage):
    """Replace groups of equal rewards by stored ones; an empty buffer leaves them in place.

    Entries are JSON in `context.state["replay"]`, without media: the prompt is encoded again.
    """

    size: int = 64

    def __call__(self, groups: list[Group], context: Context) -> Edit:
        buffer: list[dict[str, Any]] = context.state.setdefault("replay", [])
        new = [g for g in groups if not is_taken_in(g)]
        fresh = [g for g in new if not is_uniform(g.rewards)]
        here = {group.prompt.sample.id for group in groups}
        entries = [entry for entry in buffer if entry["id"] not in here]
        drawn = iter(self._draw(entries, len(new) - len(fresh), context))
        edited = [
            g if is_taken_in(g) else taken_in(next(drawn, g) if is_uniform(g.rewards) else g)
            for g in groups
        ]
        self._store(buffer, fresh, context.step)
        return Edit(edited)

    def _draw(self, entries: list[dict[str, Any]], count: int, context: Context) -> list[Group]:
        count = min(count, len(entries))
        if not count:
            return []
        shares = draw_probabilities([entry["score"] for entry in entries])
        chosen = context.rng.choice(len(entries), size=count, replace=False, p=shares)
        return [self._restored(entries[int(i)], context) for i in chosen]

    def _restored(self, entry: dict[str, Any], context: Context) -> Group:
        pairs = [thaw(values) for values in entry["responses"]]
        responses, scores = zip(*pairs, strict=True)
        extra = Extra(replayed=tuple(range(len(responses))))
        return Group(context.recall(entry["id"]), responses, scores, extra)

    def _store(self, buffer: list[dict[str, Any]], groups: list[Group], step: int) -> None:
        again = {group.prompt.sample.id for group in groups}
        buffer[:] = [entry for entry in buffer if entry["id"] not in again]
        for group in groups:
            responses = [freeze(r, s) for r, s in zip(group.responses, group.scores, strict=True)]
            buffer.append(
                {
                    "id": group.prompt.sample.id,
                    "step": step,
                    "score": signal(group.rewards),
                    "responses": responses,
                }
            )
        buffer.sort(key=lambda e: (-e["score"], -e["step"], e["id"]))
        del buffer[self.size :]


def signal(rewards: Floats) -> float:
    """How much a group of rewards [G] has to teach: sum |A| x standard deviation."""
    known = rewards[scorable(rewards)]
    if len(known) < 2:
        return 0.0
    advantages = group_relative(known, PRESETS["trl"].normalise)
    return float(np.abs(advantages).sum() * known.std(ddof=1))


def draw_probabilities(scores: list[float]) -> Floats:
    """Chances [n] of being drawn, in proportion to the scores."""
    weights = np.asarray(scores)
    return np.asarray(weights / weights.sum())


def build(params: Params) -> Algorithm:
    """Fill editing; the rest is GRPO."""
    return Algorithm(
        name="ssb",
        plan=FixedGroup(params.group_size),
        edit=(ReplaySignal(params.size),),
        credit=GroupCredit(GroupRelative()),
        objective=Clipped(),
    )
