r"""Answers that are one mathematical expression: bounded, purely lexical reading.

Reading admits a closed vocabulary and takes the unit and the percent sign off, so that what goes
on to `mmrl.rewards.math` is short LaTeX without prose. No sympy here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal

from mmrl.rewards.dress import undress
from mmrl.rewards.numbers import NumberPolicy, parse_number
from mmrl.rewards.parsed import Parsed, malformed, ok
from mmrl.rewards.school_latex import plain_latex, without_fonts
from mmrl.rewards.units import take_unit

_PLAIN = NumberPolicy(percent="reject")
_MAX_DIGITS = 30
_MAX_DEPTH = 10
_MAX_POINTS = 8  # capitals in a row that are a figure's corners, or an order of things
_MARKUP = 4  # how many times longer than what it says an expression may be written

_CELSIUS = re.compile(r"\^ ?\{? ?\\circ ?\}? ?(?:\\(?:text|mathrm|rm) ?)?\{? ?([CF]) ?\}?$")
_ARC_MINUTES = re.compile(
    r"(?:([0-9]+) ?\^ ?\{? ?\\circ ?\}? ?)?(?:([0-9]{1,2}) ?(?:'(?!')|\^ ?\{? ?\\prime ?\}?))? ?"
    r"(?:([0-9]{1,2}) ?(?:''|\^ ?\{? ?\\prime ?\\prime ?\}?))?"
)
_DEGREES = re.compile(
    r"\^ ?\{? ?\\circ ?\}?|\\text ?\{ ?degrees? ?\}|(?<=[0-9]) ?(?:degrees?|\u5ea6)(?![A-Za-z])"
)
_PERCENT = re.compile(
    r"(?:%|\\(?:text|mathrm) ?\{ ?(?:%|percent|pct|per cent) ?\}| ?(?:percent|pct|per cent))$"
)
_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|[A-Za-z]+|[0-9]+(?:[.,][0-9]+)*|\s+|.", re.DOTALL)
_COMMANDS = frozenset(
    re.findall(
        r"\\[A-Za-z]+|\\.",
        r"""
    \frac \sqrt \pi \cdot \times \div \pm \mp \circ \{ \} \|
    \sin \cos \tan \cot \sec \csc \arcsin \arccos \arctan \ln \log \exp
    \alpha \beta \gamma \delta \theta \lambda \mu \phi \varphi \omega \infty
    \leq \geq \neq \in \cup \cap \emptyset \mathbb \mid \vert \lvert \rvert
    \text \mathrm \mathbf \textbf
    \angle \triangle \odot \perp \parallel \cong \similar
    \overline \overrightarrow \vec \bar \widehat \hat
    """,
    )
)
_TRIG = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-z])")
_NUMERAL_DEGREES = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(?:\^ ?\{? ?\\circ ?\}?)")
_CONNECTIVES = frozenset({"and", "or", "or,"})
_WORDS_OF_PROSE = frozenset(
    {"to", "is", "of", "the", "are", "was", "for", "not", "but", "yes", "no", "one", "two", "six"}
)
"""Short words that are no product of variables."""
_PARTS = re.compile(
    r"(<|>|=|;|\\leq(?![A-Za-z])|\\geq(?![A-Za-z])|\\neq(?![A-Za-z])|\b(?:or|and)\b"
    r"|,(?![0-9]{3}(?![0-9])))"
)
_NUMBERED = re.compile(r"\(1\)[^(]+.*\(2\)")
_SEVERAL = "several units"
_RESTATED = re.compile(
    r"^(?P<one>[^()]*(?:\([^()]*\)[^()]*)*?) ?\( ?(?:or|i\.e\.|=|that is,?) ?"
    r"(?:(?:fill in|write|written as|equivalently|also|as) ?)?(?P<other>[^()]+)\)$"
)
_WORDS = re.compile(r"\\text ?\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class Expression:
    """One answer: LaTeX without its unit and percent sign; `number` if it is a plain numeral.

    `restated` is the same value as it is written once more, as in `35/4 (or 8.75)`.
    """

    latex: str
    unit: str = ""
    percent: bool = False
    number: Decimal | None = None
    restated: Expression | None = None

    @property
    def key(self) -> tuple[str, str, bool]:
        """What two spellings of one expression share; white space and idle braces are none."""
        latex = re.sub(r"\{(\w)\}", r"\1", re.sub(r"\s+", "", self.latex))
        return latex, self.unit, self.percent


def parse_expression(text: str, max_characters: int = 256) -> Parsed[Expression]:
    r"""Read the text of an answer region as one expression, without sympy, in linear time.

    Prose, unknown commands, non-ascii digits, and numerals or nesting beyond the caps are
    malformed. `5, 7`, `5 or 7` and `\pm 5` are one expression: a set, which equals no single
    number.

    Args:
        text: an answer region's text.
        max_characters: caps the expression, and a multiple of it the text with its markup.

    Example:
        >>> parse_expression("$5$ km/h").value.number, parse_expression("about five").status
        (Decimal('5'), 'malformed')
    """
    if len(text) > _MARKUP * max_characters:
        return malformed(f"expression longer than {max_characters} characters")
    latex = plain_latex(text)
    twice = _RESTATED.match(" ".join(_WORDS.sub(r"\1", latex).split())) if "(" in latex else None
    if twice is None:
        return _read(latex, max_characters)
    one, other = _read(twice["one"], max_characters), _read(twice["other"], max_characters)
    if one.value is None or other.value is None:
        return one if one.value is None else other
    read = one.value
    return ok(Expression(read.latex, read.unit, read.percent, read.number, other.value))


def _read(latex: str, max_characters: int) -> Parsed[Expression]:
    latex, percent = _take_percent(undress(latex))
    latex, unit = _take_units(latex)
    latex = undress(without_fonts(latex))
    if unit == _SEVERAL:
        return malformed(_SEVERAL)
    if not latex:
        return Parsed("missing", None, "empty expression")
    if len(latex) > max_characters:
        return malformed(f"expression longer than {max_characters} characters")
    complaint = _lexical_complaint(latex)
    if complaint:
        return malformed(complaint)
    return ok(Expression(latex, unit, percent, parse_number(latex, _PLAIN).value))


def _take_percent(latex: str) -> tuple[str, bool]:
    stripped = _PERCENT.sub("", latex).rstrip()
    return stripped, stripped != latex


def _take_units(latex: str) -> tuple[str, str]:
    """Take the unit off every side of a relation and every item of a list; they must agree."""
    celsius = _CELSIUS.search(latex)
    if celsius:
        return latex[: celsius.start()].rstrip(), {"C": "celsius", "F": "fahrenheit"}[celsius[1]]
    arc = _ARC_MINUTES.fullmatch(latex)
    if arc and (arc[2] or arc[3]):
        whole, minutes, seconds = (part or "0" for part in arc.groups())
        latex = rf"({whole}+\frac{{{minutes}}}{{60}}+\frac{{{seconds}}}{{3600}})^\circ"
    if _DEGREES.search(latex):
        if _TRIG.search(latex):
            return _NUMERAL_DEGREES.sub(r"{\\frac{\1 \\pi}{180}}", latex), ""
        return _DEGREES.sub(" ", latex).strip(), "degree"
    parts = _PARTS.split(latex)
    split = [take_unit(part) for part in parts[::2]]
    units = {unit for _, unit in split if unit}
    if len(units) > 1:
        return latex, _SEVERAL
    parts[::2] = [bare for bare, _ in split]
    return " ".join(parts).strip(), units.pop() if units else ""


def _lexical_complaint(latex: str) -> str:
    """Say why the text is not worth parsing; "" if it is."""
    if _NUMBERED.match(latex):
        return "numbered parts"
    depth = 0
    previous = ""
    for token in _TOKEN.findall(latex):
        if token[0] == "\\" and token not in _COMMANDS:
            return f"unknown command '{token}'"
        if not token.isascii() or not (token.isprintable() or token.isspace()):
            return f"unexpected character '{token}'"
        longest = _MAX_POINTS if token.isupper() else 3
        spoken = len(token) > longest or token.lower() in _WORDS_OF_PROSE
        if token.isalpha() and spoken and token not in _CONNECTIVES:
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
