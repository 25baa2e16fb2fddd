"""What a rollout engine does: prompts in, groups of responses out, weights kept in step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from mmrl.policy.weights import Weights
from mmrl.types import Prompt, Response


class Still:
    """While one lives, weights stay as they are: what they make of a medium may be kept as long."""


@dataclass(frozen=True)
class Sampling:
    """How to sample. `temperature` 0 is greedy (log-probs are then those at temperature 1).

    With `greedy_too` every prompt gets one response more than asked for, its last: the greedy one.
    What is sampled `to_train` is trained on next, before the weights move. Calls with the same
    `still` are made by the same weights.
    """

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    greedy_too: bool = False
    to_train: bool = False
    still: Still | None = None

    def counts(self, sampled: Sequence[int]) -> list[int]:
        """Responses to each prompt, of which so many are sampled."""
        return [count + self.greedy_too for count in sampled]


class Engine(Protocol):
    """Samples from the policy. What it reports as log-probs the trainer must reproduce."""

    def generate(
        self, prompts: Sequence[Prompt], counts: Sequence[int], sampling: Sampling, seed: int
    ) -> list[list[Response]]:
        """Sample counts[i] responses to prompt i; the same seed gives the same responses."""
        ...

    def sync(self, weights: Weights) -> None:
        """Take over the policy's weights and drop every cache that depends on older ones.

        They are read before it returns.
        """
        ...

    def close(self) -> None:
        """Free what the engine holds."""
        ...


class WeightHolder(Engine, Protocol):
    """An engine with a copy of the weights, which may come to differ from the policy's.

    It is made with those of the start, which are version 0.
    """

    version: int | None
    """That of the weights it samples with; None while they are replaced, or where that failed."""
    takes_adapter: bool
    """True if it has the base and a sync gives it the adapter alone."""
