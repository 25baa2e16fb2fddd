"""What an objective's bounds did is what autograd says: a clipped token's loss has no gradient."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from mmrl.objective import Bounds, Objective, TokenBatch
from mmrl.objectives.bounded_weight import CISPO
from mmrl.objectives.clipped_likelihood import CPGD
from mmrl.objectives.clipped_ratio import Clipped, Ratio
from mmrl.objectives.implied_policies import NFT
from mmrl.objectives.named import OBJECTIVES
from mmrl.train.losses import token_batch
from mmrl.types import Response, TrainSample

SEQUENCES, TOKENS = 24, 4
CASES: dict[str, Objective] = {
    **{n: o for n, o in OBJECTIVES.items() if type(o).bounds is not Objective.bounds},
    "no clip below": Clipped(low=1.0),
    "no room": Clipped(low=0.0, high=0.0),
    "dual": Clipped(low=0.1, high=0.3, dual=1.5),
    "cap": Clipped(low=0.1, high=0.3, cap=1.6),
    "cap below the clip": Clipped(low=0.1, high=1.0, cap=1.5),
    "dual and cap": Clipped(low=0.1, high=0.3, cap=2.0, dual=1.4),
    "cap below dual": Clipped(low=0.1, high=0.3, cap=1.4, dual=2.0),
    "cpgd": CPGD(drift=0.0),
    "cispo with a floor": CISPO(low=0.8, high=1.2),
    "nft": NFT(max_log_ratio=0.4),
    "nft at its floor": NFT(max_log_ratio=0.4, epsilon=0.9),
}
RATIOS: tuple[Ratio, ...] = ("token", "sequence-mean", "sequence-sum", "sequence-token")
CLIPPED = {name: o for name, o in CASES.items() if isinstance(o, Clipped)}
CASES |= {f"{n} {r}": replace(o, ratio=r) for n, o in CLIPPED.items() for r in RATIOS}


def batch_of(
    log_ratio: np.ndarray, advantages: np.ndarray, mask: np.ndarray | None = None
) -> tuple[TokenBatch, Tensor]:
    """Sequences [S, T] at these log-ratios, in groups of four, and their log-probs."""
    old = np.full(log_ratio.shape, -1.5)
    mask = np.ones(log_ratio.shape, dtype=bool) if mask is None else mask
    ids = np.arange(log_ratio.shape[1])
    samples = [
        TrainSample(
            prompt=None,
            response=Response(ids, old[i], "", "stop"),
            advantages=advantages[i],
            mask=mask[i],
            old_logprobs=old[i],
            ref_logprobs=old[i] - 0.1,
            group=i // 4,
            second=np.ones(len(ids)),
        )
        for i in range(len(log_ratio))
    ]
    logprobs = torch.tensor((old + log_ratio).ravel(), requires_grad=True)
    return token_batch(samples, [np.ones(len(ids))] * len(samples), logprobs), logprobs


def varied(seed: int = 0) -> tuple[TokenBatch, Tensor]:
    """Ratios within and far beyond all bounds, advantages of both signs and 0, masked tokens."""
    rng = np.random.default_rng(seed)
    level = rng.choice([0.0, 2e-4, -2e-4, 0.15, -0.15, 0.35, -0.35, 0.6, -0.6], SEQUENCES)
    log_ratio = level[:, None] + 1e-4 * rng.standard_normal((SEQUENCES, TOKENS))
    # Three of four are right, so that some is: centred rewards are advantages of 1/4 and -3/4.
    advantages = np.tile([0.25, 0.25, -0.75, 0.25], SEQUENCES // 4)[:, None] * np.ones(TOKENS)
    advantages[::5] = 0.0
    mask = rng.random((SEQUENCES, TOKENS)) > 0.2
    return batch_of(log_ratio, advantages, mask)


def without_gradient(batch: TokenBatch, logprobs: Tensor, objective: Objective) -> Tensor:
    """True [M] where a trained token of some advantage has a loss without any gradient."""
    each = objective.losses(batch)
    rows = [torch.autograd.grad(x, logprobs, retain_graph=True)[0] for x in each]
    still = torch.stack(rows).abs().sum(-1) == 0
    return still & batch.mask & (batch.advantages != 0)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", range(3))
def test_clipped_is_what_has_no_gradient(name: str, seed: int) -> None:
    batch, logprobs = varied(seed)
    found = CASES[name].bounds(batch)
    still = without_gradient(batch, logprobs, CASES[name])
    sides = [side for side in (found.low, found.high) if side is not None]
    clipped = torch.stack([*sides, torch.zeros_like(batch.mask)]).any(0)
    assert torch.equal(clipped & batch.mask, still)
    if len(sides) == 2:
        assert not (sides[0] & sides[1]).any()
    if isinstance(CASES[name], CISPO):
        assert not sides and not still.any()


@pytest.mark.parametrize("name", CLIPPED)
def test_the_cases_reach_both_sides(name: str) -> None:
    """What is compared above is not empty."""
    seen = [CASES[name].bounds(varied(seed)[0]) for seed in range(3)]
    assert any((b.high & varied(i)[0].mask).any() for i, b in enumerate(seen))
    if CLIPPED[name].low < 1:
        assert any((b.low & varied(i)[0].mask).any() for i, b in enumerate(seen))


@pytest.mark.parametrize("name", sorted(set(OBJECTIVES) - {n for n in CASES}))
def test_objectives_without_bounds_keep_every_gradient(name: str) -> None:
    batch, logprobs = varied()
    assert OBJECTIVES[name].bounds(batch) == Bounds()
    still = without_gradient(batch, logprobs, OBJECTIVES[name])
    compared = torch.stack([  # a group of one class has nothing to compare
        (batch.advantages[batch.mask & (batch.group == g)].sign().unique().abs().sum() > 1)
        for g in range(batch.num_groups)
    ])[batch.group]  # fmt: skip
    assert not (still & compared).any()


SHIFTS = (
    # objective, log-ratio, advantage: clipped below, above
    ("clipped", 0.3, 1.0, 0, 1),
    ("clipped", 0.3, -1.0, 0, 0),
    ("clipped", -0.3, -1.0, 1, 0),
    ("clipped", -0.3, 1.0, 0, 0),
    ("clipped", 0.18, 1.0, 0, 0),  # a ratio of 1.197
    ("clipped", 0.19, 1.0, 0, 1),  # of 1.209
    ("clipped", -0.21, -1.0, 0, 0),  # of 0.811
    ("gspo", 0.01, 1.0, 0, 1),
    ("gspo", 3.5e-4, 1.0, 0, 0),
    ("gspo", -3.5e-4, -1.0, 1, 0),
    ("two_sided", 1.3, -1.0, 0, 0),  # a ratio of 3.7
    ("two_sided", 1.4, -1.0, 0, 1),  # of 4.06
    ("two_sided", 0.3, 1.0, 0, 1),
    ("cpgd", 0.19, 1.0, 0, 1),
    ("cpgd", -0.19, -1.0, 0, 0),  # of 0.827
    ("cpgd", -0.23, -1.0, 1, 0),  # of 0.795
)


@pytest.mark.parametrize(("name", "shift", "advantage", "low", "high"), SHIFTS)
def test_by_hand(name: str, shift: float, advantage: float, low: int, high: int) -> None:
    batch, _ = batch_of(np.full((1, 3), shift), np.full((1, 3), advantage))
    found = OBJECTIVES[name].bounds(batch)
    assert found.low is not None and found.high is not None
    assert found.low.float().mean() == low
    assert found.high.float().mean() == high


def test_a_bounded_weight_is_no_clip() -> None:
    """Ratios of 0.5, 1 and 1.5 against [0.8, 1.2]; the last token has advantage 0."""
    shifts = np.log([[0.5, 1.0, 1.5, 1.5]])
    batch, _ = batch_of(shifts, np.array([[1.0, 1.0, -1.0, 0.0]]))
    found = CISPO(low=0.8, high=1.2).bounds(batch)
    assert found.weight is not None and found.weight.tolist() == [True, False, True, False]
    # NFT, accuracy 1/2: the implied ratio of a wrong token is 1.5, 1 and 0.5, its floor 0.9.
    batch, _ = batch_of(shifts[:, :3], np.full((1, 3), -0.5))
    found = NFT(epsilon=0.9).bounds(batch)
    assert found.weight is not None and found.weight.tolist() == [False, False, True]
