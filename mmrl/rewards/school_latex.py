r"""LaTeX as school data sets and chat models write it -> the plain LaTeX that is compared.

Another spelling of the same thing becomes one spelling (`\leqslant`, `\number{24}`, `20{}^\circ`,
`1\,000`, `2*pi`, `sqrt(3)`, `\u221a3`); nothing is evaluated, and what is not known stays.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Callable
from decimal import Decimal

from mmrl.rewards.braces import closing_brace
from mmrl.rewards.dress import fold, undress

_CHARACTERS = str.maketrans(
    {
        "\u2212": "-", "\u2013": "-", "\u2010": "-", "\u2011": "-", "\u00d7": r"\times ",
        "\u2715": r"\times ", "\u00f7": r"\div ", "\u00b7": r"\cdot ", "\u22c5": r"\cdot ",
        "\u2022": r"\cdot ", "\u00b0": r"^\circ ", "\u00ba": r"^\circ ", "\u221e": r"\infty ",
        "\u00b1": r"\pm ", "\u2264": r"\leq ", "\u2a7d": r"\leq ", "\u2265": r"\geq ",
        "\u2a7e": r"\geq ", "\u2266": r"\leq ", "\u2267": r"\geq ", "\u2260": r"\neq ",
        "\u222a": r"\cup ", "\u2229": r"\cap ", "\u2208": r"\in ", "\u2205": r"\emptyset ",
        "\u211d": r"\mathbb{R}", "\u2220": r"\angle ", "\u25b3": r"\triangle ",
        "\u2206": r"\triangle ", "\u22a5": r"\perp ", "\u2225": r"\parallel ",
        "\u2299": r"\odot ", "\u2032": "'", "\u2033": "''", "\u2236": ":", "\u2044": "/",
        "\u2223": "|", "\u2245": r"\cong ", "\u224c": r"\cong ", "\u223d": r"\sim ",
        "\u2248": r"\approx ",
        **{chr(ord("\u2080") + i): f"_{i}" for i in range(10)},
        **dict(zip("\u03b1\u03b2\u03b3\u03b4\u03b8\u03bb\u03bc\u03c0\u03c6\u03c9", (
            r"\alpha ", r"\beta ", r"\gamma ", r"\delta ", r"\theta ", r"\lambda ", r"\mu ",
            r"\pi ", r"\phi ", r"\omega "), strict=True)),
        **dict(zip("\u00bd\u00bc\u00be\u2153\u2154\u2155\u215b", (
            r"\frac{1}{2}", r"\frac{1}{4}", r"\frac{3}{4}", r"\frac{1}{3}", r"\frac{2}{3}",
            r"\frac{1}{5}", r"\frac{1}{8}"), strict=True)),
    }
)  # fmt: skip
_RAISED = re.compile("[\u2070\u00b9\u00b2\u00b3\u2074-\u2079\u207b]+")
_PLAIN_DIGITS = str.maketrans("\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207b",
                              "0123456789-")  # fmt: skip

_BASES = (("two", 2), ("three", 3), ("four", 4), ("five", 5), ("six", 6), ("seven", 7),
          ("eight", 8), ("nine", 9), ("ten", 10), ("sixteen", 16))  # fmt: skip
_END = r"(?![A-Za-z])"
_GROUP = r"\{([^{}]*(?:\{[^{}]*\}[^{}]*)*)\}"
_TEXTS = r"(?:text|textrm|mathrm|rm|operatorname|mbox)"
_FUNCTIONS = "arcsin|arccos|arctan|sin|cos|tan|cot|sec|csc|ln|log|lg|exp"
_FONTS = r"mathrm|mathbf|mathit|mathsf|boldsymbol|bm|rm|bf|it|displaystyle|textstyle"
_REWRITES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        # systems
        (r"\\left ?\\\{ ?(?=\\begin)|\\(?:left|right) ?\.", ""),
        (r"\\begin ?\{(?:cases|array|aligned|matrix|gathered)\}(?:\{[lcr|]*\})?", " "),
        (r"(?:\\\\)? ?\\end ?\{(?:cases|array|aligned|matrix|gathered)\}", " "),
        (r"[,;]? ?\\\\ ?", ", "),
        # spaces: none that draws together, one that sets apart
        (r"\\!", ""),
        (rf"\\(?:left|right|big|Big|bigg|Bigg|bigl|bigr|displaystyle|textstyle|limits){_END}", " "),
        (rf"\\(?:quad|qquad|enspace|thinspace|nobreakspace|hfill){_END}|\\[,;:> ]|~", " "),
        (r"\s+", " "),
        # letters that were read one by one
        (r"(?<![A-Za-z\\])([A-Z]'?) (?=[A-Z]'?(?![A-Za-z]))", r"\1"),
        (r"(?<=[0-9}i)]) ([cdm] m|k g)(?= ?(?:\^ ?\{? ?[23] ?\}?)?$)", "SPACED"),
        (rf"\\{_TEXTS} ?\{{ ?((?:[A-Za-z] )+[A-Za-z]) ?\}}", "SPACED"),
        # for every whole number
        (
            r"[, ]*\(? ?[kn] ?\\in ?(?:\\math(?:bf|bb|rm) ?\{ ?[ZN] ?\}|[ZN])(?:_\+|\^\*)? ?\)?$",
            "",
        ),
        # relations
        (rf"\\(?:leqslant|leqq|le|eqslantless){_END}|<=|=<", r"\\leq "),
        (rf"\\(?:geqslant|geqq|ge){_END}|>=", r"\\geq "),
        (rf"\\lt{_END}", "<"),
        (rf"\\gt{_END}", ">"),
        (rf"\\(?:ne|not ?=){_END}|\\not ?=|!=", r"\\neq "),
        # packages for numbers and units
        (rf"\\(?:number|num)\s*{_GROUP}", r"\1"),
        (rf"\\ang\s*{_GROUP}", r"\1^\\circ"),
        # a function's name, a connective or a sign in a text
        (rf"\\{_TEXTS}\s*\{{\s*\\?({_FUNCTIONS})\s*\}}", r"\\\1 "),
        (rf"\\{_TEXTS}\s*\{{([-+0-9., /]*)\b(or|and)\b([-+0-9., /]*)\}}", r" \1 \2 \3 "),
        (rf"\\{_TEXTS}\s*\{{\s*(//|[-+=<>])\s*\}}", r"\1"),
        # fonts: as switches, then empty groups
        (
            r"(?<![A-Za-z_])\{\s*\\(?:rm|mathrm|bf|it|text)\s*\{?([A-Za-z/ ]*)\}?\s*\}",
            r"\\mathrm{\1}",
        ),
        (r"\\mathrm\{ *(or|and) *\}", r" \1 "),
        (r"\\rm\s+([A-Za-z]+)", r"\\mathrm{\1}"),
        (r"(?<![A-Za-z])\{ ?(\\mathrm\{[A-Za-z]+\}(?: ?\^ ?\{?[0-9]\}?)?) ?\}", r"\1"),
        (
            r"\\(?:mathrm|text)\{([A-Za-z])\} ?\\(?:mathrm|text)\{([A-Za-z])\}",
            r"\\mathrm{\1\2}",
        ),
        (rf"\\(?:{_FONTS}){_END}\s*(?=\\)", ""),
        (r"(?<!\\)\{\}", ""),
        (r"\^ ?\{ ?\^ ?\\circ ?\}", r"^\\circ "),
        (r"(?<=[0-9]) ?\^ ?(?:\{ ?o ?\}|o(?![A-Za-z]))", r"^\\circ "),
        (r"\\bot(?![A-Za-z])", r"\\perp "),
        (r"\\big(cup|cap)(?![A-Za-z])", r"\\\1 "),
        (r"\\(?:textdegree|degree)(?![A-Za-z])", r"^\\circ "),
        (r"\\uppi(?![A-Za-z])", r"\\pi "),
        (r"\\prime", "'"),
        (r"\^ ?(?:\{ ?('(?: ?')?) ?\}|(?='))", r"\1"),
        (r"\\(?:overset|stackrel) ?\{ ?\\frown ?\}|\\(?:overparen|wideparen)", r"\\widehat"),
        (rf"\\(?:bigtriangleup|Delta){_END}(?= ?[A-Z])|\u0394(?=[A-Z])", r"\\triangle "),
        (
            rf"\{{([^{{}}]*)\\over{_END}([^{{}}]*)\}}|^([^{{}}]*)\\over{_END}([^{{}}]*)$",
            r"\\frac{\1\3}{\2\4}",
        ),
        (r"^\s*\\approx\s*", ""),
        (r"^\s*([A-Za-z])\s*\\approx\s*", r"\1="),
        (r"\\(?:dfrac|tfrac|cfrac)(?![A-Za-z])", r"\\frac"),
        (rf"\\frac ?(?!{_GROUP})(\\pi|[0-9A-Za-z])", r"\\frac{\2}"),
        (rf"\\frac ?{_GROUP} ?(\\pi|[0-9A-Za-z])", r"\\frac{\1}{\2}"),
        (r"\\backsim(?![A-Za-z])", r"\\sim "),
        (r"\\sim(?=\s*(?:\\triangle|[A-Z]{3}))", r"\\similar "),
        (r"\\(?:varnothing|empty)(?![A-Za-z])", r"\\emptyset "),
        (r"\\(?:textasciitilde|sim)(?![A-Za-z])\s*$", ""),
        (r"\\%", "%"),
        (r"\\colon(?![A-Za-z])", ":"),
        # words
        ("\u6216(?:\u8005)?", " or "),
        ("[\u548c\u4e14]", " and "),
        ("(?<=or)\\s*\u586b[\u5199\u5165\u6210\u4e3a]*", " "),
        (r"\\text(?:rm)?\s*\{\s*(or|and)\s*\}", r" \1 "),
        (r"(?<=[A-Za-z]) ?// ?(?=\\?[A-Za-z])", r" \\parallel "),
        (r"(?<![A-Za-z\\])(?:pi|Pi|PI)(?![A-Za-z])", r"\\pi "),
        (r"(?<![A-Za-z\\])(?:infinity|oo)(?![A-Za-z])", r"\\infty "),
        (r"(?<![A-Za-z\\])log([0-9]{1,2}) ?(?=\()", r"\\log_{\1}"),
        (
            rf"(?<![A-Za-z\\])(angle|triangle|sqrt|{_FUNCTIONS})(?![A-Za-z])",
            r"\\\1",
        ),
        (r"(?<![A-Za-z\\])sqrt(?=[0-9])", r"\\sqrt "),
        ("\u221a", r"\\sqrt "),
        (r"\\root\s*([0-9])\s*\\of\s*", r"\\sqrt[\1]"),
        (r"(?<=\\in) ?\\mathbf ?\{ ?R ?\}", r"\\mathbb{R}"),
        (r"\\mathbb ?([A-Z])", r"\\mathbb{\1}"),
        (r"\\lg(?![A-Za-z])", r"\\log_{10}"),
        ("\u221b", r"\\sqrt[3]"),
        ("\u221c", r"\\sqrt[4]"),
        # powers and products as programs and typists write them
        (r"(?<=[0-9A-Za-z)}])\*\* ?(-?[0-9]+|[A-Za-z])", r"^{\1}"),
        (r"\^ ?(-[0-9]+)", r"^{\1}"),
        (r"(?<=[0-9]) ?[xX] ?(?=10 ?\^)", r"\\times "),
        (r"(?<!\*)\*(?!\*)", r" \\cdot "),
        # what is named in front of a value
        (r"^([A-Za-z]) ?\( ?[a-z] ?\) ?(?==)", r"\1"),
        (r"^(?:line )?segment (?=[A-Z]{2}$)", ""),
        # one base or index in braces; of `\log_23` TeX takes one digit
        (r"\\log ?_ ?([0-9])([0-9]+)(?! *[0-9A-Za-z\\({])", r"\\log_{\1} \2"),
        (r"_([A-Za-z0-9])(?![A-Za-z0-9{])", r"_{\1}"),
        (r"_([0-9]+)(?![0-9{])", r"_{\1}"),
        (r"_\{ ?\(([0-9]+)\) ?\}", r"_{\1}"),
        *((rf"_\{{ ?(?:\\text ?\{{)? ?{word} ?\}}?\}}", rf"_{{{n}}}") for word, n in _BASES),
        (r"\s+", " "),
        # digits in groups of three
        (r"\{,\}", ","),
        (r"(?<![0-9.,_^}A-Za-z])([0-9]{1,3}(?: [0-9]{3})+)(?! ?[0-9/])", "DIGITS"),
        (r"(?<=\.)([0-9]{3}(?: [0-9]{3})+)(?! ?[0-9/])", "DIGITS"),
        # mixed numbers
        (r"(?<![0-9.,_^}A-Za-z])([0-9]+) ([0-9]+) ?/ ?([0-9]+)(?![0-9.])", r"\1\\frac{\2}{\3}"),
    )
)
_WRAPPED_POINTS = re.compile(r"\\(?:text|textrm|mathrm|mathbf|mathit|rm)\s*\{ ?([A-Z]{2,4}'?) ?\}")
_WRAPPED_MATHS = re.compile(
    r"\\(?:text|textrm|textbf|mathrm|mathbf|mathit|boldsymbol|bm|vec|overrightarrow|mathsf|rm)\s*"
    r"\{\s*(\\?[A-Za-z]|\\[A-Za-z]+|[-+]?[0-9][0-9.,]*|\.[0-9]+)\s*\}"
)
_FONT_GROUP = re.compile(r"\\(?:boldsymbol|bm)\s*\{")
_FONT_LETTER = re.compile(r"\\(?:boldsymbol|bm|mathbf|mathrm|vec|overrightarrow)\s+([A-Za-z0-9])")
_ROOT = re.compile(r"(\\sqrt(?:\[[0-9]+\])?)\s*(?:\(|([0-9]+))")
_REPEATING = re.compile(
    r"(?<![0-9])([0-9]+)\.([0-9]{0,6})(?:\\overline\s*\{([0-9]{1,9})\}|((?:\\dot\s*\{[0-9]\}|"
    r"\\dot\s*[0-9]){1,2})(?![0-9]))"
)
_UNIT = re.compile(
    rf"\\(?:SI|qty)\s*{_GROUP}\s*{_GROUP}|\\unit\s*\[([^\[\]]*)\]\s*{_GROUP}|\\(?:unit|si)\s*{_GROUP}"
)
_MACRO = re.compile(r"\\(square|cubic|squared|cubed|per|[A-Za-z]+)")
_PLAIN_SET = re.compile(r"\{(\s*[A-Za-z]\s*(?:\||:|\\mid).*|[^{}]*,[^{}]*)\}", re.DOTALL)
_OUTWARD = re.compile(r"([\[\]])([^\[\](){}]{1,64}[,;][^\[\](){}]{1,64})([\[\]])")
_LARGE = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12, "\u4e07": 4,
          "\u4ebf": 8}  # fmt: skip
_LARGE_NUMBER = re.compile(
    rf"(?<![0-9A-Za-z.,^_}}])([0-9]{{1,12}}(?:,[0-9]{{3}}){{0,3}}(?:\.[0-9]{{1,12}})?)[\s~]*"
    rf"(?:\\{_TEXTS}\s*\{{\s*)?({'|'.join(_LARGE)})s?(?![A-Za-z])\s*\}}?"
)
_CIRCLED = re.compile("(?:[\u2460-\u2473](?:\\s|[,;\u3001\uff0c]|and|\u548c|\u4e0e)*)+")
_CONNECTED = re.compile(r"\s*(?:(?:or|and|,|;|\u6216|\u548c|\u3001)\s*)+")


_DOUBLE_ROOT = re.compile(r"([a-z]) ?_\{ ?1 ?\} ?= ?\1 ?_\{ ?2 ?\} ?=")
_BINOMIAL = re.compile(r"\\[dt]?binom ?\{ ?([0-9]{1,2}) ?\} ?\{ ?([0-9]{1,2}) ?\}")


def _chosen(match: re.Match[str]) -> str:
    return f" {math.comb(int(match[1]), int(match[2]))} "


def _joined(match: re.Match[str]) -> str:
    return match[1].replace(" ", "")


def _unspaced(match: re.Match[str]) -> str:
    return rf" \mathrm{{{match[1].replace(' ', '')}}}"


_CALLED: dict[str, str | Callable[[re.Match[str]], str]] = {"DIGITS": _joined, "SPACED": _unspaced}


def plain_latex(text: str) -> str:
    """Spell the text the one way; linear in its length but for braces, so cap it first."""
    text = html.unescape(text) if "&" in text else text
    if held := _PLAIN_SET.fullmatch(text.strip()):
        text = rf"\{{{held[1]}\}}"
    text = undress(text)
    if turned := _OUTWARD.fullmatch(text):
        text = f"{_INWARD[turned[1], 0]}{turned[2]}{_INWARD[turned[3], 1]}"
    text = _LARGE_NUMBER.sub(_written_out, text)
    text = _RAISED.sub(lambda m: f"^{{{m[0].translate(_PLAIN_DIGITS)}}}", fold(text))
    text = _UNIT.sub(_unit_text, _one_formula(text.translate(_CHARACTERS)))
    if _CIRCLED.fullmatch(text):
        text = _circled(text)
    for pattern, replacement in _REWRITES:
        text = pattern.sub(_CALLED.get(replacement, replacement), text)
    text = _BINOMIAL.sub(_chosen, text)
    text = _REPEATING.sub(_fraction, text)
    text = _unfenced_fonts(text)
    return undress(_DOUBLE_ROOT.sub(r"\1=", _roots(_without_idle_braces(text))))


def without_fonts(latex: str) -> str:
    r"""Take `\mathrm{}` and its kin off single names and numbers, once units are gone."""
    latex = _WRAPPED_MATHS.sub(r" \1 ", _WRAPPED_POINTS.sub(r"\1", latex))
    return _FONT_LETTER.sub(r" \1", latex).strip()


def _one_formula(text: str) -> str:
    """Join formulas that a connective, a comma or a unit sets apart; others keep their dollars."""
    pieces = text.split("$")
    if len(pieces) < 3 or len(pieces) % 2 == 0 or "" in pieces[1:-1:2]:
        return text
    between = pieces[2:-1:2]
    if pieces[0].strip() or not all(_CONNECTED.fullmatch(piece) for piece in between):
        return text
    return "".join(pieces)


def _unit_text(match: re.Match[str]) -> str:
    """What a package writes of a number and its unit, or of a unit, with the unit as a text."""
    number, unit = match[1] or match[3] or "", match[2] or match[4] or match[5] or ""
    plain = _MACRO.sub(lambda m: _UNIT_WORDS.get(m[1], m[1]), unit)
    return rf"{number} \text{{ {plain.replace('{', '').replace('}', '')}}}"


_UNIT_WORDS = {"per": "/", "square": "square ", "cubic": "cubic ", "squared": " squared",
               "cubed": " cubed"}  # fmt: skip


_INWARD = {("[", 0): "[", ("]", 0): "(", ("]", 1): "]", ("[", 1): ")"}
"""Brackets of an interval as they open and close it: turned outward, the end is left out."""


def _written_out(match: re.Match[str]) -> str:
    """`3.5 million` in digits."""
    value = Decimal(match[1].replace(",", "")).scaleb(_LARGE[match[2]])
    brace = "}" if match[0].count("}") > match[0].count("{") else ""
    return f"{value.normalize():f} {brace}"


def _circled(text: str) -> str:
    """Numbered statements, each named once, as the set of them; otherwise the text as it is."""
    named = [ord(c) - 0x245F for c in text if "\u2460" <= c <= "\u2473"]
    if len(set(named)) < len(named):
        return text
    listed = ",".join(rf"\odot_{{{number}}}" for number in sorted(named))
    return listed if len(named) == 1 else rf"\{{{listed}\}}"


def _fraction(match: re.Match[str]) -> str:
    """A repeating decimal as a fraction; of two dots the digits between them repeat."""
    whole, head, bar, dots = match.groups()
    period = bar or re.sub(r"[^0-9]", "", dots)
    scale = 10 ** len(head)
    nines = (10 ** len(period) - 1) * scale
    value = int(whole + head) * (10 ** len(period) - 1) + int(period)
    return rf"\frac{{{value}}}{{{nines}}}"


def _unfenced_fonts(text: str) -> str:
    r"""`\boldsymbol{...}` around a formula comes off."""
    while match := _FONT_GROUP.search(text):
        end = closing_brace(text, match.end())
        if end < 0:
            break
        text = f"{text[: match.start()]} {text[match.end() : end]}{text[end + 1 :]}"
    return text


def _roots(text: str) -> str:
    r"""Write `\sqrt(3)`, `\sqrt 3` and `\sqrt12` with braces; the last as the root of 12 is not.

    LaTeX takes one digit, so `\sqrt12` is left; a plain `sqrt12` has got a space by now.
    """
    out, at = [], 0
    while match := _ROOT.search(text, at):
        out.append(text[at : match.start()] + match[1])
        if match[2]:
            glued = text[match.start(2) - 1] != " " and len(match[2]) > 1
            out.append(match[2] if glued else f"{{{match[2]}}}")
            at = match.end()
            continue
        end = _closing_parenthesis(text, match.end())
        if end < 0:
            out.append(text[match.end() - 1 :])
            return "".join(out)
        out.append(f"{{{text[match.end() : end]}}}")
        at = end + 1
    return "".join([*out, text[at:]])


def _closing_parenthesis(text: str, start: int) -> int:
    depth = 1
    for at in range(start, len(text)):
        depth += (text[at] == "(") - (text[at] == ")")
        if not depth:
            return at
    return -1


_TAKES = re.compile(
    r"\\(?!(?:circ|pi|times|cdot|div|pm|mp|leq|geq|neq|cup|cap|in|infty)$)[A-Za-z]+$"
)


def _without_idle_braces(text: str) -> str:
    """Take braces off where they are no argument and hold no sum, so that nothing binds anew."""
    at = 0
    while (at := text.find("{", at)) >= 0:
        before = text[:at].rstrip()
        end = closing_brace(text, at + 1)
        if end < 0:
            break
        inner, after = text[at + 1 : end], text[end + 1 :].lstrip()[:1]
        argument = before.endswith(("}", "^", "_", "]", "\\")) or _TAKES.search(before)
        atom = re.fullmatch(r"\s*(?:[0-9.]+|\\?[A-Za-z]|\\[A-Za-z]+)\s*", inner)
        product = not re.search(r"[-+,<>=|:]|\\[a-z]+eq|\\pm", inner) and after not in ("^", "_")
        if argument or not (atom or product):
            at += 1
            continue
        text = f"{text[:at]}{inner}{text[end + 1 :]}"
    return text
