"""GUI defects: two screenshots and an action between them, one label of a closed set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mmrl import task as contract
from mmrl.records import media_source
from mmrl.rewards.grammar import TagAnswer, Think
from mmrl.rewards.labels import Label, grade_label
from mmrl.task import RewardPart, mean_by
from mmrl.types import Answer, MediaRef, Record, Sample, Score, Text

LABELS = (
    "Operation No Response",
    "Virtual Keyboard Related Issue",
    "Navigation Logic Error",
    "Unexpected Task Result",
    "No Defect",
)
# VLM-R1's prompt goes on with an output format of its own; the grammar's takes its place.
_FORMAT = "Output Format:"


@dataclass(frozen=True)
class Task(contract.Task):
    """Reads VLM-R1's records: two images and a conversation. `labels` is the closed set."""

    think: Think = "none"
    labels: tuple[str, ...] = LABELS

    name: ClassVar[str] = "gui_defect"
    summary: ClassVar[str] = "name the defect between two screenshots of an interaction"
    parts: ClassVar[dict[str, RewardPart]] = {
        "accuracy": RewardPart(0.0, 1.0),
        "format": RewardPart(0.0, 1.0, 0.1),
    }
    metric: ClassVar[str] = "accuracy"

    def sample(self, record: Record) -> Sample:
        """Ask a record; a label outside the set, or other than two images, raises ValueError."""
        images = record.fields["image"]
        if not isinstance(images, Sequence) or isinstance(images, str) or len(images) != 2:
            raise ValueError("a record needs the screenshots before and after the action")
        turns = {turn["from"]: str(turn["value"]) for turn in record.fields["conversations"]}
        gold = Label(turns["gpt"].strip(), self.labels)
        question = turns["human"].replace("<image>", "").partition(_FORMAT)[0].strip()
        if not question:
            raise ValueError("a record needs the action between the screenshots")
        grammar = self._grammar()
        ask = (
            f"{question}\n\n{grammar.instruction()} The answer is one of: {'; '.join(self.labels)}."
        )
        media = [MediaRef("screenshot", media_source(record, image)) for image in images]
        return Sample(
            id=record.id,
            task=self.name,
            parts=(*media, Text(ask)),
            gold=gold,
            target=grammar.write(gold.name),
            meta={"label": gold.name},
        )

    def score(self, gold: Any, answer: Answer) -> Score:
        """1 for the gold label, case and a final full stop aside."""
        region = self._grammar().parse(answer)
        if region.answer.value is None:
            return Score({"accuracy": 0.0, "format": 0.0}, 0.0, region.answer.status)
        label, right = grade_label(region.answer.value, gold)
        formed = region.well_formed and label.value is not None
        parts = {"accuracy": float(right), "format": float(formed)}
        return Score(parts, float(right), label.status, label.reason)

    def breakdown(
        self, values: Sequence[float], metas: Sequence[Mapping[str, Any]]
    ) -> Mapping[str, float]:
        """Recall of each label."""
        return mean_by("label", values, metas)

    def _grammar(self) -> TagAnswer:
        return TagAnswer(self.think)
