"""MMMU: a letter or a short open answer; the official reading stands beside the strict one."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mmrl import task as contract
from mmrl.records import interleave_numbered, media_source
from mmrl.rewards.choices import (
    Choice,
    choice_of,
    format_options,
    mmmu_letter,
)
from mmrl.rewards.dress import undress
from mmrl.rewards.graded import ACCURACY_AND_FORMAT, Extractor, grade, official_text
from mmrl.rewards.grammar import TagAnswer, Think
from mmrl.rewards.quantities import pairs_of, parse_quantity
from mmrl.rewards.text import normalize
from mmrl.rewards.tolerance import same_to_places
from mmrl.task import RewardPart, mean_by
from mmrl.tasks.mmmu.official import open_right
from mmrl.types import Answer, MediaRef, Record, Sample, Score, Text

_PLACEHOLDER = re.compile(r"<image (\d+)>")
_DECIMALS = 2
MAX_IMAGES = 7


@dataclass(frozen=True, slots=True)
class Open:
    """Gold of an open question: every accepted spelling."""

    answers: tuple[str, ...]


@dataclass(frozen=True)
class Task(contract.Task):
    """Letter equality, or equality of numbers to two places or of texts without case.

    `extractor` chooses whose reading the metric uses; the reward is always the strict one.
    """

    think: Think = "required"
    extractor: Extractor = "strict"

    name: ClassVar[str] = "mmmu"
    summary: ClassVar[str] = "college questions with images, a letter or a short answer"
    parts: ClassVar[Mapping[str, RewardPart]] = ACCURACY_AND_FORMAT
    metric: ClassVar[str] = "accuracy"
    keeps: ClassVar[contract.Keeps] = "noise"
    official: ClassVar[Mapping[str, Any]] = {"extractor": "official"}

    def sample(self, record: Record) -> Sample:
        """Ask a record of the MMMU/MMMU form: `question` with `<image n>`, `image_n`, `options`."""
        fields = record.fields
        gold = _gold(fields)
        images = _images(record)
        question, hint = str(fields["question"]), "The answer is a single word, phrase or number."
        if isinstance(gold, Choice):
            question, hint = f"{question}\n{format_options(gold.options)}", gold.instruction
        grammar = TagAnswer(self.think)
        return Sample(
            id=record.id,
            task=self.name,
            parts=(
                *interleave_numbered(question, _placeholder(images), images),
                Text(f"\n{grammar.instruction()} {hint}"),
            ),
            gold=gold,
            target=grammar.write(gold.letter if isinstance(gold, Choice) else gold.answers[0]),
            meta={"subject": _subject(record)},
        )

    def score(self, gold: Any, answer: Answer) -> Score:
        """Grade the one answer region strictly; the metric may follow the official script."""
        region = TagAnswer(self.think).parse(answer)
        if isinstance(gold, Choice):
            parsed = region.answer.then(gold.read)
            right = parsed.value == gold.letter
        else:
            parsed = region.answer
            right = parsed.value is not None and _same_as_any(parsed.value, gold.answers)
        metric = right
        if self.extractor == "official":
            metric = official_verdict(gold, official_text(region, answer))
        return grade(region, parsed, right, metric)

    def breakdown(
        self, values: Sequence[float], metas: Sequence[Mapping[str, Any]]
    ) -> dict[str, float]:
        """Accuracy per subject."""
        return mean_by("subject", values, metas)


def official_verdict(gold: Choice | Open, text: str) -> bool:
    """Whether MMMU's script accepts the text; where it guesses a letter, this is False."""
    if isinstance(gold, Choice):
        return mmmu_letter(text, gold.options) == gold.letter
    return open_right(text, gold.answers)


def _gold(fields: Mapping[str, Any]) -> Choice | Open:
    options, answer = _listed(fields.get("options") or ()), fields["answer"]
    if fields["question_type"] == "multiple-choice":
        return choice_of(options, str(answer))
    answers = tuple(str(a).strip() for a in _listed(answer))
    if not answers or not all(answers):
        raise ValueError(f"open question with an empty answer: {answer!r:.60}")
    return Open(answers)


def _images(record: Record) -> dict[int, MediaRef]:
    """Images by number; one that the question shows but the record lacks raises ValueError."""
    columns = {n: record.fields.get(f"image_{n}") for n in range(1, MAX_IMAGES + 1)}
    images = {n: MediaRef("image", media_source(record, v)) for n, v in columns.items() if v}
    shown = set(map(int, _PLACEHOLDER.findall(str(record.fields["question"]))))
    if not shown <= images.keys():
        raise ValueError(f"the question shows images {sorted(shown)}, there are {sorted(images)}")
    return images


def _placeholder(images: Mapping[int, MediaRef]) -> re.Pattern[str]:
    """Options of the validation set name images up to 30 that no record has: those stay text."""
    return re.compile(rf"<image ({'|'.join(map(str, images)) or '(?!)'})>")


def _listed(value: Any) -> Sequence[Any]:
    """A list, or the Python literal of a list that the hub's copy stores as text."""
    if isinstance(value, str) and value.startswith("["):
        value = ast.literal_eval(value)
    return value if isinstance(value, list | tuple) else [value]


def _subject(record: Record) -> str:
    """`Math` of `validation_Math_1`, or the `subject` column."""
    return str(record.fields.get("subject") or "_".join(record.id.split("_")[1:-1]) or "all")


def _same_as_any(text: str, answers: Sequence[str]) -> bool:
    return any(_same(text, answer) for answer in answers)


def _same(text: str, answer: str) -> bool:
    said, wanted = parse_quantity(text).value, parse_quantity(answer).value
    if said is not None and wanted is not None:
        return any(same_to_places(*pair, _DECIMALS) for pair in pairs_of(said, wanted))
    return normalize(undress(text)) == normalize(undress(answer))
