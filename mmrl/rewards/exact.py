"""A task in ten lines: a function that asks a record, and an answer that must be met exactly."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from mmrl import task as contract
from mmrl.records import interleave, media_ref
from mmrl.rewards.grammar import TagAnswer, Think
from mmrl.rewards.numbers import close, parse_number
from mmrl.task import RewardPart
from mmrl.types import Answer, Record, Sample, Score

Asked: TypeAlias = tuple[Any, str, Any]
"""A picture, or several, or None; a question; the right answer, or the list of all right ones."""


def task(summary: str) -> Callable[[Callable[[Mapping[str, Any]], Asked]], type[contract.Task]]:
    """Make the task of a function that returns (pictures, question, answer) of a record's fields.

    In a file `tasks.py` it is `data.task: tasks.py:colour`, in a package `package.module:colour`.
    Pictures are what `records.media_ref` takes; `<image>` in the question places one. The model is
    told to answer between `<answer>` tags; right is what equals an answer but for case, white space
    and a full stop, or as a number. A record whose function raises ValueError, KeyError or
    TypeError is quarantined with that reason.

    Args:
        summary: what the task asks, in a line.

    Returns:
        What makes a task of the function; `think` is its parameter.

    Example:
        >>> @task("name the colour of the shape")
        ... def colour(row):
        ...     return row["image"], "Which colour is the shape?", row["colour"]
        >>> colour(think="none").score(["red"], Answer("<answer>Red.</answer>")).metric
        1.0
    """

    def make(ask: Callable[[Mapping[str, Any]], Asked]) -> type[contract.Task]:
        fields = {"name": ask.__name__, "summary": summary, "ask_row": staticmethod(ask)}
        fields |= {"__doc__": ask.__doc__ or summary, "__module__": ask.__module__}
        return type("Task", (Exact,), fields)

    return make


@dataclass(frozen=True)
class Exact(contract.Task):
    """What `task` makes of a function; `think`: whether a thought precedes the answer."""

    think: Think = "optional"

    parts: ClassVar[dict[str, RewardPart]] = {"accuracy": RewardPart(0.0, 1.0)}
    metric: ClassVar[str] = "accuracy"

    @staticmethod
    def ask_row(row: Mapping[str, Any]) -> Asked:
        """Pictures, question and answer of a record's fields: the function itself."""
        raise NotImplementedError("a task is made of a function by `task`")

    def sample(self, record: Record) -> Sample:
        """Ask a record; the gold are its right answers as text."""
        pictures, question, answer = self.ask_row(record.fields)
        several = isinstance(pictures, list | tuple)
        listed = pictures if several else [] if pictures is None else [pictures]
        media = [media_ref(record, "image", picture) for picture in listed]
        grammar = TagAnswer(think=self.think)
        right = _texts(answer)
        return Sample(
            record.id,
            self.name,
            interleave(f"{question} {grammar.instruction()}", "<image>", media),
            gold=right,
            target=grammar.write(right[0]),
        )

    def score(self, gold: Any, answer: Answer) -> Score:
        """1 where the answer is a right one, else 0."""
        parsed = TagAnswer(think=self.think).parse(answer).answer
        right = float(parsed.value is not None and any(same(parsed.value, one) for one in gold))
        return Score({"accuracy": right}, metric=right, status=parsed.status, reason=parsed.reason)


def same(said: str, right: str) -> bool:
    """True if two answers are the same but for case, white space and a full stop, or as numbers.

    Args:
        said: what the model answered.
        right: what would be right.

    Example:
        >>> same("Two  dogs.", "two dogs"), same("1,000", "1e3"), same("1", "one")
        (True, True, False)
    """
    one, other = _plain(said), _plain(right)
    number, wanted = parse_number(one).value, parse_number(other).value
    if number is None or wanted is None:
        return one == other
    return close(number, wanted, relative=1e-9)


def _texts(answer: Any) -> list[str]:
    several: Sequence[Any] = answer if isinstance(answer, list | tuple) else [answer]
    texts = [str(one) for one in several]
    if not texts or any(one is None or isinstance(one, dict) for one in several):
        raise ValueError(f"not an answer: {answer!r:.60}")
    if any(not text.strip() for text in texts):
        raise ValueError("an empty answer")
    return texts


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).removesuffix(".")
