"""Visual-ARFT: one agent step, an answer, a search, a problem or code, against the gold step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

from mmrl import task as contract
from mmrl.records import media_source
from mmrl.rewards.custom import load_callable
from mmrl.rewards.grammar import TagAnswer, Think
from mmrl.rewards.parsed import Parsed
from mmrl.rewards.text import normalize, token_f1
from mmrl.task import RewardPart
from mmrl.types import Answer, MediaRef, Record, Sample, Score, Text

KINDS = ("answer", "search", "problem", "code")
_CODE_AS_CODED = 0.9


class Gold(NamedTuple):
    """The kind of the step and its content."""

    kind: str
    content: str


@dataclass(frozen=True)
class Task(contract.Task):
    """Reads Visual-ARFT rows: `image`, `problem`, `solution` in one of four tags.

    `similarity` names a function f(text, gold) -> a number in [0, 1] for search queries, such as a
    sentence embedding's cosine; without one it is token F1. `variant` code pays any code 0.9.
    """

    think: Think = "required"
    variant: Literal["strict", "code"] = "strict"
    similarity: str | None = None

    name: ClassVar[str] = "agentic_step"
    summary: ClassVar[str] = "take an agent's next step: answer, search, name a problem, write code"
    parts: ClassVar[dict[str, RewardPart]] = {
        "content": RewardPart(0.0, 1.0),
        "format": RewardPart(0.0, 1.0, 0.1),
    }
    metric: ClassVar[str] = "step_score"

    def sample(self, record: Record) -> Sample:
        """Ask a record; the gold is the one tagged region of its solution."""
        fields = record.fields
        gold = _read_gold(str(fields["solution"]))
        question = str(fields.get("problem") or "").replace("<image>", "").strip()
        if not question:
            raise ValueError("a record needs a problem")
        thought = (
            "First reason between <think> </think> tags, then take" if self._thinks else "Take"
        )
        ask = (
            f"{question}\n\n{thought} one step: an <answer> </answer>, a <search> </search> query, "
            "a <problem> </problem> of the image, or <code> </code> that mends it, in its tags."
        )
        return Sample(
            id=record.id,
            task=self.name,
            parts=(MediaRef("image", media_source(record, fields["image"])), Text(ask)),
            gold=gold,
            target=TagAnswer(self.think, gold.kind).write(gold.content),
            meta={"kind": gold.kind},
        )

    def score(self, gold: Any, answer: Answer) -> Score:
        """0 for another kind of step; else how far its content agrees."""
        gold = Gold(*gold)
        step, formed = self._parse(answer, gold.kind)
        if step.value is None:
            return Score({"content": 0.0, "format": float(formed)}, 0.0, step.status, step.reason)
        content = self._agreement(gold, step.value)
        return Score({"content": content, "format": float(formed)}, content)

    @property
    def _thinks(self) -> bool:
        return self.think != "none"

    def _parse(self, answer: Answer, kind: str) -> tuple[Parsed[str], bool]:
        """Read the region of the gold's kind; one of another kind beside it is `multiple`."""
        found = {name: TagAnswer(self.think, name).parse(answer) for name in KINDS}
        there = [name for name, region in found.items() if region.answer.status != "missing"]
        if there == [kind]:
            return found[kind].answer, found[kind].well_formed
        if len(there) == 1:
            reason = f"a step of the kind {there[0]}"
            return Parsed("malformed", None, reason), found[there[0]].well_formed
        if there:
            return Parsed("multiple", None, "several kinds of step"), False
        return found[kind].answer, False

    def _agreement(self, gold: Gold, text: str) -> float:
        match gold.kind:
            case "answer":
                return token_f1(_tokens(text), _tokens(gold.content))
            case "search":
                return self._similarity(text, gold.content)
            case "problem":
                return _problem_score(_items(text), _items(gold.content))
            case _ if self.variant == "code":
                return _CODE_AS_CODED
            case _:
                return float(text.split() == gold.content.split())

    def _similarity(self, text: str, gold: str) -> float:
        if self.similarity is None:
            value = token_f1(_tokens(text), _tokens(gold))
        else:
            value = float(load_callable(self.similarity, "similarity")(text, gold))
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"similarity {value} is not in [0, 1]")
        return value if value >= 0.5 else 0.0


def _read_gold(solution: str) -> Gold:
    for kind in KINDS:
        region = TagAnswer("none", kind).parse(Answer(solution.rpartition("</think>")[2]))
        if region.well_formed and region.answer.value is not None:
            return Gold(kind, region.answer.value)
    raise ValueError(f"the solution is not one region of {', '.join(KINDS)}")


def _tokens(text: str) -> list[str]:
    return normalize(text, punctuation=True).split()


def _items(text: str) -> list[str]:
    return sorted(normalize(item) for item in text.split(",")[:16])


def _problem_score(named: list[str], gold: list[str]) -> float:
    """1 for the same items; half where one of two is named and it is the rotation."""
    if named == gold:
        return 1.0
    rotation = len(named) == 1 and len(gold) == 2 and "rotat" in named[0]
    return 0.5 if rotation and named[0] in gold else 0.0
