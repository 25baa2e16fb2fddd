"""A reward for the length that a record asks for: how long to think is the user's choice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from mmrl.algorithms.stages.credit import lengths_of
from mmrl.errors import UserError
from mmrl.stage import Context, Stage, with_rewards
from mmrl.types import Floats, Group

ASKED = "target_length"


@dataclass(frozen=True)
class LengthTarget(Stage):
    """Take `alpha` off for every token that an answer is off the length it was asked for.

    INTELLECT-2, arXiv 2505.07291 (after L1). The length stands in the sample's meta as
    `target_length`, where a task puts it that also says it in the prompt (`math`); a sample without
    one raises UserError.
    """

    alpha: Annotated[float, Field(gt=0)] = 3e-4

    def __call__(self, groups: list[Group], context: Context) -> list[Group]:
        return [with_rewards(g, g.rewards + self.penalties(g, lengths_of(g))) for g in groups]

    def penalties(self, group: Group, lengths: Floats) -> Floats:
        """What is added to the rewards [G] of answers of these lengths, in tokens."""
        sample = group.prompt.sample
        if ASKED not in sample.meta:
            raise UserError(
                f"sample '{sample.id}' asks for no length: length_target needs the column "
                f"`{ASKED}` and a task that says it in the prompt, such as math"
            )
        return -self.alpha * abs(lengths - float(sample.meta[ASKED]))
