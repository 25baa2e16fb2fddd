"""AdamW on the policy's own parameters, whole on every process; gradients are added up."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from mmrl.backend.adamw import AdamW
from mmrl.backend.world import World
from mmrl.config import FLOAT16, OptimizerConfig
from mmrl.errors import ConfigError, TrainingError
from mmrl.policy.buckets import Buckets


class LocalBackend:
    """AdamW with a warm-up and decay schedule; state is kept by parameter name.

    What is added up is float32 whatever the weights are in: gradients over micro-batches and
    processes, moments, and of bfloat16 weights the weights themselves. `seed` and the number of the
    update decide how moments are rounded with `optimizer.moments=bfloat16`. `factors` multiply the
    learning rate of single parameters.
    """

    def __init__(
        self,
        model: nn.Module,
        config: OptimizerConfig,
        total_updates: int,
        world: World | None = None,
        seed: int = 0,
        factors: Mapping[nn.Parameter, float] | None = None,
    ) -> None:
        self._config, self._total, self._seed = config, total_updates, seed
        self._world = world or World()
        self._named = trained(model)
        if any(parameter.dtype == torch.float16 for parameter in self._named.values()):
            raise ConfigError(FLOAT16)
        half = any(parameter.dtype == torch.bfloat16 for parameter in model.parameters())
        self._optimizer = AdamW(self._named.values(), config, half, factors)
        self._gradients: dict[nn.Parameter, Tensor] = {}
        self.updates = 0

    @property
    def in_step(self) -> bool:
        return False

    @property
    def skips(self) -> bool:
        return self._config.skip_above is not None

    def gathered(self) -> AbstractContextManager[None]:
        return nullcontext()

    def backward(self, loss: Tensor, *, last: bool = True) -> None:
        with self._collecting():
            loss.backward()

    def send_back(self, roots: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """Add what follows of gradients, each [...] of its tensor's shape."""
        with self._collecting():
            torch.autograd.backward(roots, gradients)

    @contextmanager
    def _collecting(self) -> Iterator[None]:
        masters = self._optimizer.masters
        handles = [p.register_post_accumulate_grad_hook(self._collect) for p in masters]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _collect(self, parameter: Any) -> None:
        """Add a 16-bit gradient to its float32 sum and let it go, while the others are made."""
        if parameter in self._gradients:
            self._gradients[parameter].add_(parameter.grad)
        else:
            self._gradients[parameter] = parameter.grad.float()
        parameter.grad = None

    def step(self, place: int | None = None) -> float:
        gradients = self._taken()
        norm = nn.utils.get_total_norm(gradients.values())
        limit = self._config.skip_above
        if limit is not None and not norm <= limit:
            self._optimizer.zero_grad()
            return float(norm)
        if not math.isfinite(norm):
            self._optimizer.zero_grad()
            raise not_finite()
        factor = torch.clamp(self._config.max_grad_norm / (norm + 1e-6), max=1.0)
        torch._foreach_mul_(list(gradients.values()), factor)
        draw = hash((self._seed, self.updates))
        self._optimizer.move(gradients, self.rate(self.updates if place is None else place), draw)
        self.updates += 1
        return float(norm)

    def _taken(self) -> dict[nn.Parameter, Tensor]:
        """Every parameter's gradient, the sum over the processes.

        Where no sample of any process reached a parameter it is zero, as it is where optimisers are
        sharded.
        """
        for parameter in self._optimizer.masters:
            if parameter.grad is not None:
                self._collect(parameter)
        found, self._gradients = self._gradients, {}
        found |= {p: p.grad for p in self._named.values() if p.grad is not None}
        used = self._used(found)
        made = {p: found[p] if p in found else _zeros(p) for p in self._named.values()}
        self._world.add_up([made[p] for p in used])
        return made

    def _used(self, found: Collection[nn.Parameter]) -> list[nn.Parameter]:
        """The parameters that have a gradient on any process."""
        known = list(self._named.values())
        if self._world.size == 1:
            return [p for p in known if p in found]
        used = torch.tensor([p in found for p in known], dtype=torch.int32, device=known[0].device)
        self._world.add_up([used])
        return [p for p, u in zip(known, used.tolist(), strict=True) if u]

    def rate(self, place: int) -> float:
        return self._config.learning_rate * schedule_factor(place, self._total, self._config)

    def state(self) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
        tensors = {
            f"{key}.{name}": value
            for name, parameter in (self._named.items() if self._world.first else ())
            for key, value in self._optimizer.tensors(parameter)
        }
        return tensors, {"updates": self.updates}

    def state_in_buckets(self) -> tuple[Buckets, Mapping[str, Any]]:
        tensors, data = self.state()
        return iter([tensors]), data

    def load_state(self, tensors: Mapping[str, Tensor], data: Mapping[str, Any]) -> None:
        keys: dict[str, list[str]] = {name: [] for name in self._named}
        for full in tensors:
            key, name = full.split(".", 1)
            keys[name].append(key)
        for name, found in keys.items():
            self._optimizer.load(self._named[name], {k: tensors[f"{k}.{name}"] for k in found})
        self.updates = int(data["updates"])


def _zeros(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter, dtype=torch.promote_types(parameter.dtype, torch.float32))


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that learn, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def not_finite() -> TrainingError:
    """What to say when a step's gradient is not finite."""
    return TrainingError(
        "the gradient is not finite: lower optimizer.learning_rate or train in float32; "
        "what was saved is from before this step"
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
