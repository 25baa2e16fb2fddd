"""Judge two answers to a question; a verdict counts if it survives a change of places."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from mmrl import task as contract
from mmrl.records import read_records
from mmrl.rewards.choices import parse_letter
from mmrl.rewards.graded import grade
from mmrl.rewards.grammar import TagAnswer, Think
from mmrl.rewards.pairwise import SWAPPED, Order, consistency, consistent_accuracy, in_order
from mmrl.task import RewardPart, mean_by
from mmrl.types import Answer, Record, Sample, Score, Text

_SIDES = ("response A", "response B")
_LABELS = {"A": 0, "B": 1, "A>B": 0, "B>A": 1, "0": 0, "1": 1}
_PROMPT = (
    "Which response answers the question better? The order in which they stand means nothing.\n"
    "[Question]\n{question}\n[Response A]\n"
)


@dataclass(frozen=True)
class Task(contract.Task):
    """1 for the better response's letter; `order` both shows every pair twice."""

    think: Think = "required"
    order: Order = "both"

    name: ClassVar[str] = "text_judge"
    summary: ClassVar[str] = "which of two answers is better, right in both orders"
    parts: ClassVar[Mapping[str, RewardPart]] = {
        "accuracy": RewardPart(0.0, 1.0),
        "format": RewardPart(0.0, 1.0, 0.0),
    }
    metric: ClassVar[str] = "consistent_accuracy"

    def own_records(self, path: Path) -> Iterator[Record] | None:
        """Read pairs; with `order` both each gives two records, one after the other."""
        return in_order(read_records(path), self.order)

    def sample(self, record: Record) -> Sample:
        """Ask a record: `question`, `response_A`, `response_B`, `label` (A, B, A>B or B>A)."""
        fields = record.fields
        better = _LABELS.get(str(fields["label"]).strip())
        responses = [str(fields["response_A"]), str(fields["response_B"])]
        if better is None or not all(text.strip() for text in responses):
            raise ValueError(f"no verdict {fields['label']!r:.20} over two non-empty responses")
        swapped = bool(fields.get(SWAPPED, False))
        shown = responses[::-1] if swapped else responses
        gold = "AB"[better ^ swapped]
        grammar = TagAnswer(self.think)
        return Sample(
            id=record.id,
            task=self.name,
            parts=(
                Text(_PROMPT.format(question=fields["question"])),
                Text(shown[0]),
                Text("\n[Response B]\n"),
                Text(shown[1]),
                Text(f"\n{grammar.instruction()} The answer is the letter A or B."),
            ),
            gold=gold,
            target=grammar.write(gold),
            meta={
                "pair": str(fields.get("pair", record.id)),
                "swapped": swapped,
                "split": str(fields.get("split") or fields.get("source") or "all"),
            },
        )

    def score(self, gold: Any, answer: Answer) -> Score:
        """Grade the one verdict, which the evidence repeats as shown."""
        region = TagAnswer(self.think).parse(answer)
        verdict = region.answer.then(lambda text: parse_letter(text, _SIDES))
        evidence = {} if verdict.value is None else {"verdict": verdict.value}
        return grade(region, verdict, verdict.value == gold, evidence=evidence)

    def changed(self, sample: Sample, options: Mapping[str, Any]) -> Sample | None:
        """Show the pair in the other order, whose better response has the other letter."""
        if dict(options) != {"swap_answers": True}:
            return None
        head, a, between, b, tail = sample.parts
        gold = "A" if sample.gold == "B" else "B"
        return replace(
            sample,
            parts=(head, b, between, a, tail),
            gold=gold,
            target=TagAnswer(self.think).write(gold),
            meta={**sample.meta, "swapped": not sample.meta["swapped"]},
        )

    def aggregate(self, values: Sequence[float], metas: Sequence[Mapping[str, Any]]) -> float:
        """Consistent accuracy over pairs, or plain accuracy where pairs are shown once."""
        if self.order == "both":
            return consistent_accuracy(values, metas)
        return sum(values) / len(values)

    def breakdown(
        self, values: Sequence[float], metas: Sequence[Mapping[str, Any]]
    ) -> dict[str, float]:
        """Accuracy per order and split; with both orders also the consistency of verdicts."""
        orders = [{"order": "ba" if meta["swapped"] else "ab"} for meta in metas]
        numbers = mean_by("order", values, orders) | mean_by("split", values, metas)
        if self.order == "both":
            numbers["consistency"] = consistency(values, metas)
        return numbers
