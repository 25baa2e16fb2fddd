r"""What math-verify misreads, written so that it does not: names, bases, ratios, times, bare sides.

`\angle ABC`, `\overrightarrow{AB}`, `12_{3}` and `10:30` are names of things: each becomes one
symbol, the same for every spelling and for nothing else.
"""

from __future__ import annotations

import re
from math import gcd

_POINTS = r"(?:[A-Z](?:'|_\{ ?[0-9]+ ?\})?)"
_BRACED = r"(?:\{ ?(%s) ?\}|(%s))"
_SCIENTIFIC = re.compile(
    r"(?<![A-Za-z\\_])([0-9]+(?:\.[0-9]+)?)[eE]([-+]?[0-9]{1,4})(?![A-Za-z0-9.])"
)
_BASE = re.compile(
    r"(?<![0-9A-Za-z.,_\\])(?:\( ?([0-9][0-9A-F]*) ?\)|([0-9][0-9A-F]*(?:\.[0-9A-F]+)?))"
    r" ?_ ?\{ ?([0-9]{1,2}) ?\}"
)
_DIGIT_LETTERS = re.compile(
    r"(?<![0-9A-Za-z\\_])([A-F][0-9A-F]*) ?_ ?\{ ?(1[1-9]|2[0-9]|3[0-6]) ?\}"
)
_MIXED = re.compile(
    r"(?<![0-9A-Za-z.,^_}\\])([0-9]{1,9}) ?\\frac ?\{ ?([0-9]{1,9}) ?\} ?\{ ?([0-9]{1,9}) ?\}"
)
_ANGLE = re.compile(rf"(?:\bm ?)?\\angle ?{_BRACED % ((rf'{_POINTS}{{1,3}}|[0-9a-z]',) * 2)}")
_TRIANGLE = re.compile(rf"\\triangle ?{_BRACED % ((rf'{_POINTS}{{3}}',) * 2)}")
_VECTOR = re.compile(rf"\\(?:overrightarrow|vec) ?\{{ ?({_POINTS}{{2}}|[a-z]{{2}}) ?\}}")
_ARC = re.compile(rf"\\(?:widehat|overset\{{\\frown\}}) ?\{{ ?({_POINTS}{{2,3}}) ?\}}")
_SEGMENT = re.compile(rf"\\overline ?\{{ ?({_POINTS}{{2}}) ?\}}")
_BARRED = re.compile(r"\\(overline|bar|hat|widehat) ?\{ ?([a-z0-9A-Z]{1,6}) ?\}")
_CIRCLE = re.compile(r"\\odot ?(?:\{ ?([A-Z]) ?\}|([A-Z]))")
_CIRCLED = re.compile(r"\\odot_\{ ?([0-9]{1,2}) ?\}")
_INNER_SIGN = re.compile(r"\\frac ?\{[^{}]*\\pm")
_IMAGINARY = re.compile(r"(?<=[0-9}])i(?![A-Za-z])")
_STATEMENT = re.compile(r"([^=<>]{1,40}?) ?\\(parallel|perp|cong|similar) ?([^=<>]{1,40})")
_LETTERS = re.compile(r"(?<![A-Za-z\\])[A-Z]{3,}(?![A-Za-z])")
_INDEX = re.compile(r"([A-Za-z]) ?_ ?\{([^{}]*[^0-9A-Za-z{} ][^{}]*)\}")
_BARE_SIDE = re.compile(r"(<|>|\\leq|\\geq|\\neq) ?([^<>=]+)")
_POINT = re.compile(r"^[A-Z]'? ?(?=\([^()]*,[^()]*\)$)")
_MEMBER = re.compile(r"[A-Za-z] ?\\in ?((?:[(\[]|\\mathbb|\\\{).*)")
_BUILDER = re.compile(r"\\\{ ?([A-Za-z]) ?(?:\\mid|\\vert|\||:) ?(.*[<>=].*|.*\\[lgn]eq.*) ?\\\}")
_CLOCK = re.compile(r"(?P<h>[0-9]{1,2}) ?: ?(?P<m>[0-5][0-9])(?: ?: ?(?P<s>[0-5][0-9]))?"
                    r" ?(?P<half>[ap] ?\.? ?m ?\.?|[AP] ?\.? ?M ?\.?)?")  # fmt: skip
_TERMS = re.compile(r"[^:,=<>]+(?::[^:,=<>]+){2,4}")


