"""ChartQA: relaxed correctness, five percent around a number."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar, Literal

from mmrl import task as contract
from mmrl.records import media_refs
from mmrl.rewards.dress import undress
from mmrl.rewards.graded import ACCURACY_AND_FORMAT, grade, tagged_solution
from mmrl.rewards.grammar import TagAnswer, Think
from mmrl.rewards.numbers import NumberPolicy, close, parse_number
from mmrl.rewards.quantities import pairs_of, parse_quantity
from mmrl.rewards.text import normalize
from mmrl.task import RewardPart, mean_by
from mmrl.types import Answer, Record, Sample, Score, Text

TOLERANCE = 0.05
_POLICY = NumberPolicy(percent="value", dress=False)
_YEAR = re.compile(r"1[5-9][0-9]{2}|20[0-9]{2}")


@dataclass(frozen=True)
class Task(contract.Task):
    """Within 5 % of a number, else equal text without case.

    The reward wants years exactly. `code` is the benchmark's own rule for reward and metric: years
    are numbers like others, and a gold of 0 is compared as text.
    """

    think: Think = "required"
    variant: Literal["strict", "code"] = "strict"

    name: ClassVar[str] = "chart_qa"
    summary: ClassVar[str] = "questions about charts, numbers within five percent"
    parts: ClassVar[Mapping[str, RewardPart]] = ACCURACY_AND_FORMAT
    metric: ClassVar[str] = "relaxed_accuracy"
    keeps: ClassVar[contract.Keeps] = "noise"
    official: ClassVar[Mapping[str, Any]] = {"variant": "code"}

    def sample(self, record: Record) -> Sample:
        """Ask a record: `imgname`, `query`, `label`, or `image`, `question`, `answer`; `type`."""
        fields = record.fields
        question = fields["query"] if "query" in fields else fields["question"]
        gold = tagged_solution(_only(fields["label"] if "label" in fields else fields["answer"]))
        grammar = TagAnswer(self.think)
        return Sample(
            id=record.id,
            task=self.name,
            parts=(
                *media_refs(record, "image", "image", "imgname"),
                Text(f"{question}\n{grammar.instruction()} The answer is a word or a number."),
            ),
            gold=gold,
            target=grammar.write(gold),
            meta={"type": str(fields.get("type", "all"))},
        )

    def score(self, gold: Any, answer: Answer) -> Score:
        """Grade the one answer region."""
        region = TagAnswer(self.think).parse(answer)
        text = region.answer.value
        relaxed = text is not None and relaxed_equal(text, gold, self.variant)
        right = relaxed
        if self.variant == "strict" and _YEAR.fullmatch(gold):
            right = relaxed and parse_number(text or "").value == Decimal(gold)
        return grade(region, region.answer, right, relaxed)

    def breakdown(
        self, values: Sequence[float], metas: Sequence[Mapping[str, Any]]
    ) -> dict[str, float]:
        """Relaxed accuracy of human and augmented questions."""
        return mean_by("type", values, metas)


def relaxed_equal(text: str, gold: str, variant: Literal["strict", "code"] = "strict") -> bool:
    """Whether the text is within 5 % of a numeric gold, bound included, or the same text.

    Strict: units must agree, and a percent sign on one side is read both ways, `16.7%` as 16.7
    and as 0.167.
    """
    if variant == "strict":
        said, wanted = parse_quantity(text).value, parse_quantity(gold).value
        if said is not None and wanted is not None:
            return any(close(*pair, relative=TOLERANCE) for pair in pairs_of(said, wanted))
        return normalize(undress(text)) == normalize(undress(gold))
    ours, theirs = parse_number(text, _POLICY).value, parse_number(gold, _POLICY).value
    if ours is not None and theirs:
        return close(ours, theirs, relative=TOLERANCE)
    return normalize(text) == normalize(gold)


def _only(value: Any) -> Any:
    """The hub's copy holds labels as lists of one."""
    if isinstance(value, list):
        if len(value) != 1:
            raise ValueError(f"{len(value)} labels where one is expected")
        return value[0]
    return value
