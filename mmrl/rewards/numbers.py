"""Numbers as models write them -> exact decimals, under a stated policy."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from mmrl.rewards.dress import undress
from mmrl.rewards.parsed import Parsed, malformed, ok

Percent = Literal["reject", "value", "ignore"]
"""What `10%` is: not a number, 0.1, or 10."""

_NUMBER = re.compile(
    r"(?P<sign>[+-]?)"
    r"(?P<integer>[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)?"
    r"(?P<fraction>\.[0-9]*)?"
    r"(?P<exponent>[eE][+-]?[0-9]{1,4})?"
    r"(?P<percent>\s*%)?"
)
_GAP = re.compile(r"\\[,!;: ]|\{,\}|~| ")
_GROUPS = re.compile(
    rf"(?<![0-9.])[0-9]{{1,3}}(?:(?:{_GAP.pattern})[0-9]{{3}})+(?![0-9])"
    rf"|(?<=\.)[0-9]{{3}}(?:(?:{_GAP.pattern})[0-9]{{3}})+(?![0-9])"
)
_DRESSED = 4  # times as long as itself that a number may be with what it wears


@dataclass(frozen=True, slots=True)
class NumberPolicy:
    """Which spellings are numbers.

    `commas` allows `1,000` (three digits a group; `1,00` is never a number). `unicode_digits`
    folds the decimal digits of every script to ascii. `dress` takes off what numbers wear in
    answers (`**5**`, `$5$`, full-width forms, `1 000`). `max_magnitude` is the largest power of ten
    either way, so that no later arithmetic explodes.
    """

    commas: bool = True
    percent: Percent = "reject"
    exponent: bool = True
    unicode_digits: bool = False
    dress: bool = True
    max_characters: int = 64
    max_magnitude: int = 30


def parse_number(text: str, policy: NumberPolicy = NumberPolicy()) -> Parsed[Decimal]:
    """Read text that is one number and nothing else; NaN and infinity are not numbers.

    Args:
        text: an answer region's text.
        policy: which spellings are numbers.

    Example:
        >>> parse_number("1,000.50").value, parse_number("10 or 11").status
        (Decimal('1000.50'), 'malformed')
    """
    text = text.strip().replace("\u2212", "-")
    if not text:
        return Parsed("missing", None, "empty number")
    if policy.dress and len(text) <= _DRESSED * policy.max_characters:
        text = _GROUPS.sub(_joined, undress(text))
    if len(text) > policy.max_characters:
        return malformed(f"number longer than {policy.max_characters} characters")
    match = _NUMBER.fullmatch(_fold_digits(text) if policy.unicode_digits else text)
    if match is None or not (match["integer"] or len(match["fraction"] or "") > 1):
        return malformed(f"not a number: '{text}'")
    for part, allowed in (("exponent", policy.exponent), ("percent", policy.percent != "reject")):
        if match[part] and not allowed:
            return malformed(f"{part} not allowed: '{text}'")
    if "," in (match["integer"] or "") and not policy.commas:
        return malformed(f"thousands commas not allowed: '{text}'")
    return _decimal(match, policy)


def parse_integer(text: str, policy: NumberPolicy = NumberPolicy()) -> Parsed[int]:
    """Read a number without a fractional part; `3.0` is an integer, `3.5` is malformed.

    Args:
        text: an answer region's text.
        policy: which spellings are numbers.

    Example:
        >>> ok("3.0").then(parse_integer).value
        3
    """
    return parse_number(text, policy).then(
        lambda n: ok(int(n)) if n == n.to_integral_value() else malformed(f"not an integer: {n}")
    )


def close(
    value: Decimal | float, gold: Decimal | float, *, absolute: float = 0.0, relative: float = 0.0
) -> bool:
    """Whether `abs(value - gold)` is within `absolute` or `relative * abs(gold)`, bounds included.

    A gold of 0 therefore needs an absolute tolerance or an exact answer.

    Args:
        value: what was said.
        gold: what is right.
        absolute: in the gold's own unit.
        relative: as a share of the gold.

    Example:
        >>> close(Decimal("95"), 100, relative=0.05), close(Decimal("94"), 100, relative=0.05)
        (True, False)
    """
    error = abs(Decimal(value) - Decimal(gold))
    return error <= max(Decimal(str(absolute)), Decimal(str(relative)) * abs(Decimal(gold)))


def write_number(value: float, digits: int) -> str:
    """Write a finite number rounded to that many decimals, without trailing zeros."""
    text = f"{value:.{digits}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def _decimal(match: re.Match[str], policy: NumberPolicy) -> Parsed[Decimal]:
    digits = (match["integer"] or "0").replace(",", "") + (match["fraction"] or "")
    value = Decimal(match["sign"] + digits + (match["exponent"] or ""))
    if value and abs(value.adjusted()) > policy.max_magnitude:
        return malformed(f"beyond 1e{policy.max_magnitude} or its inverse")
    if match["percent"] and policy.percent == "value":
        value = value.scaleb(-2)
    return ok(value)


def _joined(match: re.Match[str]) -> str:
    return _GAP.sub("", match[0])


def _fold_digits(text: str) -> str:
    return "".join(
        str(unicodedata.decimal(c)) if unicodedata.decimal(c, None) is not None else c for c in text
    )
