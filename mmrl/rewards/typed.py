"""One verifier per problem type, for data sets that mix types record by record.

The rules are Video-R1's (also SpaceR's and EchoInk's), chosen by the record's own type and never
by the first record of a batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from mmrl.rewards.choices import INSTRUCTION, Choice, choice_of, format_options
from mmrl.rewards.dress import undress
from mmrl.rewards.graded import tagged_solution
from mmrl.rewards.parsed import Parsed, malformed, ok
from mmrl.rewards.quantities import Quantity, pairs_of, parse_quantity
from mmrl.rewards.text import mean_rouge, normalize, wer, words, written_words
from mmrl.rewards.tolerance import linear_relative, mean_relative_accuracy, same_to_places

Kind = Literal["multiple choice", "yes/no", "numerical", "regression", "OCR", "free-form"]
_ALIASES = {"multiple-choice": "multiple choice", "mcq": "multiple choice", "ocr": "OCR",
            "free form": "free-form", "yes-no": "yes/no", "open-ended": "free-form"}  # fmt: skip

HINTS: Mapping[Kind, str] = {
    "multiple choice": INSTRUCTION,
    "yes/no": "The answer is yes or no.",
    "numerical": "The answer is a number.",
    "regression": "The answer is a number.",
    "OCR": "The answer is the text as it is written.",
    "free-form": "The answer is a short text.",
}
_DECIMALS = 2


@dataclass(frozen=True, slots=True)
class TypedGold:
    """A gold with its problem type; `options` only for multiple choice.

    Options lose their letters, and an answer that is an option's text or a letter in some dress
    becomes the letter.
    """

    kind: Kind
    answer: str
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"unknown problem type {self.kind!r}; known: {get_args(Kind)}")
        if self.kind == "multiple choice":
            choice = choice_of(self.options, self.answer)
            object.__setattr__(self, "options", choice.options)
            object.__setattr__(self, "answer", choice.letter)
        if self.kind in ("OCR", "free-form") and not words(self.answer):
            raise ValueError(f"gold {self.answer!r:.60} is no {self.kind} answer: no words")
        parsed, value = grade_typed(self.answer, self)
        if value != 1.0:
            raise ValueError(f"gold {self.answer!r:.60} is no {self.kind} answer: {parsed.reason}")

    @property
    def hint(self) -> str:
        """What kind of answer is asked for."""
        return self.choice.instruction if self.options else HINTS[self.kind]

    @property
    def choice(self) -> Choice:
        """The gold of a multiple-choice question."""
        return Choice(self.options, self.answer)

    @property
    def question_tail(self) -> str:
        """Options as lines, or nothing."""
        return f"\n{format_options(self.options)}" if self.options else ""


def typed_gold(fields: Mapping[str, Any], kind: str = "") -> TypedGold:
    """Read `problem_type`, `solution` (tags allowed) and `options` of a record.

    `kind` is the type of a record that names none.
    """
    kind = str(fields.get("problem_type") or kind or fields["problem_type"])
    options = tuple(map(str, fields.get("options") or ()))
    known: Any = _ALIASES.get(kind.lower(), kind)
    return TypedGold(
        known, tagged_solution(fields["solution"]), options if known == "multiple choice" else ()
    )


def grade_typed(
    text: str, gold: TypedGold, variant: Literal["strict", "code"] = "strict"
) -> tuple[Parsed[Any], float]:
    """How the text reads as an answer of the gold's type, and its value in [0, 1].

    `code`: numerical answers must agree on having a decimal point.
    """
    match gold.kind:
        case "multiple choice":
            letter = gold.choice.read(text)
            return letter, float(letter.value == gold.answer)
        case "yes/no":
            verdict = _yes_or_no(text)
            wanted = _yes_or_no(gold.answer).value
            return verdict, float(verdict.value is not None and verdict.value == wanted)
        case "numerical" | "regression":
            number = parse_quantity(text)
            return number, _grade_number(text, number.value, gold, variant)
        case "OCR":
            said, wanted_words = written_words(text), written_words(gold.answer)
            return ok(text), max(0.0, 1.0 - wer(said, wanted_words))
        case "free-form":
            return _free_form(text), mean_rouge(text, gold.answer)


def typed_metric(text: str, gold: TypedGold) -> float:
    """The benchmark's number of the same answer: regression by MRA, the rest as in training."""
    number = parse_quantity(text).value if gold.kind == "regression" else None
    if number is None:
        return grade_typed(text, gold)[1]
    pairs = pairs_of(number, _quantity(gold.answer))
    return max((mean_relative_accuracy(*pair, strict=True) for pair in pairs), default=0.0)


def _grade_number(
    text: str, said: Quantity | None, gold: TypedGold, variant: Literal["strict", "code"]
) -> float:
    wanted = parse_quantity(gold.answer).value
    pairs = pairs_of(said, wanted) if said and wanted else []
    if gold.kind == "regression":
        return max((linear_relative(*pair) for pair in pairs), default=0.0)
    if variant == "code" and ("." in text) != ("." in gold.answer):
        return 0.0
    return float(any(same_to_places(*pair, _DECIMALS) for pair in pairs))


def _quantity(text: str) -> Quantity:
    value = parse_quantity(text).value
    assert value is not None  # checked when the gold was made
    return value


def _yes_or_no(text: str) -> Parsed[str]:
    word = normalize(undress(text)).removesuffix(".")
    return ok(word) if word in ("yes", "no") else malformed(f"neither yes nor no: '{text:.40}'")


def _free_form(text: str) -> Parsed[Sequence[str]]:
    found = words(text)
    return ok(found) if found else malformed("no words")
