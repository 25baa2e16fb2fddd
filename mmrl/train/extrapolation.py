"""Steps in two: one ahead, whose policy plays, and one from where that began. Extragradient.

The first of two steps keeps weights and optimiser and moves on; the second is made of what the
moved policy answers, from the weights that were kept (Korpelevich, 1976; for Nash learning, EGPO,
arXiv 2503.08942).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mmrl.backend.backend import Backend
from mmrl.policy.policy import Policy

WEIGHT, OPTIMIZER = "weight.", "optimizer."


class Extrapolation:
    """Keeps the state of a step ahead's start until it is gone back to."""

    def __init__(self, policy: Policy, backend: Backend) -> None:
        self._policy, self._backend = policy, backend
        self._tensors: dict[str, Tensor] = {}
        self._data: Mapping[str, Any] = {}

    def begin(self) -> None:
        """Keep what there is before a step ahead; after one, go back to what was kept."""
        if self._tensors:
            self._go_back()
            return
        moments, self._data = self._backend.state()
        self._tensors = {f"{WEIGHT}{n}": p.detach().clone() for n, p in self._weights().items()}
        self._tensors |= {f"{OPTIMIZER}{n}": t.detach().clone() for n, t in moments.items()}

    @torch.no_grad()
    def _go_back(self) -> None:
        kept, self._tensors = self._tensors, {}
        for name, parameter in self._weights().items():
            parameter.copy_(kept[f"{WEIGHT}{name}"])
        moments = {
            name.removeprefix(OPTIMIZER): tensor
            for name, tensor in kept.items()
            if name.startswith(OPTIMIZER)
        }
        self._backend.load_state(moments, self._data)
        self._policy.store.forget()

    def _weights(self) -> dict[str, torch.nn.Parameter]:
        return {n: p for n, p in self._policy.model.named_parameters() if p.requires_grad}

    def state(self) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
        """What is kept, in its shapes, and JSON data; nothing between two steps ahead."""
        return self._tensors, self._data

    def load_state(self, tensors: Mapping[str, Tensor], data: Mapping[str, Any]) -> None:
        """Go on from `state()`, shapes as there."""
        self._tensors, self._data = dict(tensors), dict(data)
