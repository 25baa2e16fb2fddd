"""The three regions of a faithful answer, and the four terms of its reward."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from mmrl.rewards.grammar import MAX_CHARACTERS, Region, TagAnswer, Think
from mmrl.rewards.numbers import parse_number
from mmrl.rewards.text import normalize
from mmrl.types import Answer

LOW, HIGH = 0.2, 0.8
_OPEN, _CLOSE = "<long_answer>", "</long_answer>"


@dataclass(frozen=True, slots=True)
class LongAndShort:
    """`<think>`, then `<long_answer>`, then `<answer>`, each once and nothing else."""

    think: Think = "required"

    def instruction(self) -> str:
        """Tell the model how to answer."""
        return (
            f"{self._short().instruction()} Before it, write a passage that answers in full, "
            f"from the context alone, between {_OPEN} {_CLOSE} tags."
        )

    def parse(self, answer: Answer) -> tuple[Region, Region]:
        """The long and the short region; both are well-formed only together."""
        long = TagAnswer(self.think, "long_answer", max_region_characters=MAX_CHARACTERS)
        found = long.parse(answer)
        rest = answer.text
        if found.answer.value is not None:
            rest = _without_long(answer.text)
        short = self._short().parse(dataclasses.replace(answer, text=rest))
        in_order = -1 < answer.text.rfind(_CLOSE) < answer.text.rfind("<answer>")
        well_formed = found.answer.status == "ok" and short.well_formed and in_order
        return Region(found.answer, well_formed), Region(short.answer, well_formed)

    def write(self, long: str, short: str, thought: str = "") -> str:
        """Write a well-formed completion."""
        written = self._short().write(short, thought)
        head, tag, tail = written.rpartition("<answer>")
        return f"{head}{_OPEN}{long}{_CLOSE}\n{tag}{tail}"

    def _short(self) -> TagAnswer:
        return TagAnswer(self.think)


def _without_long(text: str) -> str:
    """The text without its last long region, which is the one after the thought."""
    head, _, tail = text.rpartition(_OPEN)
    _, _, after = tail.partition(_CLOSE)
    return head + after


def same_answer(text: str, answers: Sequence[str]) -> bool:
    """Equal as numbers, or as texts without case, punctuation and articles."""
    number = parse_number(text).value
    for answer in answers:
        if number is not None and number == parse_number(answer).value:
            return True
        key = normalize(answer, punctuation=True, articles=True)
        if key and key == normalize(text, punctuation=True, articles=True):
            return True
    return False


def supports(long: str, answers: Sequence[str]) -> bool:
    """Whether the passage states one of the answers, word for word."""
    passage = f" {normalize(long, punctuation=True)} "
    keys = [normalize(answer, punctuation=True) for answer in answers]
    return any(key and f" {key} " in passage for key in keys)


def fair_length(long: str, context: str) -> bool:
    """CANOE's bound: more than 0.2 and less than 0.8 of the context's characters."""
    return LOW < len(long) / len(context) < HIGH


def copied(long: str, context: str) -> bool:
    """Whether the passage is one stretch of the context."""
    return normalize(long) in normalize(context)
