"""A parameter that no sample reached has a gradient of zero, as where optimisers are sharded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from mmrl.backend.local import LocalBackend
from mmrl.config import OptimizerConfig


def test_a_parameter_that_no_sample_reached_decays_and_keeps_its_momentum() -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict({"used": nn.Linear(3, 2), "sometimes": nn.Linear(3, 2)})
    twin = nn.ModuleDict({"used": nn.Linear(3, 2), "sometimes": nn.Linear(3, 2)})
    twin.load_state_dict(model.state_dict())
    config = OptimizerConfig(learning_rate=0.1, weight_decay=0.1, max_grad_norm=100.0)
    backend = LocalBackend(model, config, total_updates=3)
    decayed = [p for p in twin.parameters() if p.ndim > 1]
    rest = [p for p in twin.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    reference = torch.optim.AdamW(groups, lr=0.1)
    for step in range(3):
        inputs = torch.randn(4, 3)
        reached = ("used", "sometimes") if step == 1 else ("used",)
        backend.backward(
            torch.stack([model[name](inputs).square().sum() for name in reached]).sum()
        )
        backend.step()
        reference.zero_grad()
        # In the reference every parameter is part of the loss, some by a factor of zero.
        weights = {"used": 1.0, "sometimes": float(step == 1)}
        torch.stack(
            [w * twin[name](inputs).square().sum() for name, w in weights.items()]
        ).sum().backward()
        reference.step()
        for found, wanted in zip(model.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-7)
    assert {name for name in backend.state()[0] if name.startswith("step.")} == {
        f"step.{name}" for name, _ in model.named_parameters()
    }


def test_parts_learn_at_rates_of_their_own() -> None:
    """A first step of AdamW moves every weight by its learning rate."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    parts = dict(zip(model, (0.25, 1.0, 3.0), strict=True))
    factors = {p: factor for part, factor in parts.items() for p in part.parameters()}
    before = [p.detach().clone() for p in model.parameters()]
    config = OptimizerConfig(learning_rate=0.125, max_grad_norm=1e9)
    backend = LocalBackend(model, config, total_updates=1, factors=factors)
    backend.backward(sum(p.sum() for p in model.parameters()))
    backend.step()
    for parameter, start in zip(model.parameters(), before, strict=True):
        moved = (start - parameter.detach()).flatten()
        assert torch.allclose(moved, torch.full_like(moved, 0.125 * factors[parameter]), rtol=1e-4)


@pytest.mark.parametrize("moments", ["float32", "bfloat16"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_update_that_is_skipped_leaves_no_trace(
    dtype: torch.dtype, moments: Literal["float32", "bfloat16"]
) -> None:
    """Two updates with a bad one between them are the two, bit for bit; the bad one is told."""

    def made(bad: Sequence[float]) -> tuple[dict[str, Tensor], list[float]]:
        torch.manual_seed(0)
        model = nn.Linear(3, 2).to(dtype)
        config = OptimizerConfig(learning_rate=0.1, skip_above=50.0, moments=moments)
        backend = LocalBackend(model, config, total_updates=4)
        norms = []
        for scale in (1.0, *bad, 2.0):
            backend.backward((scale * model(torch.ones(1, 3, dtype=dtype))).sum())
            norms.append(backend.step())
        assert backend.updates == 2
        assert all(p.grad is None for p in model.parameters())
        return {**backend.state()[0], **model.state_dict()}, norms

    wanted, _ = made([])
    found, norms = made([100.0, math.nan, math.inf])
    assert norms[1] == pytest.approx(100 * math.sqrt(8))  # 6 weights and 2 biases
    assert not any(math.isfinite(norm) for norm in norms[2:4])
    assert wanted.keys() == found.keys()
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)
