"""Which responses are a pair, what is masked, and what a pair loss is over several pairs."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from mmrl.algorithms.stages.pairs import Paired, Selection
from mmrl.objective import Reducer
from mmrl.objectives.preference import Preference
from mmrl.train.losses import policy_loss, token_batch, token_weights
from tests.algorithms.cases import context, evaluate, group

NAN = math.nan
REWARDS = [0.5, 1.0, None, 0.0, 1.0, 0.5]


@pytest.mark.parametrize(
    ("select", "expected"),
    [
        ("best_worst", [NAN, 1, NAN, -1, NAN, NAN]),
        ("best", [-1, 1, NAN, -1, NAN, -1]),
        ("all", [0, 2, NAN, -2, 2, 0]),
    ],
)
def test_ranks_and_what_is_in_no_pair(select: Selection, expected: list[float]) -> None:
    samples = Paired(select)([group(REWARDS)], context())
    found = [s.advantages[0] if s.mask.all() else NAN for s in samples]
    np.testing.assert_array_equal(found, expected)
    assert all(s.mask.all() or not s.mask.any() for s in samples)


@pytest.mark.parametrize("select", ["best_worst", "best", "all"])
@pytest.mark.parametrize("rewards", [[0.3, 0.3], [None, 1.0], [None, None]])
def test_without_contrast_nothing_is_trained(
    select: Selection, rewards: list[float | None]
) -> None:
    assert not any(s.mask.any() for s in Paired(select)([group(rewards)], context()))


def dpo(lengths: list[int], rewards: list[float], select: Selection, dtype: torch.dtype) -> float:
    """The loss of a group whose responses have log-ratios 0, 1, 2, ... by hand-made log-probs."""
    samples = Paired(select)([group(rewards, lengths)], context())
    samples = [replace(s, ref_logprobs=np.full(len(s.mask), -1.0)) for s in samples]
    at = [np.full(n, -1.0 + i / n) for i, n in enumerate(lengths)]
    weights = token_weights(samples, Reducer("group-mean"))
    batch = token_batch(samples, weights, torch.tensor(np.concatenate(at), dtype=dtype))
    return float(policy_loss(batch, Preference("dpo", 0.5)))


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_all_pairs_are_every_two_of_different_rewards() -> None:
    """Log-ratios are 0, 1, 2; rewards order the pairs (0 > 1), (0 > 2), (1 > 2)."""
    margins = [0 - 1, 0 - 2, 1 - 2]
    expected = sum(softplus(-0.5 * m) for m in margins) / 3
    found = dpo([2, 3, 4], [1.0, 0.5, 0.0], "all", torch.float64)
    assert found == pytest.approx(expected, abs=1e-12)
    best = (softplus(0.5) + softplus(1.0)) / 2
    assert dpo([2, 3, 4], [1.0, 0.5, 0.0], "best", torch.float64) == pytest.approx(best, abs=1e-12)
    two = softplus(1.0)
    assert dpo([2, 3, 4], [1.0, 0.5, 0.0], "best_worst", torch.float64) == pytest.approx(two)


def test_equal_rewards_make_no_pair_at_any_length_and_precision() -> None:
    """Means of equal numbers over ragged lengths round apart; ranks do not."""
    lengths = [3, 7, 1300, 49]
    expected = (softplus(-0.5 * 1) + softplus(-0.5 * 2) + softplus(-0.5 * 3)) / 3
    rewards = [0.1, 0.7, 0.7, 0.7]
    assert dpo(lengths, rewards, "all", torch.float32) == pytest.approx(expected, abs=2e-4)


def test_graded_rewards_give_the_rejected_of_each_pair_its_gradient() -> None:
    """The middle one of three is chosen in one pair and rejected in another."""
    rows = [{"reward": r, "logprobs": [-1.0], "ref_logprobs": [-1.0]} for r in (1.0, 0.5, 0.0)]
    found = evaluate("dpo", [rows], pairs="all", beta=1.0)["gradient"][0]
    np.testing.assert_allclose([g[0] for g in found], [-1 / 3, 0.0, 1 / 3], atol=1e-12)
    two = evaluate("simpo", [rows], pairs="best_worst")["gradient"][0]
    assert two[0][0] < 0 < two[2][0] and two[1][0] == 0.0
