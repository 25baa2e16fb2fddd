"""MathVerse: a letter or a value, reported by how much of the problem the picture carries."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mmrl import task as contract
from mmrl.records import media_refs
from mmrl.rewards.choices import Choice, choice_of
from mmrl.rewards.graded import ACCURACY_AND_FORMAT, grade
from mmrl.rewards.grammar import TagAnswer, Think
from mmrl.rewards.math import LAZY_IMPORTS, MathPolicy
from mmrl.rewards.math_answers import MathGold, free_form_gold, grade_math, write_gold
from mmrl.rewards.parsed import Parsed
from mmrl.task import RewardPart, mean_by_each
from mmrl.types import Answer, Record, Sample, Score, Text

_OPTION = re.compile(r"^\(?([A-H])\s*[:.)]\s*(.*)$", re.MULTILINE)
_TEXT_ONLY = "Text Only"


@dataclass(frozen=True)
class Task(contract.Task):
    """Letter equality, or mathematical equality."""

    think: Think = "required"
    relative_tolerance: float = 0.0

    name: ClassVar[str] = "mathverse"
    summary: ClassVar[str] = "geometry problems in six versions, a letter or a value"
    parts: ClassVar[Mapping[str, RewardPart]] = ACCURACY_AND_FORMAT
    metric: ClassVar[str] = "accuracy"
    keeps: ClassVar[contract.Keeps] = "noise"
    imports: ClassVar[tuple[str, ...]] = LAZY_IMPORTS

    def sample(self, record: Record) -> Sample:
        """Ask a record: `question`, `image`, `answer`, `question_type`, `problem_version`.

        A `Text Only` problem is asked without its image.
        """
        fields = record.fields
        gold = _gold(fields)
        version = str(fields["problem_version"])
        hint = "The answer is a number or an expression."
        if isinstance(gold, Choice):
            hint = gold.instruction
        images = [] if version == _TEXT_ONLY else media_refs(record, "image", "image")
        grammar = TagAnswer(self.think)
        return Sample(
            id=str(fields.get("sample_index", record.id)),
            task=self.name,
            parts=(*images, Text(f"{fields['question']}\n{grammar.instruction()} {hint}".lstrip())),
            gold=gold,
            target=grammar.write(write_gold(gold)),
            meta={"problem_version": version, **_subjects(fields)},
        )

    def score(self, gold: Any, answer: Answer) -> Score:
        """Grade the one answer region."""
        region = TagAnswer(self.think).parse(answer)
        parsed: Parsed[Any] = region.answer
        right = False
        if region.answer.value is not None:
            policy = MathPolicy(relative_tolerance=self.relative_tolerance)
            parsed, right = grade_math(region.answer.value, gold, policy)
        return grade(region, parsed, right)

    def breakdown(
        self, values: Sequence[float], metas: Sequence[Mapping[str, Any]]
    ) -> dict[str, float]:
        """Accuracy per problem version, subject and subfield."""
        return mean_by_each(("problem_version", "subject", "subfield"), values, metas)


def _gold(fields: Mapping[str, Any]) -> MathGold:
    answer = str(fields["answer"]).strip()
    if fields["question_type"] != "multi-choice":
        return free_form_gold(answer)
    found = _OPTION.findall(str(fields.get("question_for_eval") or fields["question"]))
    letters = "".join(letter for letter, _ in found)
    # A question whose options only the picture shows has four.
    options = tuple(text for _, text in found) if letters.startswith("AB") else tuple("ABCD")
    return choice_of(options, answer)


def _subjects(fields: Mapping[str, Any]) -> dict[str, str]:
    metadata = fields.get("metadata") or {}
    return {key: str(metadata[key]) for key in ("subject", "subfield") if metadata.get(key)}
