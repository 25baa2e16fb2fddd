"""Pure parts of credit assignment: baselines, scales, and the map from answers to tokens.

Rewards are float arrays [G] with NaN for unscorable answers. NaN never enters a baseline or a
scale and always gets advantage 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mmrl.algorithm import Context, Plan
from mmrl.types import Bools, Floats, Group, Prompt, Response, TrainSample

Numerics = Literal["paper", "trl", "verl"]


@dataclass(frozen=True)
class Normalise:
    """Divide centred rewards by the group's standard deviation plus epsilon.

    `single` says what a group of one scorable answer gets: advantage 0, or its raw reward.
    """

    ddof: int = 1
    epsilon: float = 1e-6
    single: Literal["zero", "raw"] = "zero"


PRESETS: dict[Numerics, Normalise] = {
    "paper": Normalise(ddof=1, epsilon=1e-6, single="zero"),
    "trl": Normalise(ddof=1, epsilon=1e-4, single="zero"),
    "verl": Normalise(ddof=1, epsilon=1e-6, single="raw"),
}
"""Numeric policies. The papers leave ddof and epsilon open; "paper" is the common reading."""


def centre(rewards: Floats) -> Floats:
    """Subtract the mean of the scorable rewards."""
    valid = ~np.isnan(rewards)
    if not valid.any():
        return np.zeros_like(rewards)
    return np.where(valid, rewards - rewards[valid].mean(), 0.0)


def group_relative(rewards: Floats, normalise: Normalise | None) -> Floats:
    """Advantages [G] of GRPO (normalised) or Dr. GRPO (None: centred only).

    DeepSeekMath, arXiv 2402.03300; Dr. GRPO, arXiv 2503.20783.
    """
    valid = ~np.isnan(rewards)
    if normalise is None:
        return centre(rewards)
    if valid.sum() <= 1:
        raw = normalise.single == "raw"
        return np.where(valid, rewards, 0.0) if raw else np.zeros_like(rewards)
    scale = rewards[valid].std(ddof=normalise.ddof) + normalise.epsilon
    return np.asarray(centre(rewards) / scale)


def fixed_group(size: int) -> Plan:
    """Plan the same number of responses for every prompt."""

    def plan(prompts: Sequence[Prompt], context: Context) -> Sequence[int]:
        return [size] * len(prompts)

    return plan


def spread(advantage: float, response: Response) -> Floats:
    """Copy one advantage to every token of a response."""
    return np.full(len(response.ids), advantage)


def loss_mask(response: Response, scorable: bool, keep_truncated: bool = True) -> Bools:
    """Mask [T] of the tokens that enter the loss: all, or none of an excluded response."""
    return np.full(len(response.ids), scorable and (keep_truncated or not response.truncated))


def to_train_samples(
    group: Group, advantages: Floats, index: int, *, on_policy: bool, keep_truncated: bool = True
) -> list[TrainSample]:
    """Pair each response with its own prompt and one advantage for all of its tokens."""
    return [
        TrainSample(
            prompt=group.prompt,
            response=response,
            advantages=spread(float(advantage), response),
            mask=loss_mask(response, score.reward is not None, keep_truncated),
            old_logprobs=None if on_policy else response.logprobs,
            group=index,
        )
        for response, score, advantage in zip(
            group.responses, group.scores, advantages, strict=True
        )
    ]
