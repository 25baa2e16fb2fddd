"""Episodes that other people's environments play and score; they call the model themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any, ClassVar, Literal

from mmrl import task as contract
from mmrl.rewards.chat_messages import BadMessages, messages_of, sample_of
from mmrl.task import RewardPart
from mmrl.types import Answer, Observation, Record, Sample, Score


@dataclass(frozen=True)
class Task(contract.Task):
    """`host` is the package of the environments, `settings` are what it takes (docs/hosted.md).

    `python` is the interpreter that has the package (default: this one). A record holds the
    `index` of an episode, and the `messages` and `tools` of its first call, as `mmrl record` found
    them; `answers` are right turns, where somebody knows them: supervised phases write them. An
    episode has at most `turns` turns.
    """

    host: Literal["verifiers", "gymnasium"] = "verifiers"
    settings: Mapping[str, Any] = field(default_factory=dict)
    python: str = ""
    turns: int = 32

    name: ClassVar[str] = "hosted"
    summary: ClassVar[str] = "episodes that another package's environments play and score"
    parts: ClassVar[dict[str, RewardPart]] = {"reward": RewardPart(-inf, inf)}
    metric: ClassVar[str] = "reward"
    hosting: ClassVar[str] = "mmrl.environments.host:hosting_of"

    def ask(self, record: Record) -> Sample:
        """Ask what the episode's first call asked."""
        return self.sample(record)

    def sample(self, record: Record) -> Sample:
        """The first call's messages as a question; the episode begins there."""
        index, tools = record.fields["index"], record.fields.get("tools") or ()
        like = Sample(
            id=record.id,
            task=self.name,
            parts=(),
            gold={"index": int(index), "answers": list(record.fields.get("answers") or ())},
            meta={},
            start=Observation({"messages": record.fields["messages"]}, key="0"),
            turns=self.turns,
            tools=tuple(tools),
        )
        try:
            return sample_of(messages_of(record.fields["messages"]), like)
        except BadMessages as error:
            raise ValueError(str(error)) from None

    def step(self, gold: Any, state: Any, answer: Answer) -> Observation:
        """Compare with the right turns; in a run the environment's own process plays instead."""
        right, said = gold["answers"], [turn.strip() for turn in answer.turns]
        if not right:
            raise ValueError("the environment plays in a run, and its right turns are not known")
        done = len(said) >= len(right)
        outcome = float(said == right)
        return Observation(state, key=f"{len(said)}", text="Go on.", outcome=outcome, done=done)

    def score(self, gold: Any, answer: Answer) -> Score:
        """Take the environment's own reward."""
        if answer.outcome is None:
            raise ValueError("the environment gave no reward")
        return Score({"reward": answer.outcome}, answer.outcome)

    def target(self, sample: Sample, answer: Answer) -> str | None:
        """The right turn of where the episode is, where it is known."""
        assert sample.start is not None
        right, turn = sample.gold["answers"], int(sample.start.key)
        return right[turn] if turn < len(right) else None
