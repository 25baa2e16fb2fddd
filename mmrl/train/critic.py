"""A critic: what a response will earn from each of its tokens on, learnt beside the policy.

The value of a token is that of the state before it, read off the hidden state that predicts it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmrl.backend.local import LocalBackend
from mmrl.config import CriticConfig, OptimizerConfig
from mmrl.errors import ConfigError, TrainingError
from mmrl.policy.head import lm_head
from mmrl.policy.policy import Policy
from mmrl.train.losses import value_loss
from mmrl.train.measure import measured
from mmrl.train.micro_batches import Packing, micro_batches, unweighted
from mmrl.types import Bools, Floats, TrainSample

WEIGHT, OPTIMIZER = "weight.", "optimizer."


class Critic:
    """A linear value head on a trunk of its own, or on the policy's, which it then leaves alone.

    It starts at 0 everywhere, or as another one (`take`), and learns with an optimiser of its own;
    a frozen one stays as it starts.
    """

    def __init__(self, policy: Policy, config: CriticConfig, budget: int) -> None:
        self._config, self._budget = config, budget
        self._trunk = policy.trained_copy() if config.trunk == "own" else policy
        width = lm_head(policy.model).get_parameter("weight").shape[-1]
        self._head = nn.Linear(width, 1, device=policy.device)
        nn.init.zeros_(self._head.weight)
        nn.init.zeros_(self._head.bias)
        parts = {"head": self._head}
        self._learnt = nn.ModuleDict(
            {**parts, "trunk": self._trunk.model} if config.trunk == "own" else parts
        )
        self._weights = {n: p for n, p in self._learnt.named_parameters() if p.requires_grad}
        self._backend = self._made_backend()

    def _made_backend(self) -> LocalBackend | None:
        """An optimiser that knows the weights of now; none of a frozen critic."""
        if self._config.frozen:
            self._learnt.requires_grad_(False)
            return None
        optimizer = OptimizerConfig(
            learning_rate=self._config.learning_rate,
            warmup_steps=self._config.warmup_steps,
            max_grad_norm=self._config.max_grad_norm,
        )
        return LocalBackend(self._learnt, optimizer, total_updates=1)

    def values(self, samples: Sequence[TrainSample]) -> list[Floats]:
        """Values [T] of every sample's response."""
        read = {"values": lambda hidden, targets: self._read(hidden)}
        return measured(self._trunk, samples, self._budget, read)["values"]

    def update(self, samples: Sequence[TrainSample]) -> float | None:
        """Take one step towards the samples' returns, unless frozen; None where none has any.

        Returns the mean loss of a token's value. Raises TrainingError where it is not finite.
        """
        known = [s for s in samples if s.returns is not None and s.response.written.any()]
        if not known:
            return None
        if self._backend is None:
            said = [_loss(_tensor([s.values]), [s], None) for s in known]
        else:
            own = self._config.trunk == "own"
            with self._trunk.learning(self._backend.updates) if own else nullcontext():
                said = self._backward(known, self._backend)
            self._backend.step()
        return sum(float(loss.detach()) for loss in said) / _written(known)

    def _backward(self, known: Sequence[TrainSample], backend: LocalBackend) -> list[Tensor]:
        """Add up the gradient of the mean loss; returns the losses of the micro-batches."""
        said, tokens = [], _written(known)
        own = self._config.trunk == "own"
        send = backend.send_back if own else None
        packing = Packing(self._budget)
        for part in micro_batches(self._trunk, unweighted(known), packing, send=send):
            with torch.set_grad_enabled(own):
                hidden = self._trunk.response_hidden(part.layout, part.prompts)
            members = [member.sample for member in part.members]
            loss = _loss(part.layout.spread(self._read(hidden)), members, self._config.clip)
            if not torch.isfinite(loss):
                raise TrainingError(
                    "the critic's loss is not finite: lower critic.learning_rate, or check the "
                    "rewards in rollouts.jsonl; what was saved is from before this step"
                )
            backend.backward(loss / tokens)
            said.append(loss.detach())
        return said

    def state(self) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
        """Everything needed to continue: weights and optimiser by name and shape, and JSON data."""
        weights = {f"{WEIGHT}{name}": p.detach() for name, p in self._weights.items()}
        if self._backend is None:
            return weights, {"updates": 0}
        tensors, data = self._backend.state()
        return {**weights, **{f"{OPTIMIZER}{n}": t for n, t in tensors.items()}}, data

    def load_state(self, tensors: Mapping[str, Tensor], data: Mapping[str, Any]) -> None:
        """Continue from `state()`, shapes as there; raises ConfigError at another kind's."""
        self.take(tensors)
        if self._backend is not None:
            self._backend.load_state(_under(OPTIMIZER, tensors), data)

    def take(self, tensors: Mapping[str, Tensor]) -> None:
        """Start as the critic of this `state()`, of its shapes, bit for bit, with a new optimiser.

        Raises ConfigError where it is another kind of critic's.
        """
        saved = _under(WEIGHT, tensors)
        for name in sorted(saved.keys() ^ self._weights.keys()):
            has = "no" if name in self._weights else "a weight"
            raise _other(f"it has {has} '{name}'")
        for name, parameter in self._weights.items():
            if saved[name].shape != parameter.shape:
                shapes = f"{list(saved[name].shape)}, here it is {list(parameter.shape)}"
                raise _other(f"its '{name}' is {shapes}")
        with torch.no_grad():
            for name, parameter in self._weights.items():
                parameter.copy_(saved[name])
        self._backend = self._made_backend()

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


def _loss(values: Tensor, samples: Sequence[TrainSample], clip: float | None) -> Tensor:
    """Sum of the losses of values [M] over the tokens that the samples' policy wrote."""

    def flat(arrays: Sequence[Floats | Bools | None]) -> Tensor:
        return _tensor(arrays).to(values.device, values.dtype)

    old, returns = flat([s.values for s in samples]), flat([s.returns for s in samples])
    # Nobody's value is that of a token which an environment told.
    written = flat([s.response.written for s in samples])
    return (value_loss(values, old, returns, clip) * written).sum()


def _tensor(arrays: Sequence[Floats | Bools | None]) -> Tensor:
    return torch.from_numpy(np.concatenate([array for array in arrays if array is not None]))


def _written(samples: Sequence[TrainSample]) -> int:
    return sum(int(s.response.written.sum()) for s in samples)


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _other(what: str) -> ConfigError:
    return ConfigError(
        f"the critic to start as does not fit: {what}; both need the same model, model.lora, "
        "model.freeze_tower and critic.trunk"
    )
