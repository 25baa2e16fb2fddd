"""A critic: what a response will earn from each of its tokens on, learnt beside the policy.

The value of a token is that of the state before it, read off the hidden state that predicts it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmrl.backend.local import LocalBackend
from mmrl.config import CriticConfig, OptimizerConfig
from mmrl.losses import value_loss
from mmrl.measure import forward_rows, measured
from mmrl.policy.policy import Policy
from mmrl.types import Bools, Floats, TrainSample


@dataclass(frozen=True)
class CriticStats:
    """Mean loss of a value, and the share of the returns' variance that the values explained."""

    loss: float
    explained: float


class Critic:
    """A linear value head on a trunk of its own, or on the policy's, which it then leaves alone.

    It starts at 0 everywhere and learns with an optimiser of its own.
    """

    def __init__(self, policy: Policy, config: CriticConfig, budget: int) -> None:
        self._config, self._budget = config, budget
        self._trunk = policy.trained_copy() if config.trunk == "own" else policy
        width = policy.model.get_output_embeddings().weight.shape[-1]
        self._head = nn.Linear(width, 1, device=policy.device)
        nn.init.zeros_(self._head.weight)
        nn.init.zeros_(self._head.bias)
        parts = {"head": self._head}
        self._learnt = nn.ModuleDict(
            {**parts, "trunk": self._trunk.model} if config.trunk == "own" else parts
        )
        optimizer = OptimizerConfig(
            learning_rate=config.learning_rate,
            warmup_steps=config.warmup_steps,
            max_grad_norm=config.max_grad_norm,
        )
        self._backend = LocalBackend(self._learnt, optimizer, total_updates=1)

    def values(self, samples: Sequence[TrainSample]) -> list[Floats]:
        """Values [T] of every sample's response."""
        read = {"values": lambda hidden, targets: self._read(hidden)}
        return measured(self._trunk, samples, self._budget, read)["values"]

    def update(self, samples: Sequence[TrainSample]) -> CriticStats | None:
        """Take one step towards the samples' returns; None where none of them has any."""
        known = [s for s in samples if s.returns is not None and len(s.response.ids)]
        if not known:
            return None
        tokens = sum(int(s.response.written.sum()) for s in known)
        total = 0.0
        for members, layout, prompts in forward_rows(self._trunk, known, self._budget):
            with torch.set_grad_enabled(self._config.trunk == "own"):
                hidden = self._trunk.response_hidden(layout, prompts)
            values = self._read(hidden)
            errors = value_loss(
                values,
                _flat([s.values for s in members], values),
                _flat([s.returns for s in members], values),
                self._config.clip,
            )
            # Nobody's value is that of a token which an environment told.
            loss = (errors * _flat([s.response.written for s in members], values)).sum()
            self._backend.backward(loss / tokens)
            total += float(loss.detach())
        self._backend.step()
        return CriticStats(total / tokens, explained_variance(known))

    def state(self) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
        """Everything needed to continue: weights and optimiser as named tensors, and JSON data."""
        tensors, data = self._backend.state()
        weights = {f"weight.{name}": p.detach() for name, p in self._trained()}
        return {**weights, **{f"optimizer.{n}": t for n, t in tensors.items()}}, data

    def load_state(self, tensors: Mapping[str, Tensor], data: Mapping[str, Any]) -> None:
        """Continue from `state()`."""
        with torch.no_grad():
            for name, parameter in self._trained():
                parameter.copy_(tensors[f"weight.{name}"])
        prefix = "optimizer."
        moments = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        self._backend.load_state(moments, data)

    def _trained(self) -> list[tuple[str, nn.Parameter]]:
        return [(n, p) for n, p in self._learnt.named_parameters() if p.requires_grad]

    def _read(self, hidden: Tensor) -> Tensor:
        values: Tensor = self._head(hidden.float())[:, 0]
        return values


def explained_variance(samples: Sequence[TrainSample]) -> float:
    """1 - var(returns - values) / var(returns) over tokens; 0 where the returns are constant."""
    returns = np.concatenate(
        [s.returns[s.response.written] for s in samples if s.returns is not None]
    )
    values = np.concatenate([s.values[s.response.written] for s in samples if s.values is not None])
    spread = float(returns.var())
    return 1 - float((returns - values).var()) / spread if spread > 0 else 0.0


def _flat(arrays: Sequence[Floats | Bools | None], like: Tensor) -> Tensor:
    known = [array for array in arrays if array is not None]
    return torch.from_numpy(np.concatenate(known)).to(like.device, like.dtype)
