"""The embedded engine on a copy of the weights, so that it can sample while the policy trains."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mmrl.engines.engine import Sampling
from mmrl.engines.hf import HFEngine
from mmrl.errors import UserError
from mmrl.model_config import ModelConfig
from mmrl.policy.buckets import named
from mmrl.policy.policy import Policy, load_policy
from mmrl.policy.weights import Weights, weights_of
from mmrl.types import Prompt, Response


class CopyEngine:
    """Samples as `HFEngine` does, with weights that `sync` replaces; adapters are merged in.

    The copy takes the memory of the whole model in its dtype, beside the policy's. Families that
    share nothing sample through the model's own `generate`, which draws from torch's global
    generator; so would the policy's training beside it, and no run would repeat another.
    """

    def __init__(
        self,
        policy: Policy,
        model: ModelConfig,
        max_sequences: int = 256,
        prefill_tokens: int | None = None,
        prefix_tokens: int | None = None,
    ) -> None:
        if not policy.family.declaration.shared_prefix:
            raise UserError(
                "rollout.engine=hf_copy needs a family with a shared prefix (see `mmrl families`): "
                "set rollout.engine=hf and rollout.max_staleness=0"
            )
        self.takes_adapter = False
        alone = model.model_copy(update={"lora": None, "gradient_checkpointing": False})
        self._copy = load_policy(alone, policy.device)
        self._engine = HFEngine(self._copy, max_sequences, prefill_tokens, prefix_tokens)
        self.sync(weights_of(policy, 0))

    def generate(
        self, prompts: Sequence[Prompt], counts: Sequence[int], sampling: Sampling, seed: int
    ) -> list[list[Response]]:
        """Sample counts[i] responses to prompt i with the weights of the last sync."""
        return self._engine.generate(prompts, counts, sampling, seed)

    @torch.no_grad()
    def sync(self, weights: Weights) -> None:
        """Take over the weights, some at a time; features of the towers are not kept."""
        self.version: int | None = None
        own = self._copy.model.state_dict()
        for name, value in named(weights.whole()):
            own.pop(name).copy_(value)
        assert not own, f"no weights came for {next(iter(own))}"
        self.version = weights.version

    def close(self) -> None:
        """Let the copy go."""
        del self._engine, self._copy
