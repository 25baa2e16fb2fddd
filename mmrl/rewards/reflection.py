"""An answer, a reflection on it and a second answer: the layout and reward of SRPO.

SRPO (arXiv 2506.01713) pays a reflection for what it does: it should mend a wrong answer, keep a
right one, and never spoil one. The four functions are in TRL's form, for the task `custom`; what
measures stands first.
"""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple

from mmrl.rewards.math import MathPolicy
from mmrl.rewards.math_answers import free_form_gold, grade_math

MAX_CHARACTERS = 65_536
LAYOUT = ("think", "answer", "reflection", "think", "answer")
_TAGS = re.compile("|".join(f"</?{tag}>" for tag in sorted({*LAYOUT})))
MENDED, KEPT, WRONG, SPOILT = 1.0, 0.75, 0.0, -0.25
TARGET, SPREAD = 2.0, 0.5
"""A completion is best twice as long as its first thought and answer, half of them more or less."""


class Reflected(NamedTuple):
    """What stands in the five regions of a completion, in their order."""

    thought: str
    answer: str
    reflection: str
    second_thought: str
    second_answer: str


def read(completion: str) -> Reflected | None:
    """The regions, or None where they are not all there, once each, in order, alone and filled."""
    rest, found = completion[:MAX_CHARACTERS].strip(), []
    for tag in LAYOUT:
        opening, closing = f"<{tag}>", f"</{tag}>"
        body, closed, after = rest.removeprefix(opening).partition(closing)
        if not rest.startswith(opening) or not closed or _TAGS.search(body) or not body.strip():
            return None
        found.append(body.strip())
        rest = after.lstrip()
    return None if rest else Reflected(*found)


def second_right(
    prompts: list[Any], completions: list[str], answer: list[str], **_: Any
) -> list[float]:
    """1 where the second answer is the record's `answer`, else 0: the metric."""
    return [float(_verdicts(c, a)[1]) for c, a in zip(completions, answer, strict=True)]


def effect(prompts: list[Any], completions: list[str], answer: list[str], **_: Any) -> list[float]:
    """What the reflection did: 1 mended, 0.75 kept right, 0 left wrong, -0.25 spoilt."""
    paid = {(False, True): MENDED, (True, True): KEPT, (False, False): WRONG, (True, False): SPOILT}
    return [paid[_verdicts(c, a)] for c, a in zip(completions, answer, strict=True)]


def layout(prompts: list[Any], completions: list[str], **_: Any) -> list[float]:
    """1 where all five regions are in order, else 0."""
    return [float(read(completion) is not None) for completion in completions]


def brevity(prompts: list[Any], completions: list[str], **_: Any) -> list[float]:
    """exp(-(excess / spread)^2) of the words against twice the first thought and answer."""
    return [_brevity(completion) for completion in completions]


def _brevity(completion: str) -> float:
    found = read(completion)
    if found is None:
        return 0.0
    first = len(found.thought.split()) + len(found.answer.split())
    words = sum(len(text.split()) for text in found)
    return math.exp(-(((words - TARGET * first) / (SPREAD * first)) ** 2))


def _verdicts(completion: str, answer: str) -> tuple[bool, bool]:
    """Whether the first and the second answer are right; without the layout neither is."""
    found = read(completion)
    if found is None:
        return False, False
    gold = free_form_gold(answer)
    both = (found.answer, found.second_answer)
    first, second = (grade_math(text, gold, MathPolicy())[1] for text in both)
    return first, second
