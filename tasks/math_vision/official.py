"""How MATH-Vision's script gets an answer out of a response, in linear time."""

from __future__ import annotations

import re

_FLAGS = ("the final answer is", "the answer is", "the correct answer is", "the answer should be")
_DROPPED = re.compile(
    r"\\text|\\mbox|\\left|\\right|\^\{\\circ\}|\^\\circ|\{m\}\^3|m\^3|\{units\}|units|\{km\}|km"
    r"|\\,|\\!|\\\$|\$|\\%|\s"
)
_LETTER = re.compile(r"[({]([a-e])[)}]")
_PLAIN_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)")


def extract(response: str) -> str:
    """The last box, else what follows a phrase such as "the answer is", else all; lower case.

    Units, degrees, dollar and percent signs and LaTeX spacing are dropped, and of an equation only
    the right-hand side is kept.
    """
    text = _final_letter(response.strip())
    tail = text.rpartition("is ")[2].rstrip(".")
    if _PLAIN_NUMBER.fullmatch(tail):
        text = tail
    boxed = text.rpartition("oxed{")
    text = _inside_braces(boxed[2]) if boxed[1] else _after_flags(text)
    text = text.lower().replace("dfrac", "frac").replace("tfrac", "frac")
    text = text.rpartition("=")[2].rpartition("\\approx")[2]
    text = _LETTER.sub(r"\1", _DROPPED.sub("", text))
    return text.rstrip(".").lstrip(":").strip()


def _final_letter(text: str) -> str:
    for c in "ABCDE":
        if text.endswith((f" {c}.", f" ({c}).")):
            return c
        if text.startswith((f"{c}\n", f"({c})\n", f"({c}) {c}\n")):
            return c
    return text


def _after_flags(text: str) -> str:
    for flag in _FLAGS:
        for spelling in (flag, flag.replace("the", "The")):
            _, found, tail = text.rpartition(spelling)
            if found:
                text = tail.strip().partition("\n")[0].partition(". ")[0]
    return text


def _inside_braces(text: str) -> str:
    """Up to the brace that closes the box; all of it if none does."""
    depth = 0
    for i, character in enumerate(text):
        if character == "}":
            depth -= 1
            if depth < 0:
                return text[:i]
        depth += character == "{"
    return text
