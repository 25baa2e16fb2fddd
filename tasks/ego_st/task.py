"""Ego-ST: which route an egocentric video shows, forwards and in reverse."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from mmrl import task as contract
from mmrl.records import media_source
from mmrl.rewards.choices import choice_of, letters_of
from mmrl.rewards.graded import (
    ACCURACY_AND_FORMAT,
    first_region_or_text,
    grade,
    tagged_solution,
)
from mmrl.rewards.grammar import TagAnswer, Think
from mmrl.task import RewardPart, mean_by
from mmrl.types import Answer, MediaRef, Record, Sample, Score, Text

_OPTION = re.compile(r"(?:^|,)\s*([A-H])\.\s+")
_INSTRUCTIONS = re.compile(r"\s*Instructions:.*", re.DOTALL)


@dataclass(frozen=True)
class Task(contract.Task):
    """Letter equality; `code` is ST-R1's reward, the first letter of whatever was answered."""

    think: Think = "required"
    variant: Literal["strict", "code"] = "strict"

    name: ClassVar[str] = "ego_st"
    summary: ClassVar[str] = "routes in egocentric video, forwards and in reverse"
    parts: ClassVar[Mapping[str, RewardPart]] = ACCURACY_AND_FORMAT
    metric: ClassVar[str] = "accuracy"

    def sample(self, record: Record) -> Sample:
        """Ask a record: `problem` with `Options: A. ..., B. ...`, `solution`, `video`."""
        fields = record.fields
        question = _INSTRUCTIONS.sub("", str(fields["problem"]))
        gold = choice_of(_options(question), tagged_solution(fields["solution"]))
        grammar = TagAnswer(self.think)
        backwards = "starting point" in question
        # The public file holds absolute paths of its authors' machine.
        video = str(fields["video"]).removeprefix("/")
        return Sample(
            id=record.id,
            task=self.name,
            parts=(
                MediaRef("video", media_source(record, video)),
                Text(f"{question}\n{grammar.instruction()} {gold.instruction}"),
            ),
            gold=gold,
            target=grammar.write(gold.letter),
            meta={"direction": "reverse" if backwards else "forward"},
        )

    def score(self, gold: Any, answer: Answer) -> Score:
        """Grade the one answer region; the metric is always strict."""
        region = TagAnswer(self.think).parse(answer)
        parsed = region.answer.then(gold.read)
        right = parsed.value == gold.letter
        as_coded = first_region_or_text(answer.text)[:1].upper() == gold.letter
        return grade(region, parsed, as_coded if self.variant == "code" else right, right)

    def breakdown(
        self, values: Sequence[float], metas: Sequence[Mapping[str, Any]]
    ) -> dict[str, float]:
        """Accuracy of forward and of reverse routes."""
        return mean_by("direction", values, metas)


def _options(question: str) -> tuple[str, ...]:
    pieces = _OPTION.split(question.partition("Options:")[2].strip())
    letters, texts = pieces[1::2], pieces[2::2]
    if not letters or "".join(letters) != letters_of(letters):
        raise ValueError(f"options {letters} are not A, B, C ... in order")
    return tuple(text.strip() for text in texts)
