r"""Answers that are one mathematical expression: bounded, purely lexical reading.

Reading admits a closed vocabulary and takes the unit and the percent sign off, so that what goes
on to `mmrl.rewards.math` is short LaTeX without prose. No sympy here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal

from mmrl.rewards.numbers import NumberPolicy, parse_number
from mmrl.rewards.parsed import Parsed, malformed, ok

_PLAIN = NumberPolicy(percent="reject", exponent=False)
_MAX_DIGITS = 30
_MAX_DEPTH = 10

_UNICODE = str.maketrans(
    {
        "\u2212": "-", "\u2013": "-", "\u00d7": r"\times ", "\u00f7": r"\div ", "\u00b7": r"\cdot ",
        "\u03c0": r"\pi ", "\u00b0": r"^\circ", "\u00a0": " ", "\u202f": " ", "\u2009": " ",
        "\u00b2": "^2", "\u00b3": "^3", "\u221e": r"\infty ",
    }
)  # fmt: skip
_FENCES = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"))
_SPACING = re.compile(r"\\(?:left|right|displaystyle|quad|qquad)(?![A-Za-z])|\\[,;:! ]|~")
_SPACES = re.compile(r"\s+")
_WRAPPED_NUMBER = re.compile(
    r"\\(?:text|textbf|mathrm|mathbf)\{\s*([-+]?[0-9][0-9.,]*|\.[0-9]+)\s*\}"
)
_DEGREES = re.compile(
    r"\^\{?\\circ\}?|\\degree(?![A-Za-z])|\\text\{ ?degrees? ?\}|(?<=\d) degrees?$"
)
_PERCENT = re.compile(r"(?:\\?%|\\text\{ ?(?:\\?%|percent) ?\}| ?percent)$")
_UNIT = re.compile(
    r"(?:\\(?:text|textrm|mathrm|mbox|rm)\{ ?(?P<wrapped>[A-Za-z][A-Za-z. ]*?) ?\}"
    r"|(?<=[0-9}) ])(?P<bare>[A-Za-z][A-Za-z. ]*?))"
    r"(?:\^\{?(?P<power>[23])\}?)?\.?$"
)
_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|[A-Za-z]+|[0-9]+(?:[.,][0-9]+)*|\s+|.", re.DOTALL)
_COMMANDS = frozenset(
    re.findall(
        r"\\[A-Za-z]+|\\.",
        r"""
    \frac \dfrac \tfrac \cfrac \sqrt \pi \cdot \times \div \pm \mp \circ \{ \} \|
    \sin \cos \tan \cot \sec \csc \arcsin \arccos \arctan \ln \log \exp
    \alpha \beta \gamma \delta \theta \lambda \mu \phi \varphi \omega \infty
    \le \leq \ge \geq \lt \gt \ne \neq \in \cup \cap \emptyset \mathbb \mid \vert
    \text \mathrm \mathbf \textbf
    """,
    )
)
_TRIG = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-z])")
_NUMERAL_DEGREES = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(?:\^\{?\\circ\}?|\\degree(?![A-Za-z]))")
_CONNECTIVES = frozenset({"and", "or", "or,"})

_UNIT_NAMES = {
    spelling: names[0]
    for names in (
        ("mm", "millimeter", "millimetre"), ("cm", "centimeter", "centimetre"),
        ("m", "meter", "metre"), ("km", "kilometer", "kilometre"),
        ("in", "inch", "inches", "in."), ("ft", "foot", "feet", "ft."), ("yd", "yard"),
        ("mi", "mile"), ("g", "gram"), ("kg", "kilogram"), ("s", "sec", "second"),
        ("min", "minute"), ("h", "hr", "hour"), ("l", "liter", "litre"), ("ml", "milliliter"),
        ("degree", "deg"), ("radian", "rad"), ("mph",), ("cm/s",), ("m/s",),
        ("unit",),
    )
    for name in names
    for spelling in (name, name + "s")
}  # fmt: skip
_POWERS = {"square": "2", "sq": "2", "sq.": "2", "cubic": "3", "cu": "3", "cu.": "3"}


@dataclass(frozen=True, slots=True)
class Expression:
    """One answer: LaTeX without its unit and percent sign; `number` if it is a plain numeral."""

    latex: str
    unit: str = ""
    percent: bool = False
    number: Decimal | None = None


def parse_expression(text: str, max_characters: int = 256) -> Parsed[Expression]:
    r"""Read the text of an answer region as one expression, without sympy, in linear time.

    Prose, unknown commands, non-ascii digits, and numerals or nesting beyond the caps are
    malformed. `5, 7` and `\pm 5` are one expression: a set, which equals no single number.
    """
    if len(text) > max_characters:
        return malformed(f"expression longer than {max_characters} characters")
    latex = _bare(text)
    latex, percent = _take_percent(latex)
    latex, unit = _take_unit(latex)
    latex = _bare(latex)
    if not latex:
        return Parsed("missing", None, "empty expression")
    complaint = _lexical_complaint(latex)
    if complaint:
        return malformed(complaint)
    number = parse_number(latex.replace("{,}", ","), _PLAIN).value
    return ok(Expression(latex, unit, percent, number))


def _bare(text: str) -> str:
    text = _SPACES.sub(" ", text.translate(_UNICODE)).strip()
    for opening, closing in _FENCES:
        if (
            len(text) > len(opening + closing)
            and text.startswith(opening)
            and text.endswith(closing)
        ):
            text = text[len(opening) : -len(closing)].strip()
    text = _SPACES.sub(" ", _SPACING.sub(" ", text)).strip()
    text = _WRAPPED_NUMBER.sub(r"\1", text)
    return text[:-1].rstrip() if text.endswith(".") else text


def _take_percent(latex: str) -> tuple[str, bool]:
    stripped = _PERCENT.sub("", latex).rstrip()
    return stripped, stripped != latex


def _take_unit(latex: str) -> tuple[str, str]:
    if _DEGREES.search(latex):
        if _TRIG.search(latex):
            return _NUMERAL_DEGREES.sub(r"{\\frac{\1 \\pi}{180}}", latex), ""
        return _DEGREES.sub("", latex).rstrip(), "degree"
    match = _UNIT.search(latex)
    name = _unit_name(match) if match else ""
    if match is None or not name:
        return latex, ""
    return latex[: match.start()].rstrip(), name


def _unit_name(match: re.Match[str]) -> str:
    """Canonical unit such as `cm^2`; "" if the words are no known unit.

    A bare single letter is a variable unless a space sets it apart from its number.
    """
    words = (match["wrapped"] or match["bare"]).lower().split()
    power = match["power"] or ""
    if len(words) == 2 and words[0] in _POWERS:
        power, words = _POWERS[words[0]], words[1:]
    if len(words) != 1 or words[0] not in _UNIT_NAMES:
        return ""
    before = match.string[: match.start()]
    if match["bare"] and len(words[0]) == 1 and not re.search(r"[0-9}] $", before):
        return ""
    name = _UNIT_NAMES[words[0]]
    return f"{name}^{power}" if power else name


def _lexical_complaint(latex: str) -> str:
    """Say why the text is not worth parsing; "" if it is."""
    depth = 0
    previous = ""
    for token in _TOKEN.findall(latex):
        if token[0] == "\\" and token not in _COMMANDS:
            return f"unknown command '{token}'"
        if not token.isascii() or not (token.isprintable() or token.isspace()):
            return f"unexpected character '{token}'"
        if token.isalpha() and len(token) > 3 and token not in _CONNECTIVES:
            return f"prose: '{token}'"
        if token[0].isdigit():
            if sum(c.isdigit() for c in token) > _MAX_DIGITS:
                return f"numeral of more than {_MAX_DIGITS} digits"
            if token.count(".") > 1 or previous[:1].isdigit():
                return "two numerals side by side"
        depth += (token in "([{") - (token in ")]}")
        if depth > _MAX_DEPTH:
            return f"nested deeper than {_MAX_DEPTH}"
        if token == "$":
            return "several formulas"
        previous = token if not token.isspace() else previous
    return ""
