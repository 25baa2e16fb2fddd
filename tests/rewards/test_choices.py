"""Letters of options: what is one answer, what is several, and MMMU's reading."""

from __future__ import annotations

import time

import pytest

from mmrl.rewards.choices import (
    Choice,
    choice_of_text,
    format_options,
    mmmu_letter,
    parse_letter,
    parse_option_text,
    strip_letters,
)

OPTIONS = ("cat", "dog", "C", "bird")


@pytest.mark.parametrize(
    ("text", "letter"),
    [("B", "B"), (" (B)\n", "B"), ("B.", "B"), ("B)", "B"), ("D:", "D"), ("C", "C")],
)
def test_one_letter_is_read(text: str, letter: str) -> None:
    assert parse_letter(text, OPTIONS).value == letter


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("E", "malformed"), ("b", "malformed"), ("\uff22", "malformed"), ("dog", "malformed"),
        ("A cat", "malformed"), ("B. cat", "malformed"), ("B. dog", "malformed"),
        ("Definitely not B", "malformed"), ("[B]", "malformed"), ("((B))", "malformed"),
        ("", "malformed"), ("A, B", "multiple"), ("A or B", "multiple"), ("AB", "multiple"),
        ("ABCD", "multiple"), ("A B", "malformed"),
    ],
)  # fmt: skip
def test_anything_else_is_none(text: str, status: str) -> None:
    parsed = parse_letter(text, OPTIONS)
    assert (parsed.status, parsed.value) == (status, None)


def test_with_text_takes_the_letters_own_option_only() -> None:
    assert parse_letter("B. dog", OPTIONS, with_text=True).value == "B"
    assert parse_letter("(B)  Dog", OPTIONS, with_text=True).value == "B"
    assert parse_letter("B. cat", OPTIONS, with_text=True).value is None
    assert parse_letter("A dog", OPTIONS, with_text=True).value is None


def test_option_text_must_name_one_option() -> None:
    assert parse_option_text("  DOG ", OPTIONS).value == "B"
    assert parse_option_text("", OPTIONS).status == "malformed"
    assert parse_option_text("dog or cat", OPTIONS).status == "malformed"
    assert parse_option_text("dog", ("dog", "Dog")).status == "multiple"


def test_gold_must_name_an_option() -> None:
    assert Choice(OPTIONS, "D").text == "bird"
    assert choice_of_text(OPTIONS, "dog").letter == "B"
    with pytest.raises(ValueError, match="names none of 4"):
        Choice(OPTIONS, "E")
    with pytest.raises(ValueError, match="0 of the options"):
        choice_of_text(OPTIONS, "")
    with pytest.raises(ValueError, match="2 of the options"):
        choice_of_text(("x", "x"), "x")
    with pytest.raises(ValueError, match="0 options"):
        format_options(())


def test_letters_come_off_only_where_all_carry_theirs() -> None:
    assert strip_letters(["A. cat", "B. dog"]) == ("cat", "dog")
    assert strip_letters(["(A) cat", "(B) dog"]) == ("cat", "dog")
    assert strip_letters(["A. cat", "C. dog"]) == ("A. cat", "C. dog")
    assert strip_letters(["A. Einstein", "dog"]) == ("A. Einstein", "dog")
    assert format_options(["cat", "dog"]) == "(A) cat\n(B) dog"


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("The answer is (B), not (A)", "A"),
        ("B", "B"),
        ("B.", "B"),
        ("(A) or ( B )", "A"),
        ("I would say A or else B then", "B"),
        ("I am quite sure it is a dog", "B"),
        ("it is surely a big dog", "B"),
        ("it is surely a dog", None),
        ("", None),
        ("B,C", None),
    ],
)
def test_mmmu_reads_like_the_official_parser(text: str, letter: str | None) -> None:
    assert mmmu_letter(text, ("cat", "dog", "cow")) == letter


def test_long_text_is_read_in_linear_time() -> None:
    started = time.process_time()
    for unit in ("A ", "(A", "A,", "dog "):
        parse_letter(unit * 300_000, OPTIONS, with_text=True)
        mmmu_letter(unit * 300_000, OPTIONS)
    assert time.process_time() - started < 2.0
