"""Medical images: the letter of one of the options in the question's text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from mmrl import task as contract
from mmrl.records import media_refs
from mmrl.rewards.choices import choice_of, letters_of
from mmrl.rewards.graded import (
    ACCURACY_AND_FORMAT,
    first_region_or_text,
    grade,
    tagged_solution,
)
from mmrl.rewards.grammar import TagAnswer, Think
from mmrl.task import RewardPart, mean_by_each
from mmrl.types import Answer, Record, Sample, Score, Text

_OPTION = re.compile(r"(?:^|(?<=[\s,;]))([A-H])[).:]\s*")


@dataclass(frozen=True)
class Task(contract.Task):
    """Letter equality.

    `code` is Med-R1's reward,
    which compares the whole completion where there are no tags; the metric stays strict.
    """

    think: Think = "required"
    variant: Literal["strict", "code"] = "strict"

    name: ClassVar[str] = "medical_vqa"
    summary: ClassVar[str] = "multiple choice about medical images, by modality and question type"
    parts: ClassVar[Mapping[str, RewardPart]] = ACCURACY_AND_FORMAT
    metric: ClassVar[str] = "accuracy"
    keeps: ClassVar[contract.Keeps] = "noise"

    def sample(self, record: Record) -> Sample:
        """Ask a record: `image`, `problem` with options `A) ..., B) ...`, `solution`."""
        fields = record.fields
        problem = str(fields["problem"])
        gold = choice_of(inline_options(problem), tagged_solution(fields["solution"]))
        grammar = TagAnswer(self.think)
        return Sample(
            id=record.id,
            task=self.name,
            parts=(
                *media_refs(record, "image", "image"),
                Text(f"{problem}\n{grammar.instruction()} {gold.instruction}"),
            ),
            gold=gold,
            target=grammar.write(gold.letter),
            meta={key: fields.get(key) for key in ("modality", "question_type")},
        )

    def score(self, gold: Any, answer: Answer) -> Score:
        """Grade the one answer region."""
        region = TagAnswer(self.think).parse(answer)
        parsed = region.answer.then(gold.read)
        right = parsed.value == gold.letter
        as_coded = first_region_or_text(answer.text) == gold.letter
        return grade(region, parsed, as_coded if self.variant == "code" else right, right)

    def breakdown(
        self, values: Sequence[float], metas: Sequence[Mapping[str, Any]]
    ) -> dict[str, float]:
        """Accuracy per modality and question type."""
        return mean_by_each(("modality", "question_type"), values, metas)


def inline_options(problem: str) -> tuple[str, ...]:
    """Texts of the options `A) ... B) ...` of a question; letters out of order raise ValueError."""
    pieces = _OPTION.split(problem)
    letters, texts = pieces[1::2], pieces[2::2]
    # A letter before the options, as in "Vitamin B:", is part of the question.
    first = len(letters) - 1 - letters[::-1].index("A") if "A" in letters else 0
    letters, texts = letters[first:], texts[first:]
    if not letters or "".join(letters) != letters_of(letters):
        raise ValueError(f"options {letters} are not A, B, C ... in order")
    return tuple(text.strip().rstrip(",;").strip() for text in texts)
