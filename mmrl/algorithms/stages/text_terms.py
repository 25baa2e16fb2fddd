"""Reward terms of an answer's text alone, whatever the task: repetition, steps, script."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from mmrl.rewards.shaping import (
    Script,
    no_repeated_sentence,
    repeated_ngrams,
    script_share,
    step_share,
)
from mmrl.stage import Context, Shape, Stage, with_rewards
from mmrl.types import Group

Count = Annotated[int, Field(gt=0)]


@dataclass(frozen=True, kw_only=True)
class TextTerm(Stage, ABC):
    """Adds a term of each answer's text, times `weight`, to its reward."""

    weight: float = 1.0

    def __call__(self, groups: list[Group], context: Context) -> list[Group]:
        return [
            with_rewards(
                g, g.rewards + self.weight * np.array([self.term(r.text) for r in g.responses])
            )
            for g in groups
        ]

    @abstractmethod
    def term(self, text: str) -> float:
        """Return the term of one answer."""


@dataclass(frozen=True, kw_only=True)
class RepeatedNgrams(TextTerm):
    """From 0 down to -1, the more n-grams of words occur again (VLM-R1)."""

    n: Count = 6

    def term(self, text: str) -> float:
        return repeated_ngrams(text, self.n)


@dataclass(frozen=True, kw_only=True)
class NoRepeatedSentence(TextTerm):
    """1 if no sentence occurs twice, else 0 (VisionReasoner)."""

    def term(self, text: str) -> float:
        return no_repeated_sentence(text)


@dataclass(frozen=True, kw_only=True)
class StepShare(TextTerm):
    """min(1, steps / enough), of lines that begin a step (Reason-RFT); see `step_share`."""

    enough: Count = 3
    distinct: bool = True

    def term(self, text: str) -> float:
        return step_share(text, self.enough, self.distinct)


@dataclass(frozen=True, kw_only=True)
class ScriptShare(TextTerm):
    """Share of the words that are in one script: answers stay in the language of the question."""

    script: Script = "latin"

    def term(self, text: str) -> float:
        return script_share(text, self.script)


TEXT_TERMS: Mapping[str, Shape] = {
    "repeated_ngrams": RepeatedNgrams(),
    "no_repeated_sentence": NoRepeatedSentence(),
    "step_share": StepShare(),
    "script_share": ScriptShare(),
}
"""Terms of text by the name a config uses."""
