"""Q-Insight: rate a picture, name its degradation, or compare two; typed by the record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mmrl import task as contract
from mmrl.records import media_refs
from mmrl.rewards.correlation import pearson, spearman
from mmrl.rewards.graded import ACCURACY_AND_FORMAT, grade
from mmrl.rewards.grammar import TagAnswer, Think
from mmrl.rewards.json_text import is_number, parse_json
from mmrl.rewards.labels import parse_label
from mmrl.rewards.parsed import Parsed, malformed, ok
from mmrl.task import RewardPart
from mmrl.types import Answer, MediaRef, Record, Sample, Score, Text

LOW, HIGH = 1.0, 5.0
CLASSES = ("noise", "compression", "blur", "darken", "null")
SEVERITIES = ("slight", "moderate", "obvious", "serious", "catastrophic", "null")
VERDICTS = ("Image A", "Image B", "Similar")


@dataclass(frozen=True, slots=True)
class Rating:
    """A mean opinion score from 1 to 5."""

    value: float


@dataclass(frozen=True, slots=True)
class Degradation:
    """A class of `CLASSES` and a severity of `SEVERITIES`; both are null for a clean picture."""

    kind: str
    severity: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """One of `VERDICTS`."""

    verdict: str


Gold = Rating | Degradation | Comparison

HINTS: Mapping[type, str] = {
    Rating: 'The answer is JSON such as {"rating": 2.50}, from 1 (bad) to 5 (excellent).',
    Degradation: 'The answer is JSON such as {"distortion_class": "noise", "severity": "slight"}; '
    f"classes: {', '.join(CLASSES)}; severities: {', '.join(SEVERITIES)}.",
    Comparison: f"The answer is one of: {', '.join(VERDICTS)}.",
}


@dataclass(frozen=True)
class Task(contract.Task):
    """A rating counts within `tolerance`; a class earns 0.25, its severity 0.75 more."""

    think: Think = "required"
    tolerance: float = 0.35

    name: ClassVar[str] = "image_quality"
    summary: ClassVar[str] = "rate a picture, name its degradation, or compare two"
    parts: ClassVar[Mapping[str, RewardPart]] = ACCURACY_AND_FORMAT
    metric: ClassVar[str] = "agreement"

    def sample(self, record: Record) -> Sample:
        """Ask a record by its columns: `gt_score_norm`, `distortion_class`, or `result`."""
        gold, images, question, written = _ask(record)
        grammar = TagAnswer(self.think)
        meta: dict[str, Any] = {"kind": type(gold).__name__.lower()}
        if isinstance(gold, Rating):
            meta["true_rating"] = gold.value
        return Sample(
            id=record.id,
            task=self.name,
            parts=(*images, Text(f"{question}\n{grammar.instruction()} {HINTS[type(gold)]}")),
            gold=gold,
            target=grammar.write(written),
            meta=meta,
        )

    def score(self, gold: Any, answer: Answer) -> Score:
        """Grade the one answer region by the record's kind; evidence carries the rating."""
        region = TagAnswer(self.think).parse(answer)
        match gold:
            case Rating():
                rating = region.answer.then(parse_rating)
                near = rating.value is not None and abs(rating.value - gold.value) < self.tolerance
                evidence = {} if rating.value is None else {"rating": rating.value}
                return grade(region, rating, near, evidence=evidence)
            case Degradation():
                found = region.answer.then(parse_degradation)
                kind = found.value is not None and found.value.kind == gold.kind
                value = (0.25 if kind else 0.0) + (0.75 if found.value == gold else 0.0)
                return grade(region, found, value, found.value == gold)
            case Comparison():
                verdict = region.answer.then(parse_comparison)
                return grade(region, verdict, verdict.value == gold)
        raise TypeError(f"not a gold of this task: {gold!r}")

    def aggregate(self, values: Sequence[float], metas: Sequence[Mapping[str, Any]]) -> float:
        """Mean over the kinds present: (PLCC + SRCC) / 2 for ratings, accuracy for the others."""
        found = self.breakdown(values, metas)
        if "plcc" in found:
            found["rating"] = (found.pop("plcc") + found.pop("srcc")) / 2
            found.pop("within_tolerance")
        return sum(found.values()) / len(found)

    def breakdown(
        self, values: Sequence[float], metas: Sequence[Mapping[str, Any]]
    ) -> dict[str, float]:
        """PLCC, SRCC and share within tolerance of ratings; accuracy of the other kinds."""
        numbers: dict[str, float] = {}
        for kind in sorted({str(meta["kind"]) for meta in metas}):
            chosen = [(v, m) for v, m in zip(values, metas, strict=True) if m["kind"] == kind]
            accuracy = sum(v for v, _ in chosen) / len(chosen)
            if kind != "rating":
                numbers[kind] = accuracy
                continue
            golds = [float(m["true_rating"]) for _, m in chosen]
            ratings = [float(m.get("rating", _worst(m["true_rating"]))) for _, m in chosen]
            numbers["plcc"], numbers["srcc"] = pearson(ratings, golds), spearman(ratings, golds)
            numbers["within_tolerance"] = accuracy
        return numbers


