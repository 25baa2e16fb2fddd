"""Thoughts: the marks that families put around them, and what a chat template writes of them.

A template may open the thought itself, so that a response begins inside it, or open and close an
empty one, so that a response is the answer alone. Either is the beginning of what is read.
"""

from __future__ import annotations

import re

from mmrl.types import Answer

OPEN, CLOSE = "<think>", "</think>"
EMPTY = f"{OPEN}\n\n{CLOSE}\n\n"

_MARKS = (
    (OPEN, CLOSE), ("\u25c1think\u25b7", "\u25c1/think\u25b7"), ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"), ("<reasoning>", "</reasoning>"), ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"), ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|channel>thought", "<channel|>"),
)  # fmt: skip
_OPENED = re.compile(
    "|".join(rf"{re.escape(a)}\s*(?P<c{i}>{re.escape(b)}\s*)?\Z" for i, (a, b) in enumerate(_MARKS))
)
_TAIL = 256  # characters of a rendered prompt that a template's own ending may take


def opening_of(rendered: str) -> str:
    """What a rendered prompt ends with of a thought: `<think>`, an empty one, or nothing.

    Whatever marks the family writes, they are spelled as `<think>`.
    """
    match = _OPENED.search(rendered[-_TAIL:])
    if match is None:
        return ""
    return EMPTY if any(match.groupdict().values()) else f"{OPEN}\n"


def note_of(opening: str) -> str:
    """What to tell the user of a template's thought; "" if it writes none."""
    if not opening:
        return ""
    if CLOSE in opening:
        return "the chat template closes an empty <think></think>: responses begin after it"
    return "the chat template opens <think> itself: responses are read as begun inside the thought"


def whole(answer: Answer) -> str:
    """The response with what the template wrote before it, its marks spelled as `<think>`.

    A response that opens a thought of its own replaces the template's.
    """
    text = answer.text
    for opening, closing in _MARKS[1:]:
        if opening in text or (closing in text and OPEN not in text and CLOSE not in text):
            text = text.replace(opening, OPEN).replace(closing, CLOSE)
    if text.lstrip().startswith(OPEN):
        return text
    return answer.opening + text


def thought_of(answer: Answer) -> str | None:
    """The text of a response's closed thought; None without one of the model's own."""
    if CLOSE in answer.opening and CLOSE not in answer.text:
        return None
    _, opened, rest = whole(answer).partition(OPEN)
    inside, closed, _ = rest.partition(CLOSE)
    return inside if opened and closed else None


def continued(opening: str, target: str) -> str:
    """The part of a written completion that comes after what the template has written."""
    head, opened, rest = target.partition(OPEN)
    if not opening or (opened and head.strip()):
        return target
    inside = rest.removeprefix("\n") if opened else target  # written as begun inside the thought
    if CLOSE in opening:
        return inside.partition(CLOSE)[2].lstrip() if CLOSE in inside else target
    return inside if CLOSE in inside else f"{CLOSE}\n\n{target}"
