r"""Units and counters behind numbers: `km/h`, `\text{cm}^2`, `square metres`, `$5`, `360 sets`.

A unit is a product of powers of known names; it is written canonically, as `km*h^-1`. A counter
is any other word or two behind a plain number; it is written `#set`, by its last word.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

_NAMES = {
    spelling: names[0]
    for names in (
        ("mm", "millimeter", "millimetre", "\u6beb\u7c73"),
        ("cm", "centimeter", "centimetre", "\u5398\u7c73"),
        ("dm", "decimeter", "decimetre", "\u5206\u7c73"),
        ("m", "meter", "metre", "\u7c73"), ("km", "kilometer", "kilometre", "\u5343\u7c73",
         "\u516c\u91cc"), ("nm", "nanometer", "nanometre"), ("um", "\u03bcm", "micrometer"),
        ("in", "inch", "inches", "in."), ("ft", "foot", "feet", "ft."), ("yd", "yard"),
        ("mi", "mile"), ("nmi", "\u6d77\u91cc"), ("mg", "milligram"), ("g", "gram", "\u514b"),
        ("kg", "kilogram", "\u5343\u514b", "\u516c\u65a4"), ("t", "ton", "tonne", "\u5428"),
        ("lb", "lbs"), ("oz", "ounce"), ("ms", "millisecond"), ("s", "sec", "second", "\u79d2"),
        ("min", "minute", "\u5206\u949f"), ("h", "hr", "hour", "\u5c0f\u65f6"),
        ("day", "\u5929"), ("week",), ("month",), ("year", "yr", "\u5e74"),
        ("l", "L", "liter", "litre", "\u5347"),
        ("ml", "mL", "milliliter", "millilitre", "\u6beb\u5347"),
        ("ha", "hectare", "\u516c\u9877"), ("acre",), ("degree", "deg", "\u5ea6"),
        ("rad", "radian"), ("celsius", "\u2103"), ("fahrenheit", "\u2109"), ("K", "kelvin"),
        ("N", "newton"), ("J", "joule"), ("kJ", "kilojoule"), ("W", "watt"), ("kW", "kilowatt"),
        ("V", "volt"), ("A", "ampere", "amp"), ("mA",), ("ohm", "\u03a9", "\u2126", "\\Omega"),
        ("Pa", "pascal"), ("kPa",), ("MPa",), ("Hz", "hertz"), ("kHz",), ("MHz",), ("mol", "mole"),
        ("C", "coulomb"), ("F", "farad"), ("T", "tesla"), ("eV",), ("cal", "calorie"), ("kcal",),
        ("dollar", "usd", "USD"), ("cent", "\u00a2"), ("euro", "\u20ac", "EUR"),
        ("pound", "\u00a3", "GBP"), ("yuan", "\u5143", "RMB", "CNY"), ("yen", "JPY"),
        ("rupee", "\u20b9"), ("unit",),
    )
    for name in names
    for spelling in ({name, name + "s"} if name.isascii() and len(name) > 2 else {name})
}  # fmt: skip
_NAMES.update({"cms": "cm", "mms": "mm", "kms": "km", "kgs": "kg", "hrs": "h", "mins": "min"})
_COMPOUND = {"mph": {"mi": 1, "h": -1}, "kph": {"km": 1, "h": -1}, "kmh": {"km": 1, "h": -1},
             "kmph": {"km": 1, "h": -1}, "fps": {"ft": 1, "s": -1}}  # fmt: skip
_RAISED = {"square": 2, "sq": 2, "sq.": 2, "\u5e73\u65b9": 2, "cubic": 3, "cu": 3, "cu.": 3,
           "\u7acb\u65b9": 3, "squared": 2, "cubed": 3}  # fmt: skip
_TIMES = ("*", r"\cdot", r"\times")
_BARE = frozenset("mgshlLNJWVAK")  # single letters that are units without markup, behind "5 "
_MARKUP = "\\\u2103\u2109\u00a2\u20ac\u00a5\u20b9"
COUNTER = "#"
"""How the name of what is counted begins."""
NAMELESS = ("unit", "unit^2", "unit^3")
"""Units that say only that there is one."""

_WRAPPED = re.compile(
    r"\\(?:text|textrm|textup|mathrm|mbox|rm|operatorname|mathit|textit|textbf|mathbf)\s*"
    r"\{([^{}]{0,40})\}"
)
_NAUTICAL = re.compile(r"\bn(?:autical)?\.?\s+miles?\b")
_NO_DIGIT = re.compile(r"[\^{}\s]")
_TOKEN = re.compile(
    r"\s*(?:(?P<op>/|\*|\\cdot(?![A-Za-z])|\\times(?![A-Za-z])|per(?![a-z])|\u6bcf)"
    r"|(?P<power>\^\s*(?:\{\s*[+-]?[1-9]\s*\}|[1-9]))"
    r"|(?P<prefix>(?:square|sq\.?|cubic|cu\.?)(?![a-z])|\u5e73\u65b9|\u7acb\u65b9)"
    r"|(?P<name>\\Omega|[A-Za-z\u03bc\u03a9\u2126]+\.?|[\u2103\u2109\u00a2\u00a3\u20ac\u20b9\u00a5]"
    r"|[\u4e00-\u9fff]{1,2})(?P<digit>[23](?![0-9]))?)\s*"
)
_CURRENCY = re.compile(
    r"^(?P<sign>[-+]?)\s*(?P<mark>(?:US|HK)?\s*\\?\$|USD|EUR|GBP|RMB|CNY|\u20ac|\u00a3|\u00a5|\u20b9|"
    r"\\(?:euro|pounds|yen)(?![A-Za-z]))\s*(?P<rest>[-+]?\.?[0-9].*)$",
    re.DOTALL,
)
_MARKS = {"USD": "dollar", "EUR": "euro", "GBP": "pound", "RMB": "yuan", "CNY": "yuan",
          "\u20ac": "euro", "\u00a3": "pound", "\u00a5": "yuan", "\u20b9": "rupee",
          r"\euro": "euro", r"\pounds": "pound", r"\yen": "yuan"}  # fmt: skip
_ENCLOSED = re.compile(r"^(.*[0-9})]) ?\( ?((?:\\|[A-Za-z]{2})[^()]*)\)$")
_NUMBER_HEAD = re.compile(
    r"[-+]?(?:(?:[0-9]+ ?)?\\[dtc]?frac\{[0-9]+\}\{[0-9]+\}|[0-9]+/[0-9]+|[0-9]+(?:[.,][0-9]+)*)"
)
_WORDS = re.compile(
    r"(?P<gap>\s*)(?P<words>[A-Za-z]{3,16}(?: [A-Za-z]{3,16})?|[\u4e00-\u9fff]{1,4})"
)
_NO_COUNTERS = """
and or not nor but the is are was one two three pi sin cos tan cot sec csc log exp sqrt inf infty
infinity nan none null true false maybe about approximately if then for all any plus minus times
over divided mod frac cdot wrong right correct incorrect thousand hundred million billion trillion
percent
"""
_LONGEST = 64


def take_unit(latex: str) -> tuple[str, str]:
    """Split the unit or counter off one value; "" if there is none."""
    found = _CURRENCY.match(latex)
    if found:
        mark = found["mark"].replace("\\$", "$").replace(" ", "")
        rest, behind = take_unit(found["rest"])
        name = "dollar" if mark.endswith("$") else _MARKS[mark]
        if not behind or behind == name:
            return found["sign"] + rest, f"HK{name}" if mark.startswith("HK") else name
    enclosed = _ENCLOSED.search(latex)
    if enclosed and (name := _unit_of(enclosed[2], enclosed[1])):
        return enclosed[1].rstrip(), name
    for at in _places(latex):
        name = _unit_of(latex[at:], latex[:at])
        if name:
            return latex[:at].rstrip(), name
    return _take_counter(latex)


def _places(latex: str) -> list[int]:
    """Where a unit may begin, the longest first: behind a number, a bracket or a space."""
    first = max(1, len(latex) - _LONGEST)
    return [
        at
        for at in range(first, len(latex))
        if latex[at - 1] in "0123456789})] " or latex[at] in _MARKUP or latex[at] > "\u2e7f"
        if latex[at] not in " 0123456789^_{}()[]+-=,.|/*"
    ]


def _unit_of(text: str, before: str) -> str:
    """The canonical unit that the text is; "" if it is none, or might be a variable."""
    plain = _NAUTICAL.sub("nmi", _WRAPPED.sub(r" \1 ", text).strip())
    powers = _powers(plain)
    if text[0] not in _MARKUP and powers:
        behind_a_number = before.rstrip()[-1:] in set("0123456789})]")
        if len(plain) == 1 and plain.isascii():
            powers = powers if plain in _BARE and before[-1] == " " and behind_a_number else {}
        elif not (before[-1] == " " or behind_a_number):
            return ""
    return "*".join(
        name if power == 1 else f"{name}^{power}" for name, power in sorted(powers.items())
    )


def _powers(text: str) -> dict[str, int]:
    """The exponent of every unit name in a product or quotient; empty if the text is none."""
    found: Counter[str] = Counter()
    factor: Mapping[str, int] = {}
    side = raised = 1
    at, open_end = 0, True
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            return {}
        at = match.end()
        if match["op"]:
            if open_end:
                return {}
            side, open_end = (1 if match["op"] in _TIMES else -1), True
        elif match["prefix"]:
            raised, open_end = _RAISED[match["prefix"]], True
        elif match["power"] or match["name"] in _RAISED:
            power = _RAISED.get(match["name"]) or int(_NO_DIGIT.sub("", match["power"]))
            found.update({name: own * (power - 1) for name, own in factor.items()})
            if open_end or not factor:
                return {}
            factor = {}
        else:
            raised *= int(match["digit"] or 1)
            factor = {name: own * side * raised for name, own in _named(match["name"]).items()}
            if not factor:
                return {}
            found.update(factor)
            side, raised, open_end = 1, 1, False
    return {} if open_end else {name: power for name, power in found.items() if power}


def _named(name: str) -> Mapping[str, int]:
    spellings = (name, name.removesuffix("."), name.lower() if len(name) > 1 else name)
    for spelling in spellings:
        if spelling in _NAMES:
            return {_NAMES[spelling]: 1}
        if spelling in _COMPOUND:
            return _COMPOUND[spelling]
    return {}


def _take_counter(latex: str) -> tuple[str, str]:
    plain = _WRAPPED.sub(r" \1 ", latex).rstrip()
    head = _NUMBER_HEAD.match(plain)
    rest = _WORDS.fullmatch(plain, head.end()) if head else None
    if head is None or rest is None:
        return latex, ""
    words = rest["words"].lower().split()
    if words != ["times"] and not set(_NO_COUNTERS.split()).isdisjoint(words):
        return latex, ""
    return head[0], f"{COUNTER}{_singular(words[-1])}"


def _singular(word: str) -> str:
    if word == "people":
        return "person"
    for plural, single in (("ies", "y"), ("ches", "ch"), ("shes", "sh"), ("xes", "x"), ("s", "")):
        if word.endswith(plural) and not word.endswith("ss") and len(word) > len(plural) + 2:
            return word[: -len(plural)] + single
    return word
