"""Reward functions of tests; a module of their own, since scoring workers import it."""

from __future__ import annotations

from typing import Any


def always_raises(prompts: list[Any], completions: list[str], **columns: Any) -> list[float]:
    """A verifier that never reaches a verdict."""
    raise RuntimeError("no verdict")


def abstains(prompts: list[Any], completions: list[str], **columns: Any) -> list[None]:
    """A verifier that judges nothing."""
    return [None] * len(completions)


def counts_letters(prompts: list[Any], completions: list[str], **columns: Any) -> list[float]:
    """A verifier that likes letters."""
    return [float(sum(map(str.isalpha, text))) for text in completions]


def case_of_the_picture(
    prompts: list[str], completions: list[str], shown: list[str], **_: object
) -> list[float]:
    """The share of small letters for a dark picture, of capitals for a bright one."""
    right = {"dark": str.islower, "bright": str.isupper}
    return [
        sum(map(right[kind], text)) / max(len(text), 1)
        for text, kind in zip(completions, shown, strict=True)
    ]
