"""The entropy bonus: in expectation, its policy gradient is the gradient of the entropy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from mmrl.algorithms.compose import compose
from mmrl.algorithms.stages.credit import pair
from mmrl.algorithms.stages.refiners import EntropyBonus
from mmrl.errors import UserError
from tests.algorithms.cases import context, group


def test_its_expected_gradient_is_that_of_the_entropy() -> None:
    """Over all tokens that can be drawn, in float64: sum of p x bonus x d log p = c x d entropy."""
    logits = torch.tensor([0.3, -1.2, 2.0, 0.7], dtype=torch.float64, requires_grad=True)
    logprobs = logits.log_softmax(-1)
    bonus = torch.from_numpy(EntropyBonus(0.25).bonus(logprobs.detach().numpy()))
    ((logprobs.exp().detach() * bonus) * logprobs).sum().backward()
    estimated = logits.grad
    assert estimated is not None
    fresh = logits.detach().clone().requires_grad_()
    log_all = fresh.log_softmax(-1)
    (-0.25 * (log_all.exp() * log_all).sum()).backward()
    assert fresh.grad is not None
    torch.testing.assert_close(estimated, fresh.grad, rtol=1e-12, atol=1e-12)


def test_it_is_added_to_what_was_sampled_and_to_nothing_else() -> None:
    sampled, given = pair(group([1.0, 0.0], [2, 2]), np.array([0.5, -0.5]), 0)
    nan = np.full(2, np.nan)
    given = replace(given, response=replace(given.response, logprobs=nan), sampled=False)
    first, second = EntropyBonus(0.5)([sampled, given], context())
    assert first.advantages.tolist() == pytest.approx([0.5 + 0.05, 0.5 + 0.1])
    assert second.advantages.tolist() == [-0.5, -0.5]


def test_whole_groups_know_no_tokens() -> None:
    with pytest.raises(UserError, match="sequences only"):
        compose({"name": "gvpo", "refine": ["entropy_bonus"]})
