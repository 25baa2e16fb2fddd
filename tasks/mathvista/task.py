"""MathVista: a letter, an integer, a rounded float or a list, typed by the record."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar, Literal

from mmrl import task as contract
from mmrl.corpus.json_rows import is_object
from mmrl.records import media_refs
from mmrl.rewards.choices import Choice, choice_of_text, format_options, letters_of
from mmrl.rewards.graded import ACCURACY_AND_FORMAT, Extractor, grade, official_text
from mmrl.rewards.grammar import TagAnswer, Think
from mmrl.rewards.json_text import is_number, parse_json
from mmrl.rewards.numbers import parse_integer, parse_number
from mmrl.rewards.parsed import Parsed, malformed, ok
from mmrl.rewards.text import edit_distance
from mmrl.rewards.tolerance import same_to_places
from mmrl.task import RewardPart, mean_by_each
from mmrl.types import Answer, Record, Sample, Score, Text

GROUPS = (
    "question_type",
    "answer_type",
    "task",
    "category",
    "context",
    "grade",
    "skills",
    "source",
)
_QUOTED = re.compile(r'The answer is "(.*)"\.')


@dataclass(frozen=True, slots=True)
class Typed:
    """Gold of a free-form question: its text, and to how many places a float counts."""

    kind: Literal["integer", "float", "list"]
    answer: str
    precision: int = 0


@dataclass(frozen=True)
class Task(contract.Task):
    """Equality in the record's own type.

    `extractor` chooses whose reading the metric uses; the reward is always the strict one.
    """

    think: Think = "required"
    extractor: Extractor = "strict"

    name: ClassVar[str] = "mathvista"
    summary: ClassVar[str] = "mathematics in pictures, a letter or a typed number"
    parts: ClassVar[Mapping[str, RewardPart]] = ACCURACY_AND_FORMAT
    metric: ClassVar[str] = "accuracy"
    keeps: ClassVar[contract.Keeps] = "noise"
    official: ClassVar[Mapping[str, Any]] = {"extractor": "official"}

    def own_records(self, path: Path) -> Iterator[Record] | None:
        """Read the benchmark's `testmini.json`: problem id -> record."""
        if path.suffix == ".json" and is_object(path):
            problems = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(problems, dict):
                return (Record(str(pid), row, path.parent) for pid, row in problems.items())
        return None

    def sample(self, record: Record) -> Sample:
        """Ask a record: `question`, `image`, `choices`, `unit`, `precision`, `answer` and types."""
        fields = record.fields
        gold = _gold(fields)
        grammar = TagAnswer(self.think)
        question = f"Question: {fields['question']}"
        if fields.get("unit"):
            question += f" (Unit: {fields['unit']})"
        if isinstance(gold, Choice):
            question += f"\nChoices:\n{format_options(gold.options)}"
        return Sample(
            id=record.id,
            task=self.name,
            parts=(
                *media_refs(record, "image", "decoded_image", "image"),
                Text(f"{question}\n{grammar.instruction()} {_hint(gold)}"),
            ),
            gold=gold,
            target=grammar.write(gold.letter if isinstance(gold, Choice) else gold.answer),
            meta=_meta(fields),
        )

    def score(self, gold: Any, answer: Answer) -> Score:
        """Grade the one answer region in the gold's type; the metric may be the official one."""
        region = TagAnswer(self.think).parse(answer)
        parsed = region.answer.then(lambda text: read(text, gold))
        right = parsed.value is not None and equal(parsed.value, gold)
        metric = right
        if self.extractor == "official":
            metric = official_verdict(gold, official_text(region, answer))
        return grade(region, parsed, right, metric)

    def breakdown(
        self, values: Sequence[float], metas: Sequence[Mapping[str, Any]]
    ) -> dict[str, float]:
        """Accuracy per type, task, category, context, grade, skill and source."""
        return mean_by_each(GROUPS, values, metas)


def read(text: str, gold: Choice | Typed) -> Parsed[Any]:
    """Read an answer in the gold's type: a letter, a Decimal or a tuple of Decimals."""
    if isinstance(gold, Choice):
        return gold.read(text)
    match gold.kind:
        case "integer":
            return parse_integer(text)
        case "float":
            return parse_number(text)
        case "list":
            return parse_json(text, max_depth=1, max_nodes=65).then(_numbers)


def equal(value: Any, gold: Choice | Typed) -> bool:
    """Whether a value of `read` is right."""
    if isinstance(gold, Choice):
        return bool(value == gold.letter)
    if gold.kind == "float":
        return same_to_places(value, Decimal(gold.answer), gold.precision)
    return bool(value == read(gold.answer, gold).value)


def official_verdict(gold: Choice | Typed, text: str) -> bool:
    """The benchmark's comparison after a rule in place of its language-model extraction.

    An option is always chosen, the nearest by edit distance where no letter is found, except for
    an empty text.
    """
    quoted = _QUOTED.search(text)
    extraction = quoted[1] if quoted else text
    if isinstance(gold, Choice):
        return bool(extraction) and _official_choice(extraction, gold.options) == gold.text
    try:
        match gold.kind:
            case "integer":
                return str(int(float(extraction))) == gold.answer
            case "float":
                return str(round(float(extraction), gold.precision)) == gold.answer
            case "list":
                return extraction == gold.answer
    except (ValueError, OverflowError):
        return False


def _official_choice(text: str, options: Sequence[str]) -> str:
    letter = re.search(r"\(([a-zA-Z])\)", text)
    name = letter[1].upper() if letter else text.strip()
    letters = letters_of(options)
    if len(name) == 1 and name in letters:
        return options[letters.index(name)]
    return min(options, key=lambda option: edit_distance(name, option))


def _gold(fields: Mapping[str, Any]) -> Choice | Typed:
    answer, choices = str(fields["answer"]), fields.get("choices")
    if fields["question_type"] == "multi_choice":
        return choice_of_text(tuple(map(str, choices or ())), answer)
    gold = Typed(fields["answer_type"], answer, int(fields.get("precision") or 0))
    if gold.kind not in ("integer", "float", "list"):
        raise ValueError(f"free-form answer of type {gold.kind!r}")
    parsed = read(answer, gold)
    if parsed.value is None:
        raise ValueError(f"answer is not of type {gold.kind}: {parsed.reason}")
    return gold


def _hint(gold: Choice | Typed) -> str:
    if isinstance(gold, Choice):
        return gold.instruction
    places = "one decimal place" if gold.precision == 1 else f"{gold.precision} decimal places"
    return {
        "integer": "The answer is an integer.",
        "float": f"The answer is a number with {places}.",
        "list": "The answer is a list of numbers such as [1, 2].",
    }[gold.kind]


def _meta(fields: Mapping[str, Any]) -> dict[str, Any]:
    known = {**(fields.get("metadata") or {}), **fields}
    return {key: known[key] for key in GROUPS if known.get(key) is not None}


def _numbers(value: Any) -> Parsed[tuple[Decimal, ...]]:
    if not isinstance(value, list) or not value or not all(is_number(item) for item in value):
        return malformed("not a list of numbers")
    return ok(tuple(Decimal(str(item)) for item in value))
