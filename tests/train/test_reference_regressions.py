"""CoPG and trajectory balance against their papers' formulas, in float64 and by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from mmrl.algorithms.gflownet import LogReward
from mmrl.objective import Reducer
from mmrl.objectives.reference_regressions import CoPG, Regressed, TrajectoryBalance
from tests.train.test_losses import current, loss_and_gradient, samples


def by_hand(logprobs: list[np.ndarray], objective: Regressed) -> float:
    """The mean over groups of what the paper says, with rewards that are off by a constant."""
    batch = samples()
    values = []
    for group in (0, 1):
        places = [i for i, s in enumerate(batch) if s.group == group]
        logs, refs, rewards = [], [], []
        for i in places:
            mask = batch[i].mask
            logs.append(float(logprobs[i][mask].sum()))
            refs.append(float(batch[i].ref_logprobs[mask].sum()))
            rewards.append(float(batch[i].advantages[0]) + 7.0)
        if isinstance(objective, CoPG):
            pairs = list(itertools.combinations(range(len(places)), 2))
            ratios = [a - b for a, b in zip(logs, refs, strict=True)]
            # -(reward difference x ratio difference - beta / 2 x its square), a square short of
            # a constant that no log-prob is in.
            terms = [
                (objective.beta * (ratios[i] - ratios[j]) - (rewards[i] - rewards[j])) ** 2
                / (2 * objective.beta)
                for i, j in pairs
            ]
            values.append(float(np.mean(terms)))
        else:
            values.append(float(np.var(np.array(rewards) - np.array(logs))))
    return float(np.mean(values))


@pytest.mark.parametrize("objective", [CoPG(0.3), TrajectoryBalance()], ids=["copg", "tb"])
def test_loss_and_gradient_are_the_papers(objective: Regressed) -> None:
    batch, logprobs = samples(), current(samples())
    loss, gradient = loss_and_gradient(batch, logprobs, objective, Reducer("group-mean"))
    assert loss == pytest.approx(by_hand(logprobs, objective), abs=1e-9)
    step = 1e-6
    for i, mask in enumerate(s.mask for s in batch):
        for t in range(len(mask)):
            up, down = ([lp.copy() for lp in logprobs] for _ in range(2))
            up[i][t] += step
            down[i][t] -= step
            slope = (by_hand(up, objective) - by_hand(down, objective)) / (2 * step)
            assert gradient[i][t] == pytest.approx(slope, abs=1e-5)


def test_a_contrast_of_two_answers_is_the_worked_one() -> None:
    # One group of two: log-ratios 0.5 and -0.1, rewards 1 and 0, beta 0.5:
    # (0.5 x 0.6 - 1)^2 / (2 x 0.5) = 0.49; slopes 2 x (0.3 - 1) x 0.5 / 1 = -0.7 and 0.7.
    pair = [s for s in samples(masked=False) if s.group == 0][:2]
    for sample, reward in zip(pair, (1.0, 0.0), strict=True):
        sample.advantages[:] = reward
    logprobs = [
        s.ref_logprobs + ratio / len(s.mask) for s, ratio in zip(pair, (0.5, -0.1), strict=True)
    ]
    loss, gradient = loss_and_gradient(pair, logprobs, CoPG(0.5), Reducer("group-mean"))
    assert loss == pytest.approx(0.49)
    assert gradient[0] == pytest.approx(np.full(len(pair[0].mask), -0.7))
    assert gradient[1] == pytest.approx(np.full(len(pair[1].mask), 0.7))


def test_log_rewards_have_a_floor_and_unscorable_stays() -> None:
    found = LogReward(0.01).logs(np.array([1.0, 0.0, 0.5, np.nan]))
    assert found[:3] == pytest.approx([0.0, -4.605170186, -0.693147181])
    assert np.isnan(found[3])
