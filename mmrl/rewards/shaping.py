"""Shaping terms: what is added to or multiplied with a group's rewards, never a metric.

Pure functions of one scored group in plain arrays: `lengths` [G] in the unit their caller names
(tokens, words or characters), `correct` [G] booleans, texts in the group's order. What a group's
mean or maximum enters cannot be computed per record, hence not in a task. A truncated or
unscorable answer is the caller's to leave out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mmrl.types import Bools, Floats

_STEP = re.compile(
    r"^[ \t]*(?:[-*\u2022][ \t]|[0-9]{1,3}[.)][ \t]|(?:\#+[ \t]*)?step[ \t]+[0-9]{1,3}\b"
    r"|(?:first|second|third|next|then|finally)(?:ly)?,)",
    re.IGNORECASE | re.MULTILINE,
)
_SENTENCE_END = re.compile(r"(?<![0-9])\.(?![0-9])|[!?\n]|\.(?=\s|\Z)")
_SCRIPTS = {
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


def cosine_length(
    lengths: Floats,
    correct: Bools,
    longest: float = 1024.0,
    right: tuple[float, float] = (1.0, 0.5),
    wrong: tuple[float, float] = (-0.5, 0.0),
    clamp: bool = True,
) -> Floats:
    """Half a cosine from the first value at length 0 to the second at `longest` (VLM-R1).

    `clamp` False is VLM-R1 as coded: beyond `longest` the term rises again.
    """
    share = lengths / longest
    falling = (1 + np.cos(np.pi * (np.minimum(share, 1.0) if clamp else share))) / 2
    start, end = (np.where(correct, *pair) for pair in zip(right, wrong, strict=True))
    return np.asarray(end + (start - end) * falling, dtype=np.float64)


def relative_length(lengths: Floats, correct: Bools) -> Floats:
    """0.5 for the shortest of the group, -0.5 for the longest, wrong answers at most 0.

    Reason-RFT's (and Kimi's) length term; all of one length gives 0 everywhere.
    """
    spread = lengths.max(initial=0.0) - lengths.min(initial=np.inf)
    if not spread > 0:
        return np.zeros_like(lengths)
    term = 0.5 - (lengths - lengths.min()) / spread
    return np.asarray(np.where(correct, term, np.minimum(term, 0.0)), dtype=np.float64)


def budget_factor(lengths: Floats, budget: float, slope: float = 500.0) -> Floats:
    """What a reward is multiplied with: 1 within the budget, 0 from `slope` beyond (PixelThink)."""
    return np.clip(1.0 - (lengths - budget) / slope, 0.0, 1.0)


def dast(lengths: Floats, correct: Bools, longest: float) -> Floats:
    """Difficulty-adaptive length term of UI-R1-E (DAST, arXiv 2503.04472).

    The budget lies between the mean right length and `longest`, by the share of right answers. The
    shorter a right answer the better (at least 0.1), the longer a wrong one (at most -0.1).
    """
    share = float(np.mean(correct)) if len(correct) else 0.0
    mean_right = float(np.mean(lengths[correct])) if share else 0.0
    budget = share * mean_right + (1.0 - share) * longest
    excess = (lengths - budget) / budget
    return np.where(
        correct, np.maximum(-0.5 * excess + 0.5, 0.1), np.minimum(0.9 * excess - 0.1, -0.1)
    )


def length_window(
    lengths: Floats, correct: Bools, low: float = 320.0, high: float = 512.0, bonus: float = 0.2
) -> Floats:
    """A bonus for right answers of a length in [low, high] if more than one is right (Video-R1)."""
    within = correct & (low <= lengths) & (lengths <= high)
    return np.where(within & (np.sum(correct) > 1), bonus, 0.0)


def overlong(lengths: Floats, longest: float, cache: float) -> Floats:
    """0 up to `longest - cache`, then linearly down to -1 at `longest` and beyond (DAPO)."""
    return np.clip((longest - cache - lengths) / cache, -1.0, 0.0)


def long_is_better(lengths: Floats, enough: float = 512.0) -> Floats:
    """min(1, length / enough), in words (ToolRL's optional term, which invites padding)."""
    return np.minimum(lengths / enough, 1.0)


def length_ratio(text: str, context: str, low: float = 0.2, high: float = 0.8) -> float:
    """1 if `low` < characters of the text / of the context < `high`, else 0 (CANOE)."""
    return float(bool(context) and low < len(text) / len(context) < high)


def repeated_ngrams(text: str, n: int = 6) -> float:
    """-(1 - distinct / all) of the n-grams of lower-case words; 0 below n words (VLM-R1)."""
    words = text[:_MAX_CHARACTERS].lower().split()
    return repeated_items([tuple(words[i : i + n]) for i in range(len(words) - n + 1)])


def repeated_items(items: Sequence[object]) -> float:
    """-(1 - distinct / all) of whole items, such as `box_label`; none give 0 (VLM-R1)."""
    return len(set(items)) / len(items) - 1.0 if items else 0.0


def distinct_share(items: Sequence[object]) -> float:
    """Distinct items over all, a factor for a set reward; none give 0 (Reason-RFT)."""
    return len(set(items)) / len(items) if items else 0.0


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


def script_share(text: str, script: str = "latin") -> float:
    """Share of the words that are in one script; Han characters count as words. No word gives 0.

    An unknown script raises ValueError.
    """
    if script not in _SCRIPTS:
        raise ValueError(f"unknown script '{script}'; known: {', '.join(_SCRIPTS)}")
    text = text[:_MAX_CHARACTERS]
    counts = {name: len(pattern.findall(text)) for name, pattern in _SCRIPTS.items()}
    total = sum(counts.values())
    return counts[script] / total if total else 0.0


def z_scores(values: Floats, epsilon: float = 1e-6) -> Floats:
    """Standardise within the group (population deviation); a constant group gives 0.

    BLEUBERI does this over the whole batch, which couples prompts that have nothing in common.
    """
    centred: npt.NDArray[np.float64] = values - values.mean() if len(values) else values
    return centred / (values.std() + epsilon) if len(values) else values
