"""Search, read, search again, answer: questions over the passages that their record brings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from mmrl import task as contract
from mmrl.rewards.grammar import TagAnswer, Think
from mmrl.rewards.parsed import Parsed
from mmrl.rewards.retrieval import rank
from mmrl.rewards.text import normalize
from mmrl.task import RewardPart, mean_by
from mmrl.types import Answer, Observation, Record, Sample, Score, Status, Text

SEARCH = "<search>"


@dataclass(frozen=True, slots=True)
class Gold:
    """Accepted answers, the passages that a search finds, and whether one is needed."""

    answers: tuple[str, ...]
    passages: tuple[str, ...]
    needs_search: bool


@dataclass(frozen=True)
class Task(contract.Task):
    """A turn is a search or the answer; `found` passages come back of a search.

    `restraint` pays a right answer that was looked up if and only if that was needed (SEM).
    """

    turns: int = 4
    found: int = 2
    think: Think = "required"

    name: ClassVar[str] = "search_qa"
    summary: ClassVar[str] = "search passages over several turns, then answer"
    parts: ClassVar[Mapping[str, RewardPart]] = {
        "accuracy": RewardPart(0.0, 1.0),
        "restraint": RewardPart(0.0, 1.0, 0.0),
        "format": RewardPart(0.0, 1.0, 0.1),
    }
    metric: ClassVar[str] = "accuracy"

    def sample(self, record: Record) -> Sample:
        """Ask a question; its passages are not shown until they are searched for."""
        fields = record.fields
        given = fields["answer"]
        answers = tuple(map(str, [*_listed(given), *_listed(fields.get("answer_aliases") or ())]))
        passages = tuple(_passage(each) for each in fields.get("paragraphs") or ())
        needed = bool(fields.get("needs_search", bool(passages)))
        if not all(map(normalize, answers)) or not answers:
            raise ValueError("an empty answer")
        if needed and not passages:
            raise ValueError("a search is needed, and there is nothing to find")
        ask = (
            f"{fields['question']}\nIn each turn either search, with a query between <search> "
            f"</search> tags, or answer. {TagAnswer(self.think).instruction()}"
        )
        return Sample(
            id=record.id,
            task=self.name,
            parts=(Text(ask),),
            gold=Gold(answers, passages, needed),
            meta={"needs_search": str(needed), "question": str(fields["question"])},
            start=Observation(0, key="0"),
            turns=self.turns,
        )

    def step(self, gold: Any, state: Any, answer: Answer) -> Observation:
        """Carry out a search, or end with an answer; what is neither takes a turn.

        A search that finds an accepted answer earns 1 of its own (MT-GRPO).
        """
        query, said = self._search(answer), self._answer(answer)
        if query.value is not None:
            shown = rank(query.value, gold.passages)[: self.found]
            text = "\n".join(gold.passages[i] for i in shown) or "Nothing was found."
            hit = any(_key(answer) in _key(text) for answer in gold.answers)
            return Observation(state + 1, key=f"{state + 1}", text=text, reward=float(hit))
        if said.value is not None:
            return Observation(state, key=f"{state}", done=True)
        return Observation(state, key=f"{state}", text="That is neither a search nor an answer.")

    def score(self, gold: Any, answer: Answer) -> Score:
        """Compare the last turn with the accepted answers, case and punctuation aside."""
        turns = [replace(answer, text=turn, truncated=False) for turn in answer.turns or ("",)]
        said = self._answer(turns[-1])
        right = said.value is not None and _key(said.value) in {_key(a) for a in gold.answers}
        searches = sum(self._search(turn).value is not None for turn in turns)
        ends_well = said.value is not None and TagAnswer(self.think).parse(turns[-1]).well_formed
        status: Status = "truncated" if answer.truncated else said.status
        parts = {
            "accuracy": float(right),
            "restraint": float(right and (searches > 0) == gold.needs_search),
            "format": (searches + ends_well) / len(turns),
        }
        return Score(parts, float(right), status, said.reason)

    def breakdown(
        self, values: Sequence[float], metas: Sequence[Mapping[str, Any]]
    ) -> Mapping[str, float]:
        """Accuracy where a search is needed, and where it is not."""
        return mean_by("needs_search", values, metas)

    def target(self, sample: Sample, answer: Answer) -> str | None:
        """Search for the question if that is needed and was not done, else answer."""
        assert sample.start is not None
        if sample.gold.needs_search and not sample.start.state:
            return f"<search>{sample.meta['question']}</search>"
        return TagAnswer(self.think).write(sample.gold.answers[0])

    def _search(self, answer: Answer) -> Parsed[str]:
        both = SEARCH in answer.text and "<answer>" in answer.text
        return (
            TagAnswer("optional", "search")
            .parse(replace(answer, text="" if both else answer.text))
            .answer.then(_filled)
        )

    def _answer(self, answer: Answer) -> Parsed[str]:
        if SEARCH in answer.text:
            return Parsed("missing", None, "a search is no answer")
        return TagAnswer(self.think).parse(answer).answer.then(_filled)


def _filled(text: str) -> Parsed[str]:
    return Parsed("ok", text) if text.strip() else Parsed("malformed", None, "it is empty")


def _key(text: str) -> str:
    return normalize(text, punctuation=True)


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else [value]


def _passage(given: Any) -> str:
    """A passage as text: MuSiQue's {title, paragraph_text}, or a text."""
    if isinstance(given, Mapping):
        text = given.get("paragraph_text") or given.get("text")
        if not text:
            raise ValueError("a passage without a text")
        return ": ".join(filter(None, (str(given.get("title") or ""), str(text))))
    return str(given)
