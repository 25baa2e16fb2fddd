"""MATH-Vision: the last box holds a letter or a value."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mmrl import task as contract
from mmrl.records import interleave_numbered, media_refs
from mmrl.rewards.choices import Choice, choice_of, format_options
from mmrl.rewards.expressions import parse_expression
from mmrl.rewards.graded import ACCURACY_AND_FORMAT, Extractor, grade, official_text
from mmrl.rewards.grammar import BoxedAnswer, Think
from mmrl.rewards.math import LAZY_IMPORTS, MathPolicy, same_value
from mmrl.rewards.math_answers import MathGold, free_form_gold, grade_math, write_gold
from mmrl.rewards.parsed import Parsed
from mmrl.task import RewardPart, mean_by_each
from mmrl.tasks.math_vision.official import extract
from mmrl.types import Answer, Record, Sample, Score, Text

# A record has one picture; where the question numbers its panels, the other names stay text.
_PLACEHOLDER = re.compile(r"<image(1)>")
_OFFICIAL_POLICY = MathPolicy(percent="ignore", units="ignore", decimals=2)


@dataclass(frozen=True)
class Task(contract.Task):
    """Letter equality, or mathematical equality to `decimals` places.

    `extractor` chooses whose reading the metric uses; the reward is always the strict one.
    """

    think: Think = "required"
    extractor: Extractor = "strict"
    decimals: int = 6

    name: ClassVar[str] = "math_vision"
    summary: ClassVar[str] = "competition mathematics with a figure, a letter or a value"
    parts: ClassVar[Mapping[str, RewardPart]] = ACCURACY_AND_FORMAT
    metric: ClassVar[str] = "accuracy"
    keeps: ClassVar[contract.Keeps] = "noise"
    official: ClassVar[Mapping[str, Any]] = {"extractor": "official"}
    imports: ClassVar[tuple[str, ...]] = LAZY_IMPORTS

    def sample(self, record: Record) -> Sample:
        """Ask a record: `question` with `<image1>`, `options`, `answer`, `image`."""
        fields = record.fields
        gold = _gold(fields)
        question = str(fields["question"])
        hint = "The answer is a number or an expression."
        if isinstance(gold, Choice):
            question, hint = f"{question}\n{format_options(gold.options)}", gold.instruction
        images = dict(enumerate(media_refs(record, "image", "decoded_image", "image"), 1))
        grammar = BoxedAnswer(self.think)
        return Sample(
            id=record.id,
            task=self.name,
            parts=(
                *interleave_numbered(question, _PLACEHOLDER, images),
                Text(f"\n{grammar.instruction()} {hint}"),
            ),
            gold=gold,
            target=grammar.write(write_gold(gold)),
            meta={"subject": fields.get("subject"), "level": fields.get("level")},
        )

    def score(self, gold: Any, answer: Answer) -> Score:
        """Grade the one box strictly; the metric may follow the benchmark's script."""
        region = BoxedAnswer(self.think).parse(answer)
        parsed: Parsed[Any] = region.answer
        right = False
        if region.answer.value is not None:
            policy = MathPolicy(decimals=self.decimals)
            parsed, right = grade_math(region.answer.value, gold, policy)
        metric = right
        if self.extractor == "official":
            text = official_text(region, answer)
            metric = official_verdict(gold, text if parsed.value is None else rf"\boxed{{{text}}}")
        return grade(region, parsed, right, metric)

    def breakdown(
        self, values: Sequence[float], metas: Sequence[Mapping[str, Any]]
    ) -> dict[str, float]:
        """Accuracy per subject and level."""
        return mean_by_each(("subject", "level"), values, metas)


def official_verdict(gold: MathGold, text: str) -> bool:
    """Whether the script's extraction equals the letter, the option's value or the answer."""
    extracted = extract(text)
    golds = (gold.letter, gold.text) if isinstance(gold, Choice) else (write_gold(gold),)
    return any(_officially_equal(extracted, extract(value)) for value in golds)


def _officially_equal(text: str, gold: str) -> bool:
    """The same characters, or values that agree to two places; nothing is evaluated as code."""
    if not text or not gold:
        return False
    if text == gold:
        return True
    ours, theirs = parse_expression(text), parse_expression(gold)
    if ours.value is None or theirs.value is None:
        return False
    try:
        return same_value(theirs.value, ours.value, _OFFICIAL_POLICY)
    except ValueError:
        return False


def _gold(fields: Mapping[str, Any]) -> MathGold:
    options, answer = fields.get("options") or (), str(fields["answer"])
    if not options:
        return free_form_gold(answer)
    return choice_of(options, answer)
