"""VideoHallu: what a generated video shows against common sense, answered in open text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from mmrl import task as contract
from mmrl.records import media_source
from mmrl.rewards.custom import load_callable
from mmrl.rewards.graded import tagged_solution
from mmrl.rewards.grammar import TagAnswer, Think
from mmrl.rewards.parsed import Parsed, malformed, ok
from mmrl.rewards.text import normalize, token_f1, words
from mmrl.task import RewardPart, mean_by
from mmrl.types import Answer, MediaRef, Record, Sample, Score, Text

MAX_WORDS = 64
HINT = "Answer in a short phrase; a yes or no question by yes or no first."


class Gold(NamedTuple):
    """The question, for judges, and the reference answer."""

    question: str
    answer: str


@dataclass(frozen=True)
class Task(contract.Task):
    """Similarity of the answer and the reference; the metric is a judge's verdict.

    `similarity` and `judge` name functions f(question, gold, answer) -> a number in [0, 1], such as
    a client of a model. Without them the offline rule of `verdict` and token F1 stands in.
    """

    think: Think = "required"
    similarity: str | None = None
    judge: str | None = None

    name: ClassVar[str] = "video_hallu"
    summary: ClassVar[str] = "what a generated video shows against common sense, open answers"
    parts: ClassVar[Mapping[str, RewardPart]] = {
        "similarity": RewardPart(0.0, 1.0),
        "format": RewardPart(0.0, 1.0),
    }
    metric: ClassVar[str] = "accuracy"

    def sample(self, record: Record) -> Sample:
        """Ask a test record (`Question`, `Answer`) or a training one (`problem`, `solution`)."""
        fields = record.fields
        question = fields.get("Question") or fields.get("problem")
        if not question:
            raise ValueError("the record has no question")
        gold = Gold(str(question), tagged_solution(fields.get("Answer") or fields["solution"]))
        if _read(gold.answer).value is None:
            raise ValueError(f"gold answer {gold.answer!r:.60} has no or too many words")
        grammar = TagAnswer(self.think)
        video = media_source(record, fields.get("video_path") or fields.get("path"))
        return Sample(
            id=record.id,
            task=self.name,
            parts=(
                MediaRef("video", video),
                Text(f"{question}\n{grammar.instruction()} {HINT}"),
            ),
            gold=gold,
            target=grammar.write(gold.answer),
            meta={"category": str(fields.get("Categorization-1") or "all")},
        )

    def score(self, gold: Any, answer: Answer) -> Score:
        """Compare the one answer region with the reference."""
        region = TagAnswer(self.think).parse(answer)
        parsed = region.answer.then(_read)
        similarity = metric = 0.0
        if parsed.value is not None:
            similarity = _ask(self.similarity, Gold(*gold), parsed.value, _similarity)
            metric = _ask(self.judge, Gold(*gold), parsed.value, _same)
        formed = region.well_formed and parsed.value is not None
        parts = {"similarity": similarity, "format": float(formed)}
        return Score(parts, metric, parsed.status, parsed.reason)

    def breakdown(
        self, values: Sequence[float], metas: Sequence[Mapping[str, Any]]
    ) -> dict[str, float]:
        """Accuracy per category."""
        return mean_by("category", values, metas)


def verdict(text: str) -> str:
    """Yes or no, in lower case, if the text begins with it and lacks the other; else empty."""
    said = words(text)
    other = {"yes": "no", "no": "yes"}
    return said[0] if said and said[0] in other and other[said[0]] not in said else ""


def _ask(name: str | None, gold: Gold, answer: str, offline: Any) -> float:
    if name is None:
        return float(offline(gold, answer))
    value = float(load_callable(name, "judge")(gold.question, gold.answer, answer))
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"judge {name} returned {value}, not a number in [0, 1]")
    return value


def _similarity(gold: Gold, answer: str) -> float:
    if verdict(gold.answer):
        return float(verdict(answer) == verdict(gold.answer))
    return token_f1(words(answer), words(gold.answer))


def _same(gold: Gold, answer: str) -> bool:
    if verdict(gold.answer):
        return verdict(answer) == verdict(gold.answer)
    return normalize(answer, True, True) == normalize(gold.answer, True, True)


def _read(text: str) -> Parsed[str]:
    count = len(words(text))
    if not 0 < count <= MAX_WORDS:
        return malformed(f"{count} words, from 1 to {MAX_WORDS} are an answer")
    return ok(text)
