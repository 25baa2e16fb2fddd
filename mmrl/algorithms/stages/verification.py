"""The policy as its own verifier: what it is asked about an answer, and what it is taught to say.

RL^V, arXiv 2505.04842: one model answers, and says of answers whether they are right.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from pydantic import Field

from mmrl.algorithms.stages.credit import GroupCredit, outcomes, scorable
from mmrl.stage import Context, Stage
from mmrl.types import Group, Sample, Text, TrainSample

QUESTION = "Is this solution correct? Answer Yes or No."
YES, NO = "Yes", "No"


def verification(sample: Sample, answer: str, question: str = QUESTION) -> Sample:
    """The question whether an answer to a sample is right, behind the sample's own parts."""
    said = Text(f"\n\nA solution:\n{answer}\n\n{question}")
    return replace(
        sample,
        parts=(*sample.parts, said),
        target=None,
        reference=None,
        variant="verification",
        start=None,
        turns=1,
    )


@dataclass(frozen=True)
class WithVerdicts(Stage):
    """Credit by groups, and one more train sample for each answer: whether it is right.

    The policy is asked about the answer and taught `Yes` or `No`, at advantage `weight`: with an
    objective that follows the likelihood it learns weight x log p(verdict | question, answer).
    Right is an outcome of `part` of at least `threshold`; answers without a verdict teach none.
    """

    credit: GroupCredit
    weight: Annotated[float, Field(ge=0)] = 1.0
    question: str = QUESTION
    threshold: float = 1.0
    part: str | None = None

    def __call__(self, groups: list[Group], context: Context) -> list[TrainSample]:
        samples = self.credit(groups, context)
        verdicts = (v for i, group in enumerate(groups) for v in self._of(group, i, context))
        return [
            *samples,
            *(replace(v, group=len(groups) + number) for number, v in enumerate(verdicts)),
        ]

    def _of(self, group: Group, index: int, context: Context) -> Iterator[TrainSample]:
        right = outcomes(group, self.part)
        for i in np.flatnonzero(scorable(right)):
            asked = verification(group.prompt.sample, group.responses[i].text, self.question)
            written = context.write(asked, YES if right[i] >= self.threshold else NO)
            if written is None:
                continue
            prompt, response = written
            tokens = len(response.ids)
            yield TrainSample(
                prompt,
                response,
                np.full(tokens, self.weight),
                np.ones(tokens, dtype=bool),
                sampled=False,
                origin=(index, int(i)),
            )
