"""Key steps of a reasoning chain: which of them a completion holds, and is its path in order?

A completion has `### Step N:` sections (the layout of R1-VL, arXiv 2503.12937). Model text is read
with linear scans of at most `MAX_CHARACTERS` characters.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

KeyStep = str | Sequence[str]
"""One key step: a phrase, or a list of accepted alternatives."""

MAX_CHARACTERS = 65_536

_HEADING = re.compile(r"^[ \t]*###[ \t]*([^\n:]*):?", re.MULTILINE)
_STEP = re.compile(r"step[ \t]*(\d{1,3})", re.IGNORECASE)
_TOKEN = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+|[^\w\s]")
_NAMES = ("description", "rationale", "final answer")


def tokens(text: str) -> list[str]:
    """Split into numbers, words and symbols: lower case, compatibility forms folded.

    "80" is one token and never part of "180"; "1,200" and "1200" are the same number, and so are
    "0.50" and "0.5".
    """
    folded = unicodedata.normalize("NFKC", text[:MAX_CHARACTERS]).casefold()
    return [_number(t) if t[0].isdigit() else t for t in _TOKEN.findall(folded)]


def _number(token: str) -> str:
    plain = token.replace(",", "")
    return plain.rstrip("0").rstrip(".") if "." in plain else plain


def sections(text: str) -> list[tuple[str, str, int, int]]:
    """Return (heading, body, start, end) of every `###` section, in characters, in order."""
    capped = text[:MAX_CHARACTERS]
    found = list(_HEADING.finditer(capped))
    ends = [*(match.start() for match in found[1:]), len(capped)]
    return [
        (match[1].strip().casefold(), capped[match.end() : end], match.start(), end)
        for match, end in zip(found, ends, strict=False)
    ]


def matched(text: str, key_steps: Sequence[KeyStep]) -> list[bool]:
    """Say for every key step whether one of its alternatives stands in the step sections."""
    body = " ".join(body for heading, body, _, _ in sections(text) if _STEP.match(heading))
    spoken = tokens(body)
    return [_holds(spoken, step) for step in key_steps]


def scored_steps(text: str, key_steps: Sequence[KeyStep]) -> list[tuple[int, int, float]]:
    """Return (start, end, value) of every step section, in characters.

    A section is worth the share of all key steps that are matched in it and in none before.
    """
    open_steps = list(key_steps)
    scored = []
    for heading, body, start, end in sections(text):
        if not _STEP.match(heading):
            continue
        spoken = tokens(body)
        left = [s for s in open_steps if not _holds(spoken, s)]
        scored.append((start, end, (len(open_steps) - len(left)) / max(len(key_steps), 1)))
        open_steps = left
    return scored


def matched_share(text: str, key_steps: Sequence[KeyStep]) -> float:
    """Share of the key steps that are matched; 0 where a record has none."""
    hits = matched(text, key_steps)
    return sum(hits) / len(hits) if hits else 0.0


def is_valid_path(text: str) -> bool:
    """Say whether the path is complete and logical.

    Complete: description, rationale, at least one step and a final answer that is not empty.
    Logical: description before rationale before steps 1..n in order before the answer.
    """
    found = sections(text)
    places: dict[str, int] = {}
    numbers: list[int] = []
    step_places: list[int] = []
    for place, (heading, _, _, _) in enumerate(found):
        step = _STEP.match(heading)
        if step:
            numbers.append(int(step[1]))
            step_places.append(place)
        name = next((n for n in _NAMES if n in heading), None)
        if name:
            places.setdefault(name, place)
    if len(places) < len(_NAMES) or numbers != list(range(1, len(numbers) + 1)) or not numbers:
        return False
    description, rationale, answer = (places[name] for name in _NAMES)
    in_order = description < rationale < step_places[0] and step_places[-1] < answer
    return in_order and bool(found[answer][1].strip())


def _holds(spoken: Sequence[str], step: KeyStep) -> bool:
    """True if an alternative of the key step stands in the text."""
    return any(_contains(spoken, tokens(a)) for a in _alternatives(step))


def _alternatives(step: KeyStep) -> Sequence[str]:
    return (step,) if isinstance(step, str) else step


def _contains(spoken: Sequence[str], phrase: Sequence[str]) -> bool:
    """True if the phrase stands in the text, token by token (Knuth-Morris-Pratt, linear)."""
    if not phrase:
        return False
    fallback = [0] * len(phrase)
    length = 0
    for i in range(1, len(phrase)):
        while length and phrase[i] != phrase[length]:
            length = fallback[length - 1]
        length += phrase[i] == phrase[length]
        fallback[i] = length
    length = 0
    for token in spoken:
        while length and token != phrase[length]:
            length = fallback[length - 1]
        length += token == phrase[length]
        if length == len(phrase):
            return True
    return False
