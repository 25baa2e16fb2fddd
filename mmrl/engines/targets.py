"""Supervised phases: the "rollout" is the task's own reference completion.

With an algorithm that gives every token advantage 1, the loop becomes supervised fine-tuning: same
rows, same checkpoints, same report; scoring the targets checks the data on the way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mmrl.engines.engine import Sampling
from mmrl.errors import UserError
from mmrl.policy.policy import Policy
from mmrl.policy.weights import Weights
from mmrl.rewards.thoughts import continued
from mmrl.task import Task
from mmrl.types import Answer, MediaRef, Prompt, Response, Sample


class Targets:
    """An engine that samples nothing: it writes what `Task.target` says, as often as asked.

    `thought_dropout` is the chance that a target is written with an empty thought. TON, arXiv
    2505.16854. `adaptive`: of a record's best completions, one as long as the record is hard.
    """

    def __init__(
        self,
        policy: Policy,
        tasks: Mapping[str, Task],
        thought_dropout: float = 0.0,
        *,
        adaptive: bool = False,
    ) -> None:
        self._policy, self._tasks, self._dropout = policy, tasks, thought_dropout
        self._adaptive = adaptive

    def generate(
        self, prompts: Sequence[Prompt], counts: Sequence[int], sampling: Sampling, seed: int
    ) -> list[list[Response]]:
        """Return each prompt's target; log-probs are NaN, since no policy sampled it."""
        rng = np.random.default_rng(seed)
        dropped = rng.random(len(prompts)) < self._dropout
        return [
            [self._response(prompt, sampling.max_new_tokens, thoughtless)] * count
            for prompt, count, thoughtless in zip(
                prompts, sampling.counts(counts), dropped, strict=True
            )
        ]

    def sync(self, weights: Weights) -> None:
        """Nothing depends on the weights."""

    def close(self) -> None:
        """Nothing is held."""

    def _response(self, prompt: Prompt, max_new_tokens: int, thoughtless: bool) -> Response:
        sample = prompt.sample
        asked = sum(isinstance(part, MediaRef) for part in sample.parts)
        # Behind those of the question stand those that an episode's environment has shown.
        blank = Answer("", frames=prompt.frames[:asked], space=prompt.space)
        text = as_long_as_hard(sample) if self._adaptive else None
        text = text or self._tasks[sample.task].completion(sample, blank)
        if text is None:
            raise UserError(f"sample '{sample.id}' has no target to fine-tune on")
        text = without_thought(text) if thoughtless else text
        return written(self._policy, prompt, text, max_new_tokens, "target")


def as_long_as_hard(sample: Sample) -> str | None:
    """Of the record's completions that earned the most, the one whose length fits its difficulty.

    The shortest for a record that is always solved, the longest for one that never is, those
    between by their place. None without completions; raises UserError where they have no pass rate
    beside them. Adaptive-length distillation as in Skywork R1V, arXiv 2504.05599.
    """
    ranked = sample.reference.ranked if sample.reference else ()
    if not ranked:
        return None
    if "pass_rate" not in sample.meta:
        raise UserError(
            f"sample '{sample.id}' has no `pass_rate`, which rollout.adaptive_targets needs: "
            "`mmrl rate` adds them"
        )
    most = max(reward or 0.0 for _, reward in ranked)
    best = sorted((text for text, reward in ranked if (reward or 0.0) == most), key=len)
    difficulty = 1 - float(sample.meta["pass_rate"])
    return best[round(difficulty * (len(best) - 1))]


def written(policy: Policy, prompt: Prompt, text: str, longest: int, what: str) -> Response:
    """A completion as a response that no policy sampled: its log-probs are NaN.

    Raises UserError, which calls it `what`, for one of more than `longest` tokens.
    """
    text = continued(prompt.opening, text)
    tokens = policy.processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    ids = np.array([*tokens, policy.family.end_ids[0]], dtype=np.int64)
    if len(ids) > longest:
        raise UserError(
            f"the {what} of sample '{prompt.sample.id}' has {len(ids)} tokens: raise "
            f"rollout.max_new_tokens={longest}"
        )
    return Response(ids, np.full(len(ids), np.nan), text, "stop")


def without_thought(text: str) -> str:
    """The text with an empty thought in the place of its first; as it is where it has none."""
    head, opened, rest = text.partition("<think>")
    _, closed, answer = rest.partition("</think>")
    return f"{head}<think>\n\n</think>{answer}" if opened and closed else text
