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
