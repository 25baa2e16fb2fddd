"""Key steps for StepGRPO out of a worked solution: the results of its computations.

R1-VL (arXiv 2503.12937) lets a language model pick them, as short phrases with alternative
notations. Here a rule does: every formula with an equals sign gives one step, held by its last
equation or, where that is telling enough, by the result alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

MAX_STEPS = 12
MAX_CHARACTERS = 60

_LEFT_OUT = re.compile(
    r"\[asy\].*?\[/asy\]|!?\[[^\]\n]{0,200}\]\([^()\s]{1,2000}\)|https?://\S+", re.DOTALL
)
_FORMULA = re.compile(r"\$\$?([^$]+)\$\$?|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_LINE = re.compile(r"\n|\\\\|(?<=[.;!?])\s")
_EQUALS = re.compile(r"(?<![<>!=:\\])=(?!=)")
_LAYOUT = re.compile(
    r"\\(?:left|right|displaystyle|quad|qquad|begin\{[a-z*]+\}|end\{[a-z*]+\})|&|\\[,;!]|~"
)
_TEXT = re.compile(r"\\(?:text|mathrm|mbox|boxed)\{([^{}]*)\}")
_PROSE = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]{4,}")


def of_solution(solution: str | None) -> list[list[str]]:
    """Key steps in the order of the solution, each a list of accepted notations, none twice."""
    steps: list[list[str]] = []
    seen: set[str] = set()
    for formula in _formulas(_LEFT_OUT.sub(" ", solution or "")):
        plain = _TEXT.sub(r"\1", _LAYOUT.sub(" ", formula))
        sides = [" ".join(side.split()).strip(" .,;:") for side in _EQUALS.split(plain)]
        if len(sides) < 2 or not all(map(_is_short, sides[-2:])):
            continue
        equation, result = f"{sides[-2]} = {sides[-1]}", sides[-1]
        if equation not in seen:
            seen.add(equation)
            # A lone digit or letter stands in nearly any step.
            telling = sum(c.isalnum() for c in result) > 1
            steps.append([equation, result] if telling else [equation])
    return steps[:MAX_STEPS]


def _formulas(text: str) -> Iterator[str]:
    """What stands between dollars or brackets of LaTeX; without any, the sentences."""
    spans = ["".join(filter(None, found.groups())) for found in _FORMULA.finditer(text)]
    for span in spans or [text]:
        yield from _LINE.split(span)


def _is_short(side: str) -> bool:
    """A side of an equation rather than prose that happens to hold an equals sign."""
    known = any(c.isalnum() for c in side)
    return known and len(side) <= MAX_CHARACTERS and not _PROSE.search(side)
