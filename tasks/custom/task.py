"""Your records and your reward function, in the form TRL's trainers take them."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from math import inf
from typing import Any, ClassVar

from mmrl import task as contract
from mmrl.corpus.fields import ANSWERS, fields_of, shows_media
from mmrl.rewards.custom import call_reward, load_function
from mmrl.task import RewardPart
from mmrl.types import Answer, Record, Sample, Score, Text


@dataclass(frozen=True)
class Task(contract.Task):
    """`function` is `package.module:function`, called as f(prompts, completions, **columns).

    Records are of any layout of docs/data.md. The function receives their further columns, those
    with media only if it names them.
    """

    function: str

    name: ClassVar[str] = "custom"
    summary: ClassVar[str] = "your records, scored by your own reward function"
    parts: ClassVar[dict[str, RewardPart]] = {"reward": RewardPart(-inf, inf)}
    metric: ClassVar[str] = "reward"

    def __post_init__(self) -> None:
        load_function(self.function)

    def sample(self, record: Record) -> Sample:
        """Ask a record; the gold is what the function will be called with."""
        fields = fields_of(record)
        asked = inspect.signature(load_function(self.function)).parameters
        talk = fields.messages_column
        columns = {
            name: value
            for name, value in fields.items()
            if name in asked or not (name in ("prompt", talk) or shows_media(name, value))
        }
        # A gold that stands elsewhere goes by the name that the function knows.
        if (gold := fields.answer) is not None:
            columns |= {n: gold for n in asked if n in ANSWERS and n not in columns}
        fields.taken |= set(asked)  # a file that the function reads need not be shown
        return Sample(
            id=record.id,
            task=self.name,
            parts=(Text(str(fields["prompt"])),),
            gold={"prompt": fields.prompt, "columns": columns},
        )

    def target(self, sample: Sample, answer: Answer) -> str | None:
        """None: what a right answer is like, the record or nobody says."""
        return None

    def score(self, gold: Any, answer: Answer) -> Score:
        """Call the function on this completion alone."""
        function = load_function(self.function)
        reward = call_reward(function, gold["prompt"], answer.text, gold["columns"])
        if reward is None:
            return Score({}, None, "unscorable", f"{self.function} returned None")
        return Score({"reward": reward}, metric=reward)
