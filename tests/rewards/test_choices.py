"""Letters of options: what is one answer, what is several, and MMMU's reading."""

from __future__ import annotations

import time

import pytest

from mmrl.rewards.choices import (
    Choice,
    choice_of,
    choice_of_text,
    format_options,
    mmmu_letter,
    parse_letter,
    parse_letters,
    parse_option_text,
    strip_letters,
)

OPTIONS = ("cat", "dog", "C", "bird")


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        (" (B)\n", "B"),
        ("B.", "B"),
        ("B)", "B"),
        ("D:", "D"),
        ("C", "C"),
        ("**B**", "B"),
        ("$B$", "B"),
        (r"\text{B}", "B"),
        (r"\mathrm{B}", "B"),
        (r"\textbf{(B)}", "B"),
        (r"\text{(B)}", "B"),
        (r"\(B\)", "B"),
        ("`B`", "B"),
        ("\uff22", "B"),
        ("\uff08B\uff09", "B"),
        ("B\u3002", "B"),
        ("option B", "B"),
        ("Option (B).", "B"),
        ("choice B", "B"),
        ("b", "B"),
        ("\u9009B", "B"),
        ("\u9009\u9879 B", "B"),
        ("Answer: **B**", "B"),
        ("**B.** dog", "B"),
        ("B. dog", "B"),
        ("B) dog", "B"),
        ("B: Dog.", "B"),
        ("(B)  Dog", "B"),
        ("B\u3001dog", "B"),
        ("dog", "B"),
        ("DOG", "B"),
        (" dog.", "B"),
        (r"\text{dog}", "B"),
        ("A cat", "A"),
        ("[B]", "B"),
        ("B - dog", "B"),
        ("B \u2013 dog", "B"),
        ("dog (B)", "B"),
        (r"\textbf{(B)}~dog", "B"),
        (r"\textbf{(B)}\ dog", "B"),
        ("Final answer: (B)", "B"),
        ("the correct option is B", "B"),
        ("\u7b54\u6848\u662fB", "B"),
        ("_B_", "B"),
        ("<B>", "B"),
    ],
)
def test_one_letter_is_read(text: str, letter: str) -> None:
    assert parse_letter(text, OPTIONS).value == letter


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("E", "malformed"), ("dogs", "malformed"), ("\u0412", "malformed"),
        ("A dog", "malformed"), ("B. cat", "malformed"), ("Answer: D or B", "malformed"),
        ("Definitely not B", "malformed"), ("((B))", "malformed"),
        ("", "malformed"), ("A, B", "multiple"), ("A or B", "multiple"), ("AB", "multiple"),
        ("ABCD", "multiple"), ("A B", "malformed"),
        ("cat (B)", "malformed"), ("B - cat", "malformed"), ("B-", "malformed"),
        ("answer is dog or cat", "malformed"), ("A - B", "malformed"),
    ],
)  # fmt: skip
def test_anything_else_is_none(text: str, status: str) -> None:
    parsed = parse_letter(text, OPTIONS)
    assert (parsed.status, parsed.value) == (status, None)


def test_a_letter_goes_with_its_own_option_only() -> None:
    assert parse_letter("B. dog", OPTIONS).value == "B"
    assert parse_letter("(B)  Dog", OPTIONS).value == "B"
    assert parse_letter("B. cat", OPTIONS).value is None
    assert parse_letter("A dog", OPTIONS).value is None


def test_option_text_must_name_one_option() -> None:
    assert parse_option_text("  DOG ", OPTIONS).value == "B"
    assert parse_option_text("", OPTIONS).status == "malformed"
    assert parse_option_text("dog or cat", OPTIONS).status == "malformed"
    assert parse_option_text("DOG", ("dog", "Dog")).status == "multiple"
    assert parse_option_text("Dog", ("dog", "Dog")).value == "B"
    assert parse_letter("c", ("a", "b", "d", "c")).status == "multiple"
    assert parse_letter("x^2", ("$x_2$", "$x^{2}$")).value == "B"
    assert parse_letter("60", (r"$30^\\circ$", r"$60^\\circ$")).value is None


def test_an_options_number_is_its_letter_in_any_spelling() -> None:
    options = (r"$\frac{1}{2}$", "60\u00b0", "1,500 m", "25 %")
    for text, letter in (("1/2", "A"), ("0.5", "A"), ("60", "B"), (r"60^\circ", "B"),
                         ("1500", "C"), ("1500 m", "C"), ("1500 cm", None), ("25%", "D"),
                         ("2/4", "A")):  # fmt: skip
        assert parse_letter(text, options).value == letter, text
    assert parse_letter("5", ("5 cm", "5 m")).value is None
    assert parse_letter("5", ("5 cm", "5")).value == "B"


