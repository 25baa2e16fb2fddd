"""Flow balance: gradients by log-probs and log-flows against finite differences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mmrl.algorithms.gflownet import Params, build
from mmrl.algorithms.stages.flow_balance import Balance, FlowBalance
from mmrl.types import Episode, Floats, Group, TokenSpan
from tests.algorithms.cases import context, group

RNG = np.random.default_rng(3)
EPSILON = 1e-6


def loss(balance: Balance, decay: float, flows: Floats, logprobs: Floats) -> float:
    """The paper's sum over stretches, written out."""
    n, total, weight = len(logprobs), 0.0, 0.0
    for i in range(n):
        for j in range(i + 1, n + 1):
            if balance == "detailed" and j != i + 1:
                continue
            own = 1.0 if balance == "detailed" else decay ** (j - i)
            total += own * (flows[i] + logprobs[i:j].sum() - flows[j]) ** 2
            weight += own
    return float(total if balance == "detailed" else total / weight)


def slopes(function: object, values: Floats) -> Floats:
    """Central differences of a function by each of its values."""
    found = np.zeros_like(values)
    for k in range(len(values)):
        step = np.zeros_like(values)
        step[k] = EPSILON
        found[k] = (function(values + step) - function(values - step)) / (2 * EPSILON)  # type: ignore[operator]
    return found


@pytest.mark.parametrize("balance", ["subtrajectory", "detailed"])
@pytest.mark.parametrize("turns", [1, 2, 5])
def test_gradients_are_those_of_the_sum_over_stretches(balance: Balance, turns: int) -> None:
    flows, logprobs = RNG.normal(size=turns + 1), RNG.normal(size=turns)
    by_turn, by_flow = FlowBalance(balance, 0.7).gradients(flows, logprobs)
    expected = slopes(lambda ls: loss(balance, 0.7, flows, ls), logprobs)
    np.testing.assert_allclose(by_turn, expected, atol=1e-7)
    expected = slopes(lambda fs: loss(balance, 0.7, fs, logprobs), flows)
    np.testing.assert_allclose(by_flow, expected, atol=1e-7)


def episode(values: list[Floats], rewards: list[float | None]) -> Group:
    """Episodes of two turns, tokens 0 to 2 and 4 to 6, with a token between that was told."""
    made = group(rewards, [6] * len(rewards), values=values)
    turns = (TokenSpan(0, 3), TokenSpan(4, 6))
    played = [replace(r, episode=Episode(turns, ("a", "b"))) for r in made.responses]
    return replace(made, responses=tuple(played))


def test_tokens_get_the_gradient_of_their_turn_and_flows_that_of_their_state() -> None:
    values = np.array([0.3, 9.0, 9.0, 9.0, -0.4, 9.0])
    (sample,) = FlowBalance("detailed")([episode([values], [-1.0])], context())
    # Token t has log-prob -0.1 (t + 1): the turns have -0.6 and -1.1.
    first, second = 0.3 - 0.6 + 0.4, -0.4 - 1.1 + 1.0
    assert sample.advantages.tolist() == pytest.approx([-2 * first] * 3 + [0.0] + [-2 * second] * 2)
    assert sample.mask.tolist() == [True] * 3 + [False] + [True] * 2
    assert sample.returns is not None
    moved = values - sample.returns
    assert moved.tolist() == pytest.approx([2 * first, 0, 0, 0, 2 * second - 2 * first, 0])


def test_what_balances_teaches_nothing_and_the_unscorable_neither() -> None:
    """With flows that are log-rewards less what is still to be said, no stretch misses."""
    balanced = np.array([-1.0 + 0.6 + 1.1, 0, 0, 0, -1.0 + 1.1, 0])
    made = episode([balanced, balanced], [-1.0, None])
    for name in ("subtrajectory", "detailed"):
        known, unknown = FlowBalance(name)([made], context())  # type: ignore[arg-type]
        np.testing.assert_allclose(known.advantages, 0, atol=1e-12)
        np.testing.assert_allclose(known.returns, balanced, atol=1e-12)
        assert unknown.returns is None and not unknown.mask.any()


def test_an_answer_of_one_turn_learns_its_own_normaliser() -> None:
    """Both are then trajectory balance with log Z: the value of the first token."""
    algorithm = build(Params(balance="subtrajectory", floor=0.01))
    made = group([np.e], [2], values=[np.array([0.5, 7.0])])
    (sample,) = algorithm.train_samples(algorithm.shape_rewards([made], context()), context())
    miss = 0.5 - 0.3 - 1.0
    assert sample.advantages.tolist() == pytest.approx([-2 * miss] * 2)
