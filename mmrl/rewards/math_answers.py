"""Gold that is either an option's letter or one mathematical expression."""

from __future__ import annotations

from dataclasses import dataclass

from mmrl.rewards.choices import Choice
from mmrl.rewards.dress import undress
from mmrl.rewards.expressions import Expression, parse_expression
from mmrl.rewards.math import MathPolicy, check_gold, same_value
from mmrl.rewards.parsed import Parsed
from mmrl.rewards.text import normalize


@dataclass(frozen=True, slots=True)
class Formula:
    """Gold of a free-form question: LaTeX or a number, as the data set writes it."""

    latex: str

    def __post_init__(self) -> None:
        check_gold(self.expression())

    def expression(self) -> Expression:
        """Read the gold; ValueError if it is not one expression."""
        parsed = parse_expression(self.latex)
        if parsed.value is None:
            raise ValueError(f"gold is not one expression: {parsed.reason}")
        return parsed.value


@dataclass(frozen=True, slots=True)
class Phrase:
    """Gold of a free-form question that is no mathematics: compared as text without case."""

    text: str

    def __post_init__(self) -> None:
        if not _text_key(self.text):
            raise ValueError("the gold is empty")


MathGold = Choice | Formula | Phrase


def free_form_gold(answer: str) -> Formula | Phrase:
    """The gold as a formula if it reads as one, else as a phrase; empty raises ValueError."""
    try:
        return Formula(answer)
    except ValueError:
        return Phrase(answer)


def grade_math(text: str, gold: MathGold, policy: MathPolicy) -> tuple[Parsed[str], bool]:
    """How the text reads as an answer of the gold's kind, and whether it is right."""
    if isinstance(gold, Choice):
        letter = gold.read(text)
        return letter, letter.value == gold.letter
    if isinstance(gold, Phrase):
        return Parsed("ok", text), _text_key(text) == _text_key(gold.text)
    expression = parse_expression(text)
    right = expression.value is not None and same_value(gold.expression(), expression.value, policy)
    return expression.then(lambda read: Parsed("ok", read.latex)), right


def _text_key(text: str) -> str:
    return normalize(undress(text))


def write_gold(gold: MathGold) -> str:
    """The answer region of a right answer."""
    match gold:
        case Choice():
            return gold.letter
        case Formula():
            return gold.latex
        case Phrase():
            return gold.text