def parse_rating(text: str) -> Parsed[float]:
    """Read `{"rating": number}` from 1 to 5; a quoted number is none."""
    return parse_json(text, max_depth=1).then(_rating)


def parse_degradation(text: str) -> Parsed[Degradation]:
    """Read `{"distortion_class": ..., "severity": ...}`; a JSON null is the class "null"."""
    return parse_json(text, max_depth=1).then(_degradation)


def parse_comparison(text: str) -> Parsed[Comparison]:
    """Read one of `VERDICTS`, case aside."""
    return parse_label(text, VERDICTS).then(
        lambda key: ok(Comparison(next(v for v in VERDICTS if v.lower() == key)))
    )


def _rating(value: Any) -> Parsed[float]:
    if not isinstance(value, dict) or value.keys() != {"rating"} or not is_number(value["rating"]):
        return malformed("not an object with one number 'rating'")
    rating = float(value["rating"])
    return ok(rating) if LOW <= rating <= HIGH else malformed(f"rating {rating:g} outside 1 to 5")


def _degradation(value: Any) -> Parsed[Degradation]:
    if not isinstance(value, dict) or value.keys() != {"distortion_class", "severity"}:
        return malformed("not an object with 'distortion_class' and 'severity'")
    kind, severity = (
        "null" if v is None else v for v in (value["distortion_class"], value["severity"])
    )
    if kind not in CLASSES or severity not in SEVERITIES:
        return malformed("a class or severity outside the lists")
    return ok(Degradation(kind, severity))


def _worst(true_rating: float) -> float:
    """No rating counts as the end of the scale that is farther from the truth."""
    return LOW if true_rating >= (LOW + HIGH) / 2 else HIGH


def _ask(record: Record) -> tuple[Gold, list[MediaRef], str, str]:
    """Gold, pictures, default question and right answer, by the columns that are there."""
    fields = record.fields
    problem = fields.get("problem")
    if "gt_score_norm" in fields:
        gold = _rating({"rating": fields["gt_score_norm"]})
        if gold.value is None:
            raise ValueError(f"gold: {gold.reason}")
        question = problem or "Rate the quality of the picture."
        images = media_refs(record, "image", "image")
        return Rating(gold.value), images, question, f'{{"rating": {gold.value:g}}}'
    if "distortion_class" in fields:
        found = _degradation({key: fields[key] for key in ("distortion_class", "severity")})
        if found.value is None:
            raise ValueError(f"gold: {found.reason}")
        question = problem or "How is the picture degraded, and how much?"
        written = (
            f'{{"distortion_class": "{found.value.kind}", "severity": "{found.value.severity}"}}'
        )
        return found.value, media_refs(record, "image", "image"), question, written
    verdict = str(fields["result"])
    if verdict not in VERDICTS:
        raise ValueError(f"result {verdict!r:.40} is none of {VERDICTS}")
    images = [r for c in ("ref_image", "ImageA", "ImageB") for r in media_refs(record, "image", c)]
    question = problem or "The first picture is the reference. Is Image A or Image B nearer to it?"
    return Comparison(verdict), images, question, verdict
