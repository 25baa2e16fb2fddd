"""Count handwritten digits row by row, then in all: steps that can be checked, and an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypedDict

from mmrl import task as contract
from mmrl.records import media_source
from mmrl.rewards.grammar import TagAnswer
from mmrl.rewards.numbers import parse_integer
from mmrl.rewards.thoughts import whole
from mmrl.task import RewardPart
from mmrl.types import Answer, MediaRef, Record, Sample, Score, Text

GRAMMAR = TagAnswer(think="required")
LONGEST_THOUGHT = 200  # characters: a right one has 12 with its tags
QUESTION = f"Count the digits in each of the 3 rows, then in all. {GRAMMAR.instruction()}"


class Gold(TypedDict):
    """Digits in each row, from the top, and in all."""

    rows: list[int]
    count: int


@dataclass(frozen=True)
class Task(contract.Task):
    """Exact match of the number in the answer region; the steps before it are parts of weight 0.

    `key_steps` is the share of the rows that were counted right, `validity` whether every row was
    counted before the answer. StepGRPO pays both, with weights of its own.
    """

    name: ClassVar[str] = "digit_rows"
    summary: ClassVar[str] = "count the handwritten digits row by row, exact match, scored steps"
    parts: ClassVar[dict[str, RewardPart]] = {
        "accuracy": RewardPart(0.0, 1.0),
        "key_steps": RewardPart(0.0, 1.0, weight=0.0),
        "validity": RewardPart(0.0, 1.0, weight=0.0),
    }
    metric: ClassVar[str] = "accuracy"

    def sample(self, record: Record) -> Sample:
        """Ask a counting record of the `digits` recipe: `image`, `rows` and `count`."""
        rows = [int(row) for row in record.fields["rows"]]
        count = int(record.fields["count"])
        if len(rows) != 3 or sum(rows) != count:
            raise ValueError(f"rows {rows} are not three numbers that add up to {count}")
        return Sample(
            id=record.id,
            task=self.name,
            parts=(MediaRef("image", media_source(record, record.fields["image"])), Text(QUESTION)),
            **_of_rows(rows, count),
        )

    def changed(self, sample: Sample, options: Mapping[str, Any]) -> Sample | None:
        """Rows stay rows in a picture that is mirrored; flipped, they come in the other order."""
        if not options.keys() <= {*contract.NOISE, "turn"}:
            return None
        made = contract.with_options(sample, options)
        match options.get("turn"):
            case None | "mirror":
                return made
            case "upside_down" | "rotate_180" | "mirror_180":
                rows = sample.gold["rows"][::-1]
                return replace(made, **_of_rows(rows, sample.gold["count"]))
        return None

    def score(self, gold: Gold, answer: Answer) -> Score:
        """1 for the right number, else 0; the steps are read off the thought."""
        region = GRAMMAR.parse(answer)
        parsed = region.answer.then(parse_integer)
        steps = counted(whole(answer)) if region.well_formed else []
        right = float(parsed.value == gold["count"])
        hits = sum(said == row for said, row in zip(steps, gold["rows"], strict=False))
        parts = {
            "accuracy": right,
            "key_steps": hits / len(gold["rows"]) if len(steps) <= len(gold["rows"]) else 0.0,
            "validity": float(parsed.value is not None and len(steps) == len(gold["rows"])),
        }
        return Score(parts, metric=right, status=parsed.status, reason=parsed.reason)


def _of_rows(rows: list[int], count: int) -> dict[str, Any]:
    """What a sample knows of its rows: gold, target and key steps."""
    return {
        "gold": Gold(rows=rows, count=count),
        "target": GRAMMAR.write(str(count), thought=" ".join(map(str, rows))),
        "meta": {"key_steps": [str(row) for row in rows]},
    }


def counted(text: str) -> Sequence[int]:
    """The numbers of the thought, in order; none where it holds anything else."""
    thought = text[:LONGEST_THOUGHT].partition("<think>")[2].partition("</think>")[0]
    words = thought.split()
    return [int(w) for w in words] if all(len(w) == 1 and w in "0123456789" for w in words) else []
