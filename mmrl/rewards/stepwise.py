"""Answers that stand in a last section `### The final answer is:`, the layout of R1-VL."""

from __future__ import annotations

from typing import Any

from mmrl.rewards.text import normalize

MAX_CHARACTERS = 65_536
HEADING = "### the final answer is"


def accuracy(
    prompts: list[Any], completions: list[str], answer: list[str], **columns: Any
) -> list[float]:
    """1 where the final section says the record's `answer`, case and punctuation aside, else 0.

    In TRL's form, for the task `custom`. R1-VL's own verifier reads the whole completion, where a
    right number anywhere scores; this reads the last section only.
    """
    return [float(_agrees(c, a)) for c, a in zip(completions, answer, strict=True)]


def _agrees(completion: str, answer: str) -> bool:
    _, found, said = completion[:MAX_CHARACTERS].casefold().rpartition(HEADING)
    if not found:
        return False
    plain = normalize(said.removeprefix(":"), punctuation=True)
    return bool(plain) and plain == normalize(answer, punctuation=True)
