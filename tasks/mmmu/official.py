"""How MMMU's own script reads an open answer, without its random guesses.

Lenient on purpose: any number or phrase near the end of a sentence counts, and a gold text only
has to be contained, so that "not 5" is right for "5". For comparison with published numbers only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_INDICATORS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_TRIVIAL = frozenset(":,.!?;'")
# A match inside a run of digits is never found where one from its start is not; saying so keeps
# the time linear.
_NUMBERS = (
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),
    re.compile(r"-?(?<!\d)\d+(?:\.\d+)?[eE][+-]?\d+"),
    re.compile(r"-?(?:(?<!\d)\d+\.\d+|\.\d+|(?<!\d)\d+\b)(?![eE][+-]?\d+)(?![,\d])"),
)


def open_right(text: str, answers: Sequence[str]) -> bool:
    """Whether the official script accepts this response for any of the answers."""
    golds = {form for answer in answers for form in _forms(answer)}
    for form in _readings(text):
        if isinstance(form, float):
            if form in golds:
                return True
        elif any(isinstance(gold, str) and gold in form for gold in golds):
            return True
    return False


def _readings(text: str) -> list[str | float]:
    keys = _key_phrases(text)
    numbers = [n for key in keys for pattern in _NUMBERS for n in pattern.findall(key)]
    return [form for phrase in (*keys, *numbers) for form in _forms(phrase)]


def _key_phrases(text: str) -> list[str]:
    """The shortest tail behind an indicator word, of each line that has one; else all of it."""
    response = text.strip().strip(".").lower()
    lines = response.split("\n")
    phrases = []
    for i, line in enumerate(lines):
        indicators = (*_INDICATORS, "=") if i == len(lines) - 1 else _INDICATORS
        shortest = ""
        for tail in (line.rpartition(word)[2].strip() for word in indicators if word in line):
            if not shortest or len(tail) < len(shortest):
                shortest = tail
        if shortest and shortest not in _TRIVIAL:
            phrases.append(shortest)
    return phrases or [response]


def _forms(text: str) -> list[str | float]:
    """A number rounded to two places, else lower-case text, a single character with a space."""
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        text = text.lower()
    return [f" {text}", f"{text} "] if len(text) == 1 else [text]
