"""SRPO's reward: by hand, and nothing for what only looks like a reflection."""

from __future__ import annotations

import math

import pytest

from mmrl.rewards.reflection import brevity, effect, layout, second_right


def reflected(first: str, second: str, reflection: str = "I look again.") -> str:
    return (
        f"<think>one two</think><answer>{first}</answer>\n<reflection>{reflection}</reflection>\n"
        f"<think>three</think><answer>{second}</answer>"
    )


@pytest.mark.parametrize(
    ("first", "second", "paid", "right"),
    [("5", "4", 1.0, 1.0), ("4", "4", 0.75, 1.0), ("5", "6", 0.0, 0.0), ("4", "5", -0.25, 0.0)],
)
def test_a_reflection_is_paid_for_what_it_does(
    first: str, second: str, paid: float, right: float
) -> None:
    said = [reflected(first, second)]
    assert effect(["?"], said, ["4"]) == [paid]
    assert second_right(["?"], said, answer=["4"]) == [right]
    assert layout(["?"], said) == [1.0]


@pytest.mark.parametrize(
    "said",
    [
        "",
        "<think>a</think><answer>4</answer>",
        reflected("4", "4") + " trailing",
        reflected("4", "4") + "<answer>4</answer>",
        reflected("4", "4", reflection=" "),
        reflected("4", "<answer>4"),
        "<answer>4</answer>" * 2,
        "<think>" * 9_999,
    ],
)
def test_what_is_not_in_the_layout_earns_nothing(said: str) -> None:
    assert effect(["?"], [said], ["4"]) == [0.0]
    assert (layout(["?"], [said]), brevity(["?"], [said])) == ([0.0], [0.0])


def test_a_thought_may_compare_numbers() -> None:
    said = reflected("5", "4", reflection="3 < 5, so 4.")
    assert (layout(["?"], [said]), effect(["?"], [said], ["4"])) == ([1.0], [1.0])


def test_length_is_measured_against_the_first_answer() -> None:
    # First thought and answer: 3 words, so 6 in all are best; here 3 + 3 + 1 + 1 = 8 words:
    # exp(-((8 - 6) / 1.5)^2).
    assert brevity(["?"], [reflected("4", "4")]) == [pytest.approx(math.exp(-16 / 9))]
    assert brevity(["?"], [reflected("4", "4", reflection="Right.")]) == [1.0]