def evaluable(latex: str) -> str:
    """The expression as it is given to math-verify."""
    if clock := _clock(latex):
        return clock
    latex = _in_parts(latex)
    latex = _SCIENTIFIC.sub(r"\1\\times 10^{\2}", latex)
    latex = _DIGIT_LETTERS.sub(lambda m: symbol("base", f"{m[1]}b{m[2]}"), _BASE.sub(_based, latex))
    latex = _MIXED.sub(_mixed, latex)
    latex = _named(_POINT.sub("", latex))
    if latex.count(r"\pm") == 1 and _INNER_SIGN.search(latex):
        latex = f"{latex.replace(chr(92) + 'pm', '+')}, {latex.replace(chr(92) + 'pm', '-')}"
    latex = _IMAGINARY.sub(" i", latex)  # math-verify knows it by the space before it
    built = _BUILDER.fullmatch(latex)
    if built and built[1] in built[2]:
        latex = built[2].strip()
    member = _MEMBER.fullmatch(latex)
    if member:
        latex = member[1]
    bare = _BARE_SIDE.fullmatch(latex)
    return _interval(bare[1], bare[2].strip()) if bare else latex


def symbol(kind: str, name: str) -> str:
    """One symbol for a thing of that kind and name, and no other thing's."""
    return f"z_{{{''.join(f'{ord(c):03d}' for c in kind[:3] + name)}}}"


def _clock(latex: str) -> str:
    """A time of day or a duration; a ratio of small numbers is none.

    `3:02` and `3:20 pm` can be no ratio, and a ratio is written in its lowest terms, so that
    `10:30` is a time; `3:2` and `1:15` are ratios.
    """
    match = _CLOCK.fullmatch(latex)
    if match is None:
        return ""
    hours, minutes = int(match["h"]), int(match["m"])
    half = (match["half"] or "").lower().replace(".", "").replace(" ", "")
    lowest = gcd(hours, minutes) == 1 and not match["m"].startswith("0")
    if hours > 24 or (lowest and not half and not match["s"]):
        return ""
    return symbol("time", f"{hours}:{minutes}:{match['s'] or ''}{half}")


def _in_parts(latex: str) -> str:
    """A ratio of three terms or more as its terms over the first."""
    if not _TERMS.fullmatch(latex):
        return latex
    first, *others = (term.strip() for term in latex.split(":"))
    shares = ",".join(rf"\frac{{{term}}}{{{first}}}" for term in others)
    return f"({symbol('ratio', '')},{shares})"


def _mixed(match: re.Match[str]) -> str:
    whole, over, under = match.groups()
    return rf"({whole}+\frac{{{over}}}{{{under}}})" if int(over) < int(under) else match[0]


def _based(match: re.Match[str]) -> str:
    digits = (match[1] or match[2]).lstrip("0") or "0"
    return digits if match[3] == "10" else symbol("base", f"{digits}b{match[3]}")


def _named(latex: str) -> str:
    """Every geometric name as a symbol: an angle read from either side, a triangle from any."""
    latex = _INDEX.sub(lambda m: symbol("index", m[1] + re.sub(r"[\s{}\\]", "", m[2])), latex)
    latex = _ANGLE.sub(lambda m: symbol("angle", _either_way(m[1] or m[2])), latex)
    latex = _TRIANGLE.sub(
        lambda m: symbol("triangle", "".join(sorted(_points(m[1] or m[2])))), latex
    )
    latex = _VECTOR.sub(lambda m: symbol("vector", m[1]), latex)
    latex = _ARC.sub(lambda m: symbol("arc", _either_way(m[1])), latex)
    latex = _SEGMENT.sub(r"\1", latex)
    latex = _BARRED.sub(lambda m: symbol(m[1].replace("overline", "bar"), m[2]), latex)
    latex = _LETTERS.sub(lambda m: symbol("letters", m[0]), latex)
    latex = _CIRCLED.sub(lambda m: symbol("numbered", m[1]), latex)
    latex = _CIRCLE.sub(lambda m: symbol("circle", m[1] or m[2]), latex)
    statement = _STATEMENT.fullmatch(latex)
    if statement:
        sides = sorted(_either_way(side) for side in (statement[1], statement[3]))
        return symbol(statement[2], "&".join(sides))
    return latex


def _points(name: str) -> list[str]:
    return re.findall(r"[A-Za-z0-9](?:'|_\{ ?[0-9]+ ?\})?", name.replace(" ", ""))


def _either_way(name: str) -> str:
    points = _points(name)
    return min("".join(points), "".join(points[::-1]))


def _interval(relation: str, bound: str) -> str:
    """What a side without a name says: `>-2` is everything above -2."""
    match relation:
        case ">":
            return rf"({bound},\infty)"
        case r"\geq":
            return rf"[{bound},\infty)"
        case "<":
            return rf"(-\infty,{bound})"
        case r"\leq":
            return rf"(-\infty,{bound}]"
        case _:
            return rf"(-\infty,{bound})\cup({bound},\infty)"
