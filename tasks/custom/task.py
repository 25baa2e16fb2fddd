"""Your records and your reward function, in the form TRL's trainers take them."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any, ClassVar

from mmrl import task as contract
from mmrl.records import interleave, media_source
from mmrl.rewards.custom import call_reward, load_function
from mmrl.task import RewardPart
from mmrl.types import Answer, MediaRef, Record, Sample, Score

MEDIA_COLUMNS = ("image", "images")


@dataclass(frozen=True)
class Task(contract.Task):
    """`function` is `package.module:function`, called as f(prompts, completions, **columns).

    Records have `prompt` (text, or messages of a system and a user), `image` or `images`, and any
    further columns, which the function receives; `target` may hold a reference completion.
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
        fields = record.fields
        images = [fields["image"]] if fields.get("image") else fields.get("images") or []
        media = [MediaRef("image", media_source(record, image)) for image in images]
        system, question = _read_prompt(fields["prompt"])
        columns = {k: v for k, v in fields.items() if k not in ("prompt", *MEDIA_COLUMNS)}
        return Sample(
            id=record.id,
            task=self.name,
            parts=interleave(question, "<image>", media),
            gold={"prompt": fields["prompt"], "columns": columns},
            system=system,
            target=fields.get("target"),
        )

    def score(self, gold: Any, answer: Answer) -> Score:
        """Call the function on this completion alone."""
        function = load_function(self.function)
        reward = call_reward(function, gold["prompt"], answer.text, gold["columns"])
        if reward is None:
            return Score({}, None, "unscorable", f"{self.function} returned None")
        return Score({"reward": reward}, metric=reward)


def _read_prompt(prompt: Any) -> tuple[str | None, str]:
    if isinstance(prompt, str):
        return None, prompt
    turns = {turn["role"]: turn["content"] for turn in prompt}
    supported = len(turns) == len(prompt) and "user" in turns and turns.keys() <= {"system", "user"}
    if not supported or not all(isinstance(content, str) for content in turns.values()):
        raise ValueError("a prompt is text, or messages of one system and one user turn of text")
    return turns.get("system"), turns["user"]
