"""T-GRPO: right answers are paid for where the order of a video's frames has helped.

Video-R1, arXiv 2503.21776. Every question about a video is also asked with its frames in another
order. Where the answers in order are at least `share` as often right as those out of it, each of
them above `above` earns `bonus` more. Answers to shuffled frames are compared with, not trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.credit import GroupCredit, GroupRelative, families, outcomes, scorable
from mmrl.objectives.clipped_ratio import Clipped
from mmrl.stage import Context, Edit, Stage, with_rewards
from mmrl.types import Group, MediaRef, Prompt, Sample
from mmrl.validation import Section

SUMMARY = "pays where the order of a video's frames has helped"
PAPER = "arXiv 2503.21776"
SHUFFLED = "shuffled"


class Params(Section):
    group_size: int = Field(8, gt=1)
    shuffled: int = Field(4, gt=0, description="answers to the frames in another order")
    bonus: float = Field(0.3, ge=0)
    share: float = Field(0.8, ge=0, description="of the accuracy out of order that is enough")
    above: float = Field(0.1, description="reward from which an answer gets the bonus")
    part: str | None = Field(None, description="reward part that says right or wrong")


@dataclass(frozen=True)
class AlsoShuffled(Stage):
    """Ask a question about videos twice, their frames in order and out of it."""

    def __call__(self, sample: Sample, context: Context) -> Sequence[Sample]:
        if not any(_is_video(part) for part in sample.parts):
            return (sample,)
        drawn = sha256(f"{sample.id}/{context.step}".encode()).digest()
        seed = int.from_bytes(drawn[:4], "big")
        parts = (
            replace(part, options={**part.options, "shuffle": seed})
            if isinstance(part, MediaRef) and part.kind == "video"
            else part
            for part in sample.parts
        )
        return (sample, replace(sample, parts=tuple(parts), variant=SHUFFLED))


@dataclass(frozen=True)
class FewerShuffled(Stage):
    """Plan `size` answers for a question, `shuffled` where its frames are out of order."""

    size: int
    shuffled: int

    def __call__(self, prompts: Sequence[Prompt], context: Context) -> Sequence[int]:
        return [self.shuffled if p.sample.variant == SHUFFLED else self.size for p in prompts]


@dataclass(frozen=True)
class OrderPays(Stage):
    """Add `bonus` to rewards above `above` where frames in order did as well as out of it."""

    bonus: float
    share: float
    above: float
    part: str | None = None

    def __call__(self, groups: list[Group], context: Context) -> list[Group]:
        return [group for family in families(groups) for group in self._paid(family)]

    def _paid(self, family: list[Group]) -> list[Group]:
        means = {group.prompt.sample.variant: _accuracy(group, self.part) for group in family}
        if None in means.values() or SHUFFLED not in means or "" not in means:
            return family
        if (means[""] or 0.0) < self.share * (means[SHUFFLED] or 0.0):
            return family
        return [
            group
            if group.prompt.sample.variant
            else with_rewards(group, group.rewards + self.bonus * (group.rewards > self.above))
            for group in family
        ]


def _accuracy(group: Group, part: str | None) -> float | None:
    right = outcomes(group, part)
    known = right[scorable(right)]
    return float(known.mean()) if len(known) else None


def without_shuffled(groups: list[Group], context: Context) -> Edit:
    """Keep what was asked with frames in order."""
    return Edit([group for group in groups if group.prompt.sample.variant != SHUFFLED])


def _is_video(part: object) -> bool:
    return isinstance(part, MediaRef) and part.kind == "video"


def build(params: Params) -> Algorithm:
    """Fill expansion, plan, shaping and editing; the rest is GRPO."""
    return Algorithm(
        name="t_grpo",
        expand=AlsoShuffled(),
        plan=FewerShuffled(params.group_size, params.shuffled),
        shape=(OrderPays(params.bonus, params.share, params.above, params.part),),
        edit=(without_shuffled,),
        credit=GroupCredit(GroupRelative()),
        objective=Clipped(),
    )
