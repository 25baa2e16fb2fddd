"""The fullest micro-batch that a step's prompts make, packed as the run packs them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from mmrl.algorithms.compose import compose
from mmrl.config import RunConfig
from mmrl.doctor.counts import Asked, Counts
from mmrl.policy.packing import default_budget, first_fit, parts
from mmrl.train.keeping import kept_tokens

MOST_PACKED = 1024
"""Prompts of a step that are packed one by one; what is fuller still is made of equals."""


@dataclass(frozen=True)
class MicroBatch:
    """Trunk tokens that go through the model together, and the positions of each tower."""

    tokens: int
    positions: tuple[float, ...]


def fullest(
    config: RunConfig,
    counts: Counts,
    processes: int,
    answer: int,
    cost: Callable[[MicroBatch], float],
) -> MicroBatch:
    """Return the micro-batch of most `cost` where every answer has `answer` tokens."""
    return max(_micro_batches(config, counts, processes, answer), key=cost)


def _micro_batches(
    config: RunConfig, counts: Counts, processes: int, answer: int
) -> list[MicroBatch]:
    """Those of an update whose prompts are the longest, the densest, and those that come."""
    algorithm = compose(config.algorithm)
    whole = algorithm.objective.whole_groups
    asked = -(-config.trainer.prompts_per_step // (processes * algorithm.updates.mini_batches))
    longest = max(counts.asked, key=lambda each: each.tokens)
    densest = max(counts.asked, key=lambda each: sum(each.positions))
    come = [counts.asked[i % len(counts.asked)] for i in range(min(asked, MOST_PACKED))]
    answers, budget = [answer - 1] * group_size(config), budget_of(config)
    room = kept_tokens(config, algorithm, budget)
    found = _packed(come, answers, budget, whole)
    for each in (longest, densest):
        if each is longest or each.media_tokens:
            found.append(_of_equals(each, asked, answers, budget, whole))
            found += _behind_kept(each, asked, answers, budget, room)
    return found


def _behind_kept(
    prompt: Asked, asked: int, answers: Sequence[int], budget: int, room: int
) -> list[MicroBatch]:
    """The fullest micro-batch while as many of such prompts are kept as there is room for."""
    count = min(room // prompt.tokens, asked)
    if not count:
        return []
    tokens = count * prompt.tokens + min(count * sum(answers), max(budget, *answers))
    return [MicroBatch(tokens, tuple(count * each for each in prompt.positions))]


def _packed(
    prompts: Sequence[Asked], answers: Sequence[int], budget: int, whole: bool
) -> list[MicroBatch]:
    """The micro-batches of prompts with their groups' answers, as tokens that are inputs.

    A group over the budget is split; each part is counted with the prompt, which is kept meanwhile.
    """
    groups = [(prompt.tokens + sum(answers), prompt) for prompt in prompts]
    short = [each for each in groups if whole or each[0] <= budget]
    found = [
        MicroBatch(
            sum(short[i][0] for i in batch),
            tuple(map(sum, zip(*(short[i][1].positions for i in batch), strict=True))),
        )
        for batch in first_fit([size for size, _ in short], budget)
    ]
    for _, prompt in groups if not whole else ():
        split = parts(prompt.tokens, answers, budget)
        if len(split) > 1:
            longest = prompt.tokens + max(map(sum, split))
            found.append(MicroBatch(longest, prompt.positions))
    return found


def _of_equals(
    prompt: Asked, asked: int, answers: Sequence[int], budget: int, whole: bool
) -> MicroBatch:
    """The fullest micro-batch of prompts that are all like this one."""
    alone = max(_packed([prompt], answers, budget, whole), key=lambda each: each.tokens)
    row = prompt.tokens + sum(answers)
    together = min(budget // row, asked)
    if together < 2:  # not even two whole groups fit
        return alone
    return MicroBatch(together * row, tuple(together * each for each in prompt.positions))


def budget_of(config: RunConfig) -> int:
    """Trunk tokens of a micro-batch; a model that is not in float32 is planned for a GPU."""
    device = torch.device("cuda" if config.model.dtype != "float32" else "cpu")
    return config.trainer.tokens_per_micro_batch or default_budget(device)


def group_size(config: RunConfig) -> int:
    """Responses of a prompt."""
    return max(int(config.algorithm.get("group_size", 8)), 1)
