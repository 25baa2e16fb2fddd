"""One process: AdamW on the policy's own parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mmrl.config import OptimizerConfig
from mmrl.errors import UserError


class LocalBackend:
    """AdamW with a warm-up and decay schedule; state is kept by parameter name."""

    def __init__(self, model: nn.Module, config: OptimizerConfig, total_updates: int) -> None:
        self._config, self._total = config, total_updates
        self._named = {n: p for n, p in model.named_parameters() if p.requires_grad}
        decayed = [p for p in self._named.values() if p.ndim > 1]
        plain = [p for p in self._named.values() if p.ndim <= 1]
        self._optimizer = torch.optim.AdamW(
            [
                {"params": decayed, "weight_decay": config.weight_decay},
                {"params": plain, "weight_decay": 0.0},
            ],
            lr=config.learning_rate,
            betas=config.betas,
            fused=True,
        )
        self.updates = 0

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def step(self) -> float:
        norm = float(nn.utils.clip_grad_norm_(self._named.values(), self._config.max_grad_norm))
        if not math.isfinite(norm):
            self._optimizer.zero_grad()
            raise UserError(
                "the gradient is not finite: lower optimizer.learning_rate or train in float32; "
                "the last checkpoint is from before this step"
            )
        for group in self._optimizer.param_groups:
            group["lr"] = self.learning_rate
        self._optimizer.step()
        self._optimizer.zero_grad()
        self.updates += 1
        return norm

    @property
    def learning_rate(self) -> float:
        return self._config.learning_rate * schedule_factor(self.updates, self._total, self._config)

    def state(self) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
        tensors = {
            f"{key}.{name}": value
            for name, parameter in self._named.items()
            for key, value in self._optimizer.state.get(parameter, {}).items()
        }
        return tensors, {"updates": self.updates}

    def load_state(self, tensors: Mapping[str, Tensor], data: Mapping[str, Any]) -> None:
        by_parameter: dict[str, dict[str, Tensor]] = {}
        for full, value in tensors.items():
            key, name = full.split(".", 1)
            by_parameter.setdefault(name, {})[key] = value
        for name, state in by_parameter.items():
            parameter = self._named[name]
            # AdamW keeps its step counter on the CPU wherever the parameter is.
            self._optimizer.state[parameter] = {
                key: value.clone() if key == "step" else value.to(parameter.device)
                for key, value in state.items()
            }
        self.updates = int(data["updates"])


def schedule_factor(update: int, total: int, config: OptimizerConfig) -> float:
    """Factor on the learning rate of an update (counted from 0)."""
    if update < config.warmup_steps:
        return (update + 1) / config.warmup_steps
    progress = (update - config.warmup_steps) / max(total - config.warmup_steps, 1)
    match config.schedule:
        case "constant":
            return 1.0
        case "linear":
            return max(1.0 - progress, 0.0)
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
