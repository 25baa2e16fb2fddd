"""BLEU against reference answers as the reward for following instructions (BLEUBERI)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from mmrl import task as contract
from mmrl.rewards.grammar import TagAnswer, Think
from mmrl.rewards.parsed import Parsed
from mmrl.rewards.text import Smoothing, bleu, tokenize_13a
from mmrl.task import RewardPart
from mmrl.types import Answer, Record, Sample, Score, Text

MAX_CHARACTERS = 32_768


@dataclass(frozen=True)
class Task(contract.Task):
    """Sentence BLEU over all references, 13a tokens.

    `code` smooths unigrams as well, like the `evaluate` library, so that any text earns something.
    """

    think: Think = "required"
    variant: Literal["strict", "code"] = "strict"

    name: ClassVar[str] = "instruction_following"
    summary: ClassVar[str] = "instructions with reference answers, BLEU"
    parts: ClassVar[Mapping[str, RewardPart]] = {
        "bleu": RewardPart(0.0, 1.0),
        "format": RewardPart(0.0, 1.0, 0.0),
    }
    metric: ClassVar[str] = "bleu"

    def sample(self, record: Record) -> Sample:
        """Ask a record: `instruction` (or `prompt`) and `references`, a text or a list."""
        fields = record.fields
        references = fields["references"]
        texts = tuple(map(str, references if isinstance(references, list) else [references]))
        if not texts or not all(tokenize_13a(text) for text in texts):
            raise ValueError("a reference is empty, or there is none")
        grammar = self._grammar()
        instruction = fields["instruction"] if "instruction" in fields else fields["prompt"]
        return Sample(
            id=record.id,
            task=self.name,
            parts=(Text(f"{instruction}\n{grammar.instruction()}"),),
            gold=texts,
            target=grammar.write(texts[0]),
        )

    def score(self, gold: Any, answer: Answer) -> Score:
        """Compare the one answer region with the references."""
        region = self._grammar().parse(answer)
        parsed: Parsed[str] = region.answer
        value = 0.0
        if parsed.value is not None:
            smoothing: Smoothing = "add_one_all" if self.variant == "code" else "add_one"
            value = bleu(tokenize_13a(parsed.value), [tokenize_13a(r) for r in gold], smoothing)
        return Score(
            {"bleu": value, "format": float(region.well_formed)},
            metric=value,
            status=parsed.status,
            reason=parsed.reason,
        )

    def _grammar(self) -> TagAnswer:
        return TagAnswer(self.think, max_region_characters=MAX_CHARACTERS)
