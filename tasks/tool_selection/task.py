"""VisTA: choose tools by index; a frozen model's answers with and without them are the judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import Field

from mmrl import task as contract
from mmrl.corpus.references import part_values
from mmrl.records import media_source
from mmrl.rewards.grammar import Region, TagAnswer, Think
from mmrl.rewards.math import LAZY_IMPORTS, MathPolicy
from mmrl.rewards.math_answers import free_form_gold, grade_math
from mmrl.rewards.numbers import NumberPolicy, close, parse_integer, parse_number
from mmrl.rewards.parsed import Parsed, malformed, ok
from mmrl.rewards.text import normalize
from mmrl.task import RewardPart
from mmrl.types import Answer, MediaRef, Observation, Record, Sample, Score, Text
from mmrl.validation import Section

_INDEX = NumberPolicy(commas=False, exponent=False, dress=False, max_characters=2)


class Reasoner(Section):
    """A frozen model that is asked as it is needed, and the tools it may be given."""

    url: str = Field(description="of a server in OpenAI's form, such as http://127.0.0.1:8000/v1")
    model: str = Field(description="the name that the server knows it by")
    tools: Mapping[str, str] = Field(
        description="functions of a picture that give a picture or a text, by the names that "
        "records give them: file.py:function or package.module:function"
    )
    key_variable: str | None = Field(None, description="environment variable with the API key")
    max_tokens: int = Field(512, gt=0, description="of its reply")
    timeout_seconds: float = Field(60.0, gt=0, description="for one reply")


@dataclass(frozen=True)
class Gold:
    """Whether the frozen model is right, by the tools it was given: `()` is without any.

    `right` is None where it is asked as it is needed.
    """

    right: Mapping[tuple[int, ...], bool] | None
    tools: int


Compare = Literal["chart", "math", "text"]
_SHOWN: Mapping[Compare, str] = {"chart": "chart", "math": "diagram", "text": "picture"}


@dataclass(frozen=True)
class Task(contract.Task):
    """Reads questions with the frozen model's pre-computed `answers` by tool set.

    `compare` says when the frozen model is right: within five percent of a number (charts), of
    equal mathematical value (Geometry3K), or with the same text (BlindTest). A choice whose
    outcome was not computed is unscorable. `variant` code gives unreadable choices 0 as VisTA does;
    by default they cost as much as a choice that does harm. With a `reasoner` records need no
    answers: it is asked with the tools that were chosen.
    """

    think: Think = "required"
    variant: Literal["strict", "code"] = "strict"
    compare: Compare = "chart"
    reasoner: Reasoner | None = None

    name: ClassVar[str] = "tool_selection"
    summary: ClassVar[str] = "choose the tools that let a frozen model answer a question"
    parts: ClassVar[dict[str, RewardPart]] = {
        "outcome": RewardPart(-0.5, 1.0),
        "format": RewardPart(0.0, 1.0, 0.0),
    }
    metric: ClassVar[str] = "accuracy_with_tools"
    keeps: ClassVar[contract.Keeps] = "noise"
    imports: ClassVar[tuple[str, ...]] = LAZY_IMPORTS
    world: ClassVar[str] = "mmrl.environments.frozen_model:frozen_model_of"

    def sample(self, record: Record) -> Sample:
        """Ask a record: `query`, `label`, `imgname`, `tools` (names), `answers` ({"0,3": text})."""
        fields = record.fields
        tools, label = [str(t) for t in fields["tools"]], str(fields["label"]).strip()
        if not label or not str(fields["query"]).strip():
            raise ValueError("a record needs a query and a label")
        picture = MediaRef("image", media_source(record, fields["imgname"]))
        if self.reasoner is None:
            gold = _read_gold(fields["answers"], label, len(tools), self.compare)
        else:
            gold = Gold(None, len(tools))
        listed = "\n".join(f"{i}: {name}" for i, name in enumerate(tools))
        grammar = TagAnswer(self.think)
        ask = (
            f"Question about the {_SHOWN[self.compare]}: {fields['query']}\n"
            "Tools that can help to answer it:\n"
            f"{listed}\n{grammar.instruction()} The answer is the indices of the tools to use, "
            "separated by commas."
        )
        useful = [chosen for chosen, right in (gold.right or {}).items() if chosen and right]
        return Sample(
            id=record.id,
            task=self.name,
            parts=(picture, Text(ask)),
            gold=gold,
            target=grammar.write(", ".join(map(str, useful[0]))) if useful else None,
            start=self._start(picture, str(fields["query"]), label, tools),
        )

    def _start(
        self, picture: MediaRef, query: str, label: str, tools: Sequence[str]
    ) -> Observation | None:
        """Where an episode of one choice begins, if the frozen model is live."""
        if self.reasoner is None:
            return None
        if unknown := [name for name in tools if name not in self.reasoner.tools]:
            raise ValueError(f"reasoner.tools has no '{unknown[0]:.40}'")
        start = {"picture": part_values(picture), "query": query, "label": label, "names": tools}
        return Observation({"start": start, "actions": []}, key="start")

    def step(self, gold: Any, state: Any, answer: Answer) -> Observation:
        """Read the choice; the frozen model is asked with it outside of the scoring workers."""
        chosen = self._chosen(gold, answer)[1].value
        if chosen is None:
            return Observation(state, "unreadable", done=True)
        actions = [*state["actions"], {"tools": list(chosen)}]
        return Observation({**state, "actions": actions}, f"{chosen}", done=True)

    def score(self, gold: Any, answer: Answer) -> Score:
        """1 if the frozen model is right with the tools, -0.5 if only without, else 0."""
        region, chosen = self._chosen(gold, answer)
        if chosen.value is None:
            unread = 0.0 if self.variant == "code" else -0.5
            return Score({"outcome": unread, "format": 0.0}, 0.0, chosen.status, chosen.reason)
        outcome = OUTCOMES[_verdict(gold, chosen.value, answer)]
        return Score({"outcome": outcome, "format": float(region.well_formed)}, float(outcome == 1))

    def agrees(self, answer: str, label: str) -> bool:
        """True if an answer of the frozen model is right."""
        return _agrees(answer, label, self.compare)

    def _chosen(self, gold: Any, answer: Answer) -> tuple[Region, Parsed[tuple[int, ...]]]:
        region = TagAnswer(self.think).parse(answer)
        return region, region.answer.then(lambda text: _parse_indices(text, gold.tools))


OUTCOMES: Mapping[float, float] = {0.0: -0.5, 0.5: 0.0, 1.0: 1.0}
"""What a verdict earns: wrong only with the tools, wrong without them too, right with them."""


def outcome_of(right: bool, alone: bool) -> float:
    """The verdict on a choice: was the frozen model right with the tools, and `alone`?"""
    return 1.0 if right else 0.0 if alone else 0.5


def _verdict(gold: Gold, chosen: tuple[int, ...], answer: Answer) -> float:
    if gold.right is None:
        if answer.outcome is None:
            raise ValueError("the frozen model was not asked")
        return answer.outcome
    if chosen not in gold.right:
        raise ValueError(f"no outcome was computed for the tools {chosen}")
    return outcome_of(gold.right[chosen], gold.right[()])


def _parse_indices(text: str, tools: int) -> Parsed[tuple[int, ...]]:
    """Read distinct indices below `tools`, sorted: order does not matter."""
    chosen: list[int] = []
    for word in text.split(",", tools):
        index = parse_integer(word, _INDEX)
        if index.value is None or not 0 <= index.value < tools or index.value in chosen:
            return malformed(f"not distinct tool indices: '{text:.40}'")
        chosen.append(index.value)
    return ok(tuple(sorted(chosen)))


def _read_gold(answers: Mapping[str, Any], label: str, tools: int, compare: Compare) -> Gold:
    right: dict[tuple[int, ...], bool] = {}
    for key, answer in answers.items():
        chosen = _parse_indices(key, tools) if key else ok(())
        if chosen.value is None or chosen.value in right:
            raise ValueError(f"answers: {chosen.reason or 'a tool set occurs twice'}")
        if answer is not None:
            right[chosen.value] = _agrees(str(answer), label, compare)
    if () not in right or len(right) < 2:
        raise ValueError("answers need the one without tools and one with tools")
    return Gold(right, tools)


def _agrees(answer: str, label: str, compare: Compare) -> bool:
    """ChartQA's rule is within 5 % of a number, else the same text."""
    if compare == "math":
        return grade_math(answer, free_form_gold(label), MathPolicy())[1]
    if compare == "text":
        return bool(normalize(answer)) and normalize(answer) == normalize(label)
    number, gold = parse_number(answer).value, parse_number(label).value
    if number is not None and gold is not None:
        return close(number, gold, relative=0.05)
    return bool(normalize(answer)) and normalize(answer) == normalize(label)
