"""Multiple choice about a video: VideoMME, MVBench, and training data in either form."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from mmrl import task as contract
from mmrl.records import media_source
from mmrl.rewards.choices import (
    Choice,
    choice_of,
    choice_of_text,
    format_options,
    letters_of,
)
from mmrl.rewards.graded import ACCURACY_AND_FORMAT, Extractor, grade, official_text
from mmrl.rewards.grammar import TagAnswer, Think
from mmrl.task import RewardPart, mean, mean_by_each
from mmrl.types import Answer, MediaRef, Record, Sample, Score, Text

PREFIXES = (
    "The best answer is", "The correct answer is", "The answer is", "The answer",
    "The best option is", "The correct option is", "Best answer:", "Best option:", "Answer:",
    "Option:", "The correct answer", "The correct option",
)  # fmt: skip


@dataclass(frozen=True)
class Task(contract.Task):
    """Letter equality.

    `average` tasks is MVBench's macro mean over tasks. `shuffle` permutes the options by this seed
    and the record's id. `extractor` chooses whose reading the metric uses.
    """

    think: Think = "required"
    extractor: Extractor = "strict"
    average: Literal["records", "tasks"] = "records"
    shuffle: int | None = None
    video_path: str = "{video}.mp4"

    name: ClassVar[str] = "video_choice"
    summary: ClassVar[str] = "multiple choice about a video, by duration and task"
    parts: ClassVar[Mapping[str, RewardPart]] = ACCURACY_AND_FORMAT
    metric: ClassVar[str] = "accuracy"
    official: ClassVar[Mapping[str, Any]] = {"extractor": "official"}

    def sample(self, record: Record) -> Sample:
        """Ask a VideoMME record (`options`, letter) or an MVBench one (`candidates`, text)."""
        fields = record.fields
        gold = _gold(fields)
        if self.shuffle is not None:
            gold = shuffled(gold, f"{self.shuffle}:{record.id}")
        name = fields.get("video") or self.video_path.format(video=fields["videoID"])
        clip = {key: float(fields[key]) for key in ("start", "end") if fields.get(key) is not None}
        grammar = TagAnswer(self.think)
        question = f"{fields['question']}\n{format_options(gold.options)}"
        return Sample(
            id=record.id,
            task=self.name,
            parts=(
                MediaRef("video", media_source(record, name), clip),
                Text(f"{question}\n{grammar.instruction()} {gold.instruction}"),
            ),
            gold=gold,
            target=grammar.write(gold.letter),
            meta={
                "duration": fields.get("duration"),
                "task": fields.get("task_type") or fields.get("task") or "all",
            },
        )

    def score(self, gold: Any, answer: Answer) -> Score:
        """Grade the one answer region; the metric may follow VideoMME's script."""
        region = TagAnswer(self.think).parse(answer)
        parsed = region.answer.then(gold.read)
        right = metric = parsed.value == gold.letter
        if self.extractor == "official":
            metric = first_letter(official_text(region, answer), gold.options) == gold.letter
        return grade(region, parsed, right, metric)

    def aggregate(self, values: Sequence[float], metas: Sequence[Mapping[str, Any]]) -> float:
        """Accuracy over records, or the mean of the tasks' accuracies."""
        if self.average == "records":
            return mean(values, metas)
        tasks = mean_by_each(("task",), values, metas)
        return sum(tasks.values()) / len(tasks)

    def breakdown(
        self, values: Sequence[float], metas: Sequence[Mapping[str, Any]]
    ) -> dict[str, float]:
        """Accuracy per duration and task."""
        return mean_by_each(("duration", "task"), values, metas)


def first_letter(text: str, options: Sequence[str]) -> str:
    """VideoMME's reading: the first option letter once a usual opening is off; "" if none."""
    for prefix in PREFIXES:
        text = text.replace(prefix, "")
    found = re.search(f"[{letters_of(options)}]", text)
    return found[0] if found else ""


def shuffled(gold: Choice, key: str) -> Choice:
    """The same choice with its options in an order that depends on the key only."""
    order = list(range(len(gold.options)))
    random.Random(key).shuffle(order)
    right = sorted(gold.letters[order.index(gold.letters.index(x))] for x in gold.letter)
    return Choice(tuple(gold.options[i] for i in order), "".join(right))


def _gold(fields: Mapping[str, Any]) -> Choice:
    if "candidates" in fields:
        return choice_of_text(tuple(map(str, fields["candidates"])), str(fields["answer"]))
    return choice_of(fields["options"], str(fields["answer"]))