def test_gold_must_name_an_option() -> None:
    assert Choice(OPTIONS, "D").text == "bird"
    assert choice_of_text(OPTIONS, "dog").letter == "B"
    with pytest.raises(ValueError, match="names none of 4"):
        Choice(OPTIONS, "E")
    with pytest.raises(ValueError, match="none of the options"):
        choice_of_text(OPTIONS, "")
    with pytest.raises(ValueError, match="2 options read"):
        choice_of_text(("x", "x"), "x")
    with pytest.raises(ValueError, match="0 options"):
        format_options(())


@pytest.mark.parametrize(
    "text",
    ["A,C", "A, C", "AC", "CA", "A and C", "A\u3001C", "(A)(C)", "(A), (C)", "A;C",
    r"\text{A, C}", "**AC**",
     "[A, C]", '["A", "C"]', "['A', 'C']", r"\{A, C\}", "A\u548cC", "A\u4e0eC", "A + C", "A|C",
     "A\nC", "ac",
     "Options A and C", "\u9009AC", "(A) and (C)", "the answers are A and C",
     "cat, C", "A. cat; C. C", "\uff21\uff0c\uff23", "Options: A, C"],
)  # fmt: skip
def test_sets_of_letters_are_read_in_any_order(text: str) -> None:
    several = choice_of(OPTIONS, "A,C")
    assert several.letter == "AC" and several.instruction != Choice(OPTIONS, "A").instruction
    assert several.read(text.removeprefix("Options: ")).value == "AC"
    assert choice_of(OPTIONS, text.removeprefix("Options: ")).letter == "AC"


@pytest.mark.parametrize("text", ["A", "A, B", "A or C", "A, A, C", "ABCD", "AACC", "A, C, E", ""])
def test_other_sets_are_not_right(text: str) -> None:
    assert choice_of(OPTIONS, "A,C").read(text).value != "AC"
    assert parse_letters("A, A, C", OPTIONS).status == "malformed"


@pytest.mark.parametrize(
    "gold", ["B", "B.", "(B)", "B. dog", "b", "dog", "**B**", r"\text{B}", "\uff22"]
)
def test_golds_are_read_like_answers(gold: str) -> None:
    assert choice_of(["A. cat", "B. dog"], gold) == Choice(("cat", "dog"), "B")


@pytest.mark.parametrize("gold", ["C", "bird", "A or B", "", "B. cat", "the answer"])
def test_golds_that_name_no_option_are_refused(gold: str) -> None:
    with pytest.raises(ValueError, match="names none"):
        choice_of(["A. cat", "B. dog"], gold)


def test_every_options_own_text_is_its_letter() -> None:
    for options in (
        ("$60^\\circ$", "$90^\\circ$", "$30^\\circ$"), ("1", "2", "1/2", "-1"), ("x^2", "x_2",
        "2x"),
        (r"$\frac{1}{4}$", "4", "0.4"), ("5 cm", "5 m", "5"), ("Yes", "No"), ("dog", "Dog"),
        ("\u5317\u4eac", "\u4e0a\u6d77"), ("A and B", "only A", "B or C"), ("10%", "10", "0.1"),
        ("[1, 2]", "(1, 2)"), ("1, 2", "2, 1, 3"),
    ):  # fmt: skip
        for letter, option in zip("ABCD", options, strict=False):
            for dressed in (option, f"**{option}**", rf"\text{{{option}}}", f"{letter}. {option}"):
                assert parse_letter(dressed, options).value == letter, (options, dressed)


def test_letters_come_off_only_where_all_carry_theirs() -> None:
    assert strip_letters(["A. cat", "B. dog"]) == ("cat", "dog")
    assert strip_letters(["(A) cat", "(B) dog"]) == ("cat", "dog")
    assert strip_letters(["A. cat", "C. dog"]) == ("A. cat", "C. dog")
    assert strip_letters(["A.5", "B.6"]) == ("5", "6")
    assert strip_letters(["A\u3001\u732b", "B\u3001\u72d7"]) == ("\u732b", "\u72d7")
    assert strip_letters(["\uff08A\uff09\uff11", "\uff08B\uff09\uff12"]) == ("\uff11", "\uff12")
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
        parse_letter(unit * 300_000, OPTIONS)
        mmmu_letter(unit * 300_000, OPTIONS)
    assert time.process_time() - started < 2.0
