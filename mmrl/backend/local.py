"""AdamW on the policy's own parameters, whole on every process; gradients are added up."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from mmrl.backend.world import World
from mmrl.config import OptimizerConfig
from mmrl.errors import UserError


class LocalBackend:
    """AdamW with a warm-up and decay schedule; state is kept by parameter name."""

    def __init__(
        self,
        model: nn.Module,
        config: OptimizerConfig,
        total_updates: int,
        world: World | None = None,
    ) -> None:
        self._config, self._total = config, total_updates
        self._world = world or World()
        self._named = trained(model)
        self._optimizer = torch.optim.AdamW(
            parameter_groups(self._named.values(), config),
            lr=config.learning_rate,
            betas=config.betas,
            fused=True,
        )
        self.updates = 0

    @property
    def in_step(self) -> bool:
        return False

    def gathered(self) -> AbstractContextManager[None]:
        return nullcontext()

    def backward(self, loss: Tensor, *, last: bool = True) -> None:
        loss.backward()

    def step(self, place: int | None = None) -> float:
        self._add_up()
        for parameter in self._named.values():
            # No sample reached it: its gradient is zero, as it is where optimisers are sharded.
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        norm = float(nn.utils.clip_grad_norm_(self._named.values(), self._config.max_grad_norm))
        if not math.isfinite(norm):
            self._optimizer.zero_grad()
            raise not_finite()
        for group in self._optimizer.param_groups:
            group["lr"] = self.rate(self.updates if place is None else place)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self.updates += 1
        return norm

    def _add_up(self) -> None:
        """Make every process's gradient the sum of all; one that no process has stays away."""
        if self._world.size == 1:
            return
        used = torch.tensor([p.grad is not None for p in self._named.values()], dtype=torch.int32)
        used = used.to(next(iter(self._named.values())).device)
        self._world.add_up([used])
        shared = [p for p, u in zip(self._named.values(), used.tolist(), strict=True) if u]
        for parameter in shared:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self._world.add_up([p.grad for p in shared if p.grad is not None])

    def rate(self, place: int) -> float:
        return self._config.learning_rate * schedule_factor(place, self._total, self._config)

    def state(self) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
        tensors = {
            f"{key}.{name}": value
            for name, parameter in self._named.items()
            for key, value in self._optimizer.state.get(parameter, {}).items()
        }
        return tensors if self._world.first else {}, {"updates": self.updates}

    def load_state(self, tensors: Mapping[str, Tensor], data: Mapping[str, Any]) -> None:
        by_parameter: dict[str, dict[str, Tensor]] = {}
        for full, value in tensors.items():
            key, name = full.split(".", 1)
            if key == MASTER:
                # A sharded run's weights in full precision; here the weights are all there is.
                continue
            by_parameter.setdefault(name, {})[key] = value
        for name, state in by_parameter.items():
            parameter = self._named[name]
            # AdamW keeps its step counter on the CPU wherever the parameter is.
            self._optimizer.state[parameter] = {
                key: value.clone() if key == "step" else value.to(parameter.device)
                for key, value in state.items()
            }
        self.updates = int(data["updates"])


MASTER = "master"
"""Key of float32 copies of the weights, which a sharded run keeps of weights in 16 bits."""


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that learn, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def parameter_groups(
    parameters: Iterable[nn.Parameter], config: OptimizerConfig
) -> list[dict[str, Any]]:
    """The optimiser's groups: matrices decay, vectors (biases, norms) do not."""
    known = list(parameters)
    groups = [
        {"params": [p for p in known if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in known if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def not_finite() -> UserError:
    """What to say when a step's gradient is not finite."""
    return UserError(
        "the gradient is not finite: lower optimizer.learning_rate or train in float32; "
        "the last checkpoint is from before this step"
    )


def schedule_factor(update: int, total: int, config: OptimizerConfig) -> float:
    """Factor on the learning rate of the update at a place (from 0) of `total` planned ones."""
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
