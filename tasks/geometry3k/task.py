"""Geometry3K: a diagram, a question, one mathematical answer, judged by math-verify."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from mmrl import task as contract
from mmrl.records import interleave, media_source
from mmrl.rewards.expressions import Expression, parse_expression
from mmrl.rewards.grammar import BoxedAnswer, TagAnswer, Think
from mmrl.rewards.math import LAZY_IMPORTS, MathPolicy, check_gold, same_value
from mmrl.task import RewardPart
from mmrl.types import Answer, MediaRef, Part, Record, Sample, Score, Text

PLACEHOLDER = "<image>"
LETTERS = ("A", "B", "C", "D")


@dataclass(frozen=True)
class Task(contract.Task):
    """Reads InterGPS problem folders and records in the hiyouga/geometry3k form.

    `hard_format` gives accuracy only to answers whose format is right too (Vision-R1).
    """

    answer: Literal["boxed", "tag"] = "boxed"
    think: Think = "required"
    percent: Literal["value", "ignore", "match"] = "value"
    units: Literal["agree", "match", "ignore"] = "agree"
    relative_tolerance: float = 0.0
    hard_format: bool = False

    name: ClassVar[str] = "geometry3k"
    summary: ClassVar[str] = "geometry questions about a diagram, mathematical answer"
    parts: ClassVar[dict[str, RewardPart]] = {
        "accuracy": RewardPart(0.0, 1.0, 0.9),
        "format": RewardPart(0.0, 1.0, 0.1),
    }
    metric: ClassVar[str] = "accuracy"
    keeps: ClassVar[contract.Keeps] = "noise"
    imports: ClassVar[tuple[str, ...]] = LAZY_IMPORTS

    def own_records(self, path: Path) -> Iterator[Record] | None:
        """Read a folder of InterGPS problem folders in numeric order."""
        return _problem_folders(path) if any(path.glob("*/data.json")) else None

    def sample(self, record: Record) -> Sample:
        """Ask a record; the gold is the LaTeX or decimal text of the answer."""
        inter_gps = "precise_value" in record.fields
        question = _ask_inter_gps(record) if inter_gps else _ask_problem(record)
        check_gold(_read_gold(question.gold))
        grammar = self._grammar()
        return Sample(
            id=record.id,
            task=self.name,
            parts=(*question.parts, Text(f"\n{grammar.instruction()}")),
            gold=question.gold,
            target=grammar.write(question.written),
        )

    def score(self, gold: Any, answer: Answer) -> Score:
        """Grade the one answer region; accuracy does not need the format to be right."""
        region = self._grammar().parse(answer)
        parsed = region.answer.then(parse_expression)
        right = parsed.value is not None and same_value(
            _read_gold(gold), parsed.value, self._policy()
        )
        if self.hard_format:
            right = right and region.well_formed
        parts = {"accuracy": float(right), "format": float(region.well_formed)}
        return Score(parts, metric=float(right), status=parsed.status, reason=parsed.reason)

    def _grammar(self) -> BoxedAnswer | TagAnswer:
        return BoxedAnswer(self.think) if self.answer == "boxed" else TagAnswer(self.think)

    def _policy(self) -> MathPolicy:
        return MathPolicy(self.percent, self.units, self.relative_tolerance)


class Question(NamedTuple):
    """A record as asked: `written` is the gold in the form a solution would end with."""

    parts: tuple[Part, ...]
    gold: str
    written: str


def _read_gold(gold: str) -> Expression:
    parsed = parse_expression(gold)
    if parsed.value is None:
        raise ValueError(f"gold is not one expression: {parsed.reason}")
    return parsed.value


def _problem_folders(path: Path) -> Iterator[Record]:
    folders = [file.parent for file in path.glob("*/data.json")]
    for folder in sorted(folders, key=lambda f: (len(f.name), f.name)):
        fields = json.loads((folder / "data.json").read_text(encoding="utf-8"))
        yield Record(folder.name, {"image": f"{folder.name}/img_diagram.png", **fields}, path)


def _ask_inter_gps(record: Record) -> Question:
    """Gold is the precise value of the choice that the letter names, not the letter."""
    fields = record.fields
    values = fields["precise_value"]
    index = LETTERS.index(fields["answer"]) if fields["answer"] in LETTERS else len(values)
    if index >= len(values):
        raise ValueError(f"answer {fields['answer']!r} names none of {len(values)} choices")
    gold = _decimal_text(values[index])
    image = MediaRef("image", media_source(record, fields["image"]))
    question = Text(str(fields.get("annotat_text") or fields["problem_text"]))
    choice = parse_expression(str(fields.get("compact_choices", values)[index])).value
    exact = choice is not None and same_value(_read_gold(gold), choice)
    return Question((image, question), gold, choice.latex if choice and exact else gold)


def _ask_problem(record: Record) -> Question:
    fields = record.fields
    media = [MediaRef("image", media_source(record, i)) for i in fields.get("images") or ()]
    gold = str(fields["answer"])
    return Question(interleave(str(fields["problem"]), PLACEHOLDER, media), gold, gold)


def _decimal_text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"precise value {value!r} is not a finite number")
    return f"{value:.12f}".rstrip("0").rstrip(".")
