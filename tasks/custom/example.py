"""A reward function in TRL's form, to start from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def exact_match(
    prompts: Sequence[Any], completions: Sequence[Any], answer: Sequence[str], **columns: Any
) -> list[float | None]:
    """1 for a completion that equals the record's `answer`; None where the record has none."""
    texts = [c if isinstance(c, str) else c[0]["content"] for c in completions]
    return [
        float(text.strip() == gold) if gold else None
        for text, gold in zip(texts, answer, strict=True)
    ]
