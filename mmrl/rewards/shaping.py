"""Shaping terms of one text: what a task or a shaper adds to a reward, never a metric.

`mmrl.algorithms.stages.text_terms` gives them names in a configuration; terms of length, which
compare the answers of a group, are in `length_terms` beside it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal

_STEP = re.compile(
    r"^[ \t]*(?:[-*\u2022][ \t]|[0-9]{1,3}[.)][ \t]|(?:\#+[ \t]*)?step[ \t]+[0-9]{1,3}\b"
    r"|(?:first|second|third|next|then|finally)(?:ly)?,)",
    re.IGNORECASE | re.MULTILINE,
)
_SENTENCE_END = re.compile(r"(?<![0-9])\.(?![0-9])|[!?\n]|\.(?=\s|\Z)")
Script = Literal["latin", "han", "kana", "hangul", "cyrillic", "arabic", "devanagari"]
_SCRIPTS: Mapping[Script, re.Pattern[str]] = {
    "latin": re.compile(r"[A-Za-z\u00c0-\u024f]+"),
    "han": re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]"),
    "kana": re.compile(r"[\u3040-\u30ff]+"),
    "hangul": re.compile(r"[\uac00-\ud7af]+"),
    "cyrillic": re.compile(r"[\u0400-\u04ff]+"),
    "arabic": re.compile(r"[\u0600-\u06ff]+"),
    "devanagari": re.compile(r"[\u0900-\u097f]+"),
}
_MAX_CHARACTERS = 65_536


def tags_once(text: str, tags: Sequence[str], each: float | None = None) -> float:
    """Share of the tags that occur exactly once; `each` pays that much a tag instead (R1: 0.25,
    AlphaMaze: 0.125). For the format itself use a grammar's `well_formed`.
    """
    found = sum(text.count(tag) == 1 for tag in tags)
    return found / len(tags) if each is None else each * found


def repeated_ngrams(text: str, n: int = 6) -> float:
    """-(1 - distinct / all) of the n-grams of lower-case words; 0 below n words (VLM-R1)."""
    words = text[:_MAX_CHARACTERS].lower().split()
    items = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return len(set(items)) / len(items) - 1.0 if items else 0.0


def no_repeated_sentence(text: str) -> float:
    """1 if no sentence occurs twice, 0 if one does or there is none (VisionReasoner).

    Points inside numbers do not end a sentence.
    """
    parts = _SENTENCE_END.split(text[:_MAX_CHARACTERS])
    sentences = [" ".join(part.lower().split()) for part in parts if part.strip()]
    return float(bool(sentences) and len(set(sentences)) == len(sentences))


def step_share(text: str, enough: int = 3, distinct: bool = True) -> float:
    """min(1, steps / enough): lines that begin a step by number, bullet or word (Reason-RFT).

    `distinct` counts lines of one wording once, and bare bullets not at all; False is as coded,
    where three empty bullets earn the full term.
    """
    text = text[:_MAX_CHARACTERS]
    marks = list(_STEP.finditer(text))
    if not distinct:
        return min(1.0, len(marks) / enough)
    ends = [text.find("\n", mark.end()) for mark in marks]
    bodies = {
        text[mark.end() : end if end >= 0 else len(text)].strip().lower()
        for mark, end in zip(marks, ends, strict=True)
    }
    return min(1.0, len(bodies - {""}) / enough)


def script_share(text: str, script: Script = "latin") -> float:
    """Share of the words that are in one script; Han characters count as words. No word gives 0."""
    text = text[:_MAX_CHARACTERS]
    counts = {name: len(pattern.findall(text)) for name, pattern in _SCRIPTS.items()}
    total = sum(counts.values())
    return counts[script] / total if total else 0.0
