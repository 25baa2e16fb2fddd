"""Crowd counts: FGRPR's fuzzy reward, and errors over the whole set."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar, Literal

from mmrl import task as contract
from mmrl.records import media_refs
from mmrl.rewards.graded import tagged_solution
from mmrl.rewards.grammar import Region, TagAnswer, Think
from mmrl.rewards.numbers import NumberPolicy, parse_integer
from mmrl.rewards.parsed import Parsed, malformed
from mmrl.rewards.tolerance import fuzzy_relative
from mmrl.task import Better, RewardPart
from mmrl.types import Answer, Record, Sample, Score, Text

# A guess of a billion people would be the whole mean absolute error.
_POLICY = NumberPolicy(exponent=False, max_magnitude=6)


@dataclass(frozen=True)
class Task(contract.Task):
    """1.5 - relative error below one half, else 0. `code` also asks for bare digits in the tags."""

    think: Think = "required"
    variant: Literal["strict", "code"] = "strict"

    name: ClassVar[str] = "crowd_counting"
    summary: ClassVar[str] = "how many people, fuzzy reward and mean absolute error"
    parts: ClassVar[Mapping[str, RewardPart]] = {
        "count": RewardPart(0.0, 1.5),
        "format": RewardPart(0.0, 1.0),
    }
    metric: ClassVar[str] = "mae"
    better: ClassVar[Better] = "lower"
    keeps: ClassVar[contract.Keeps] = "turns"

    def sample(self, record: Record) -> Sample:
        """Ask a record: `image`, `problem` and the true count as `solution`."""
        fields = record.fields
        gold = parse_integer(tagged_solution(fields["solution"]), _POLICY)
        if gold.value is None or gold.value < 0:
            raise ValueError(f"the gold is no count: {fields['solution']!r:.40}")
        grammar = TagAnswer(self.think)
        return Sample(
            id=record.id,
            task=self.name,
            parts=(
                *media_refs(record, "image", "image"),
                Text(f"{fields['problem']}\n{grammar.instruction()} The answer is a number only."),
            ),
            gold=gold.value,
            target=grammar.write(str(gold.value)),
            meta={"count": gold.value},
        )

    def score(self, gold: Any, answer: Answer) -> Score:
        """Grade the one count; the metric is its absolute error, that of 0 where there is none."""
        region = TagAnswer(self.think).parse(answer)
        parsed = region.answer.then(_parse_count)
        if self.variant == "code":
            parsed, region = _as_coded(answer.text, gold, parsed, region)
        reward = 0.0
        if parsed.value is not None:
            reward = fuzzy_relative(Decimal(parsed.value), Decimal(gold))
        return Score(
            {"count": reward, "format": float(region.well_formed)},
            metric=float(abs((parsed.value or 0) - gold)),
            status=parsed.status,
            reason=parsed.reason,
            evidence={"predicted": parsed.value or 0},
        )

    def asked(self, sample: Sample) -> str:
        """The question without the line of instructions below it."""
        return super().asked(sample).rpartition("\n")[0]

    def aggregate(self, values: Sequence[float], metas: Sequence[Mapping[str, Any]]) -> float:
        """Mean absolute error; lower is better, and no answer is a count of 0."""
        return sum(_errors(metas)) / len(metas)

    def breakdown(
        self, values: Sequence[float], metas: Sequence[Mapping[str, Any]]
    ) -> dict[str, float]:
        """Root mean squared error and the share of exact counts."""
        errors = _errors(metas)
        return {
            "rmse": math.sqrt(sum(error**2 for error in errors) / len(errors)),
            "exact": sum("predicted" in m and m["predicted"] == m["count"] for m in metas)
            / len(metas),
        }


def _parse_count(text: str) -> Parsed[int]:
    count = parse_integer(text, _POLICY)
    return malformed("a count is not negative") if (count.value or 0) < 0 else count


def _errors(metas: Sequence[Mapping[str, Any]]) -> list[float]:
    return [float(abs(meta.get("predicted", 0) - meta["count"])) for meta in metas]


def _as_coded(
    text: str, gold: int, parsed: Parsed[int], region: Region
) -> tuple[Parsed[int], Region]:
    """Digits alone between the tags, else no answer and no format; a gold of 0 earns nothing."""
    digits = region.answer.value or ""
    if not (digits.isascii() and digits.isdigit() and f"<answer>{digits}</answer>" in text):
        return malformed("not digits alone between the tags"), Region(region.answer, False)
    return (malformed("the published rule divides by 0") if gold == 0 else parsed), region
