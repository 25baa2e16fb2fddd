from __future__ import annotations

from decimal import Decimal

import pytest

from mmrl.rewards.numbers import NumberPolicy, close, parse_integer, parse_number


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", "5"), ("-5", "-5"), ("\u22125", "-5"), ("+5", "5"), (" 5 ", "5"), ("5.", "5"),
        (".5", "0.5"), ("-.5", "-0.5"), ("1,000", "1000"), ("1,234,567.5", "1234567.5"),
        ("007", "7"), ("1e3", "1000"), ("2.5E-3", "0.0025"), ("0", "0"),
        ("**5**", "5"), ("$5$", "5"), (r"\text{5}", "5"), ("\uff15", "5"), ("5\u3002", "5"),
        (r"1\,000\,000", "1000000"), ("1 234.5", "1234.5"), ("`5`", "5"), ("\uff0d5", "-5"),
    ],
)  # fmt: skip
def test_numbers(text: str, value: str) -> None:
    assert parse_number(text).value == Decimal(value)


@pytest.mark.parametrize(
    "text",
    [
        "five", "5 apples", "5 6", "1,00", "1,0000", ",5", "1,,000", "1.2.3", "--5", "- 5", ".",
        "+", "NaN", "nan", "inf", "-Infinity", "\u221e", "0x10", "1_000", "5%", "\u0665", "\u096b",
        "1e999", "1e-999", "9" * 40, "0." + "0" * 40 + "1", "1" * 100, "5\x00", "1e", "e5",
    ],
)  # fmt: skip
def test_not_numbers(text: str) -> None:
    parsed = parse_number(text)
    assert (parsed.status, parsed.value) == ("malformed", None)
    assert parsed.reason


def test_empty_is_missing() -> None:
    assert parse_number(" ").status == "missing"


def test_policies() -> None:
    assert parse_number("10%", NumberPolicy(percent="value")).value == Decimal("0.1")
    assert parse_number("10 %", NumberPolicy(percent="ignore")).value == Decimal(10)
    assert parse_number("1,000", NumberPolicy(commas=False)).value is None
    assert parse_number("1e3", NumberPolicy(exponent=False)).value is None
    assert parse_number("\uff11\uff12", NumberPolicy(unicode_digits=True)).value == 12
    assert parse_number("\u2460", NumberPolicy(unicode_digits=True)).value is None


def test_integers() -> None:
    assert parse_integer("3").value == 3
    assert parse_integer("3.0").value == 3
    assert parse_integer("3.5").status == "malformed"
    assert parse_integer("three").status == "malformed"


def test_close_includes_its_bounds_and_never_divides_by_gold() -> None:
    assert close(Decimal("105"), 100, relative=0.05)
    assert not close(Decimal("105.01"), 100, relative=0.05)
    assert close(Decimal("-95"), -100, relative=0.05)
    assert close(0, 0) and not close(Decimal("0.01"), 0, relative=0.5)
    assert close(Decimal("0.01"), 0, absolute=0.01)
