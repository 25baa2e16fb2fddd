"""Whether a rollout's pass over its prompts can be the update's too."""

from __future__ import annotations

from mmrl.algorithm import Algorithm
from mmrl.config import RunConfig

SHARE = 0.5
"""Of a micro-batch's tokens, how many of prompts are kept: behind them, micro-batches have nothing
but responses, so that the two together take about what one with its prompts takes."""


def kept_tokens(config: RunConfig, algorithm: Algorithm, budget: int) -> int:
    """Return how many trunk tokens of prompts a step's rollout keeps for its update.

    Only where both are the same computation: the policy itself samples, on every process whole, and
    moves once a step. Dropout in front of adapters draws anew, and groups that stay whole in a
    micro-batch bring their prompts.
    """
    rollout, trainer, lora = config.rollout, config.trainer, config.model.lora
    itself = rollout.engine == "hf" and not rollout.max_staleness and trainer.backend == "local"
    updates = algorithm.updates
    once = updates.on_policy and not updates.extragradient
    drops = lora is not None and lora.dropout > 0
    if not (itself and once) or drops or algorithm.objective.whole_groups:
        return 0
    asked = trainer.kept_prompt_tokens
    return int(budget * SHARE) if asked is None else asked
