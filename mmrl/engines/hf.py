"""The embedded engine: the policy's own model, one prefill a prompt, one copy of its keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from weakref import WeakKeyDictionary

import torch

from mmrl.engines import plain_generate
from mmrl.engines.batch import Batch, Room, respond
from mmrl.engines.engine import Sampling, Still
from mmrl.engines.prefix_cache import MAX_TOKENS, PrefixCache
from mmrl.engines.tape import Recordable
from mmrl.policy.linears import decoding as packed_linears
from mmrl.policy.packing import default_budget
from mmrl.policy.policy import Policy
from mmrl.policy.weights import Weights
from mmrl.types import Prompt, Response


class HFEngine:
    """Samples with the policy's own weights, so that there is nothing to sync."""

    def __init__(
        self,
        policy: Policy,
        max_sequences: int = 256,
        prefill_tokens: int | None = None,
        prefix_tokens: int | None = None,
    ) -> None:
        """Prompts are prefilled some at a time, at most `prefill_tokens` in one pass (or one).

        Of what was fed at most `prefix_tokens` (None: MAX_TOKENS) are kept for prompts that go on
        from there.
        """
        self._prefix_tokens = MAX_TOKENS if prefix_tokens is None else prefix_tokens
        self._policy = policy
        self._recordable = Recordable()
        self._fed: WeakKeyDictionary[Still, PrefixCache] = WeakKeyDictionary()
        self._room = Room(max_sequences, prefill_tokens or default_budget(policy.device))

    @torch.inference_mode()
    def generate(
        self, prompts: Sequence[Prompt], counts: Sequence[int], sampling: Sampling, seed: int
    ) -> list[list[Response]]:
        """Sample counts[i] responses to prompt i, at most `max_sequences` side by side."""
        was_training = self._policy.model.training
        self._policy.model.eval()
        self._policy.store.stay(sampling.still)
        sample = self._sample if self._policy.family.declaration.shared_prefix else self._copy
        try:
            with packed_linears(self._policy.model):
                return sample(prompts, counts, sampling, seed)
        finally:
            self._policy.model.train(was_training)

    def _sample(
        self, prompts: Sequence[Prompt], counts: Sequence[int], sampling: Sampling, seed: int
    ) -> list[list[Response]]:
        if not sum(asked := sampling.counts(counts)):
            return [[] for _ in prompts]
        still = sampling.still
        before = (
            None if still is None else self._fed.setdefault(still, PrefixCache(self._prefix_tokens))
        )
        batch = Batch(self._policy, prompts, asked, sampling, self._room, self._recordable, before)
        return batch.run(torch.Generator(self._policy.device).manual_seed(seed))

    def _copy(
        self, prompts: Sequence[Prompt], counts: Sequence[int], sampling: Sampling, seed: int
    ) -> list[list[Response]]:
        drawn = plain_generate.generate(self._policy, prompts, counts, sampling, seed)
        if sampling.greedy_too:
            greedy = replace(sampling, temperature=0.0)
            last = plain_generate.generate(self._policy, prompts, [1] * len(prompts), greedy, seed)
            drawn = [[*group, *one] for group, one in zip(drawn, last, strict=True)]
        return [[respond(self._policy, *answer) for answer in group] for group in drawn]

    def sync(self, weights: Weights) -> None:
        """Nothing to do: the weights are the policy's own, and no cache outlives a `Still`."""

    def close(self) -> None:
        """Nothing is held."""
