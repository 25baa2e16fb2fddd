"""Objectives against finite differences, against TRL, and under everything that must not matter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from mmrl.objective import KL, Objective, Reducer
from mmrl.objectives.bounded_weight import CISPO
from mmrl.objectives.clipped_likelihood import CPGD
from mmrl.objectives.clipped_ratio import Clipped
from mmrl.objectives.discriminative import DisCO
from mmrl.objectives.group_regression import GVPO
from mmrl.objectives.implied_policies import NFT
from mmrl.objectives.likelihood import Likelihood
from mmrl.objectives.mixed_preference import MPO
from mmrl.objectives.pair_regression import REBEL
from mmrl.objectives.preference import Preference
from mmrl.objectives.reference_free import SimPO
from mmrl.objectives.value_regression import AStarPO
from mmrl.train.losses import (
    policy_loss,
    positive_share,
    reduce,
    token_batch,
    token_weights,
)
from mmrl.types import Response, TrainSample

LENGTHS = ((3, 5, 1, 4), (2, 6, 3, 3))
OBJECTIVE_CASES: dict[str, tuple[Objective, str]] = {
    "clipped": (Clipped(low=0.1, high=0.3), "seq-mean-token-mean"),
    "dual": (Clipped(low=0.1, high=0.3, dual=1.5), "token-mean"),
    "two-sided": (Clipped(low=0.1, high=0.3, cap=1.6), "token-mean"),
    "imitation": (Clipped(low=0.1, high=0.3, imitation=0.2), "token-mean"),
    "gspo": (Clipped(low=0.1, high=0.3, ratio="sequence-mean"), "seq-mean-token-mean"),
    "rloo": (Clipped(low=0.1, high=0.3, ratio="sequence-sum"), "seq-mean-token-mean"),
    "likelihood": (Likelihood(), "seq-mean-token-sum"),
    "gvpo": (GVPO(0.3), "group-mean"),
    "disco-b": (DisCO(tau=None, beta=0.0), "group-mean"),
    "disco": (DisCO(tau=0.7, beta=0.0), "group-mean"),
    "disco-ratio": (DisCO("likelihood-ratio", tau=1.0, beta=0.0), "group-mean"),
    "nft": (NFT(epsilon=1e-3), "token-mean"),
    "nft-root": (NFT(epsilon=1e-3, weight="root", negative=0.5), "token-mean"),
    "a_star_po": (AStarPO(0.2), "seq-mean-token-mean"),
    "rebel": (REBEL(0.5), "group-mean"),
    "dpo": (Preference("dpo", 0.3), "group-mean"),
    "ipo": (Preference("ipo", 0.3), "group-mean"),
    "ipo-mean": (Preference("ipo", 0.3, average=True), "group-mean"),
    "simpo": (SimPO(2.0, 0.5), "group-mean"),
    "mpo": (MPO(0.5, 0.8, 0.0, 1.0), "group-mean"),
}


def samples(seed: int = 0, *, masked: bool = True) -> list[TrainSample]:
    """Two groups of four; advantages differ by token's sequence, some tokens are masked."""
    rng = np.random.default_rng(seed)
    made = []
    for group, lengths in enumerate(LENGTHS):
        rewards = np.array([1.0, 0.0, 1.0, 0.0]) if group else np.array([0.0, 1.0, 0.0, 0.0])
        for length, advantage in zip(lengths, rewards - rewards.mean(), strict=True):
            mask = rng.random(length) > 0.3 if masked else np.ones(length, dtype=bool)
            mask[0] = True
            old = -rng.random(length) * 2
            made.append(
                TrainSample(
                    prompt=None,
                    response=Response(np.arange(length), old, "", "stop"),
                    advantages=np.full(length, advantage),
                    mask=mask,
                    old_logprobs=old,
                    ref_logprobs=old + 0.3 * rng.standard_normal(length),
                    group=group,
                    positive=bool(advantage > 0),
                )
            )
    return made


def current(batch: Sequence[TrainSample], seed: int = 1) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [s.old_logprobs + 0.35 * rng.standard_normal(len(s.mask)) for s in batch]


def loss_and_gradient(
    batch: Sequence[TrainSample],
    logprobs: Sequence[np.ndarray],
    objective: Objective,
    reducer: Reducer,
    *,
    kl: KL | None = None,
    whole: Sequence[TrainSample] | None = None,
) -> tuple[float, list[np.ndarray]]:
    """The loss of a micro-batch of `whole`, and d loss / d log-prob of every sample."""
    step = list(whole or batch)
    weights = dict(zip(map(id, step), token_weights(step, reducer), strict=True))
    leaf = torch.tensor(np.concatenate(logprobs), requires_grad=True)
    tokens = token_batch(batch, [weights[id(s)] for s in batch], leaf, positive_share(step))
    loss = policy_loss(tokens, objective)
    if kl is not None:
        loss = loss + kl.coefficient * reduce(kl.penalty(tokens), tokens)
    loss.backward()
    ends = np.cumsum([len(lp) for lp in logprobs])[:-1]
    return float(loss.detach()), list(np.split(leaf.grad.numpy(), ends))


def numeric_gradient(loss: Callable[[list[np.ndarray]], float], at: list[np.ndarray]) -> Any:
    step = 1e-6
    rows = []
    for i, values in enumerate(at):
        row = np.zeros(len(values))
        for t in range(len(values)):
            moved = [[v.copy() for v in at] for _ in (0, 1)]
            moved[0][i][t] += step
            moved[1][i][t] -= step
            row[t] = (loss(moved[0]) - loss(moved[1])) / (2 * step)
        rows.append(row)
    return rows


@pytest.mark.parametrize("name", OBJECTIVE_CASES)
def test_gradient_is_that_of_the_loss(name: str) -> None:
    objective, aggregation = OBJECTIVE_CASES[name]
    batch = samples()
    at = current(batch)
    reducer = Reducer(aggregation)
    _, analytic = loss_and_gradient(batch, at, objective, reducer)
    numeric = numeric_gradient(lambda x: loss_and_gradient(batch, x, objective, reducer)[0], at)
    assert np.abs(np.concatenate(analytic)).max() > 1e-3
    for found, wanted in zip(analytic, numeric, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-7)


@pytest.mark.parametrize("estimator", ["k2", "k3"])
def test_gradient_of_the_kl(estimator: str) -> None:
    batch, kl = samples(), KL(0.3, estimator)
    at, reducer = current(batch), Reducer("token-mean")

    def loss(x: list[np.ndarray]) -> float:
        return loss_and_gradient(batch, x, Clipped(), reducer, kl=kl)[0]

    _, analytic = loss_and_gradient(batch, at, Clipped(), reducer, kl=kl)
    np.testing.assert_allclose(
        np.concatenate(analytic), np.concatenate(numeric_gradient(loss, at)), atol=1e-7
    )


def test_detached_weights_are_constants() -> None:
    """CISPO, CPGD's drift and GSPO-token stop gradients: their slope has a closed form."""
    batch, reducer = samples(masked=False), Reducer("seq-mean-token-sum")
    at = current(batch)
    ratio = [np.exp(lp - s.old_logprobs) for lp, s in zip(at, batch, strict=True)]
    share = 1 / len(batch)
    _, cispo = loss_and_gradient(batch, at, CISPO(high=1.2, low=0.9), reducer)
    for found, rho, sample in zip(cispo, ratio, batch, strict=True):
        np.testing.assert_allclose(found, -share * np.clip(rho, 0.9, 1.2) * sample.advantages)
    _, drift = loss_and_gradient(batch, at, CPGD(drift=0.5), reducer)
    _, still = loss_and_gradient(batch, at, CPGD(drift=0.0), reducer)
    for moved, plain, rho in zip(drift, still, ratio, strict=True):
        np.testing.assert_allclose(moved - plain, share * 0.5 * np.minimum(rho - 1, 2), atol=1e-12)
    wide = {"low": 1.0, "high": 100.0}
    _, token = loss_and_gradient(batch, at, Clipped(**wide, ratio="sequence-token"), reducer)
    for found, lp, sample in zip(token, at, batch, strict=True):
        level = np.exp((lp - sample.old_logprobs).mean())
        np.testing.assert_allclose(found, -share * level * sample.advantages)


def test_straight_through_has_the_value_of_one_and_the_slope_of_the_other() -> None:
    batch, reducer = samples(), Reducer("token-mean")
    at = current(batch)
    nothing = Clipped(low=0.0, high=0.0)
    base, slope = loss_and_gradient(batch, at, nothing, reducer)
    k1, _ = loss_and_gradient(batch, at, nothing, reducer, kl=KL(1.0, "k1"))
    _, k2 = loss_and_gradient(batch, at, nothing, reducer, kl=KL(1.0, "k2"))
    both, mixed = loss_and_gradient(
        batch, at, nothing, reducer, kl=KL(1.0, "k1", straight_through=True)
    )
    assert both == pytest.approx(k1) and both != pytest.approx(base)
    np.testing.assert_allclose(np.concatenate(mixed), np.concatenate(k2))
    assert not np.allclose(np.concatenate(k2), np.concatenate(slope))


def test_bounds_of_the_clip_are_not_swapped() -> None:
    """A ratio of 1.25 is inside (0.9, 1.3) and outside (0.7, 1.1)."""
    sample = replace(
        samples()[0],
        response=Response(np.zeros(1), np.zeros(1), "", "stop"),
        advantages=np.ones(1),
        mask=np.ones(1, dtype=bool),
        old_logprobs=np.zeros(1),
        ref_logprobs=None,
    )
    at = [np.log([1.25])]
    inside, slope = loss_and_gradient([sample], at, Clipped(low=0.1, high=0.3), Reducer())
    outside, flat = loss_and_gradient([sample], at, Clipped(low=0.3, high=0.1), Reducer())
    assert (inside, outside) == (pytest.approx(-1.25), pytest.approx(-1.1))
    assert (slope[0][0], flat[0][0]) == (pytest.approx(-1.25), 0.0)


def test_caps_of_negative_advantages() -> None:
    sample = replace(
        samples()[0],
        response=Response(np.zeros(1), np.zeros(1), "", "stop"),
        advantages=-np.ones(1),
        mask=np.ones(1, dtype=bool),
        old_logprobs=np.zeros(1),
        ref_logprobs=None,
    )
    at = [np.log([6.0])]

    def loss(objective: Objective) -> float:
        return loss_and_gradient([sample], at, objective, Reducer())[0]

    assert loss(Clipped()) == pytest.approx(6.0)
    assert loss(Clipped(cap=4.0)) == pytest.approx(4.0)
    assert loss(Clipped(dual=3.0)) == pytest.approx(3.0)


@pytest.mark.parametrize("name", OBJECTIVE_CASES)
def test_micro_batches_add_up(name: str) -> None:
    """Any split at the boundaries the objective allows gives the loss and gradient of the whole."""
    objective, aggregation = OBJECTIVE_CASES[name]
    batch, reducer = samples(), Reducer(aggregation)
    at = current(batch)
    whole, gradient = loss_and_gradient(batch, at, objective, reducer)
    cuts = [0, 4, 8] if objective.whole_groups else [0, 1, 5, 8]
    parts = [
        loss_and_gradient(batch[a:b], at[a:b], objective, reducer, whole=batch)
        for a, b in pairwise(cuts)
    ]
    assert sum(loss for loss, _ in parts) == pytest.approx(whole)
    joined = [row for _, rows in parts for row in rows]
    np.testing.assert_allclose(np.concatenate(joined), np.concatenate(gradient))


@pytest.mark.parametrize("aggregation", ["seq-mean-token-mean", "token-mean", "constant"])
def test_lead_tokens_are_weighed_apart(aggregation: Any) -> None:
    batch = samples(masked=False)
    reducer = Reducer(aggregation, length=7.0, lead_tokens=1, lead_weight=0.25)
    split = token_weights(batch, reducer)
    leads = [replace(s, mask=s.mask & (np.arange(len(s.mask)) < 1)) for s in batch]
    rests = [replace(s, mask=s.mask & (np.arange(len(s.mask)) >= 1)) for s in batch]
    plain = replace(reducer, lead_tokens=0)
    apart = zip(token_weights(leads, plain), token_weights(rests, plain), strict=True)
    for found, (lead, rest) in zip(split, apart, strict=True):
        np.testing.assert_allclose(found, 0.25 * lead + rest)


@pytest.mark.parametrize("name", OBJECTIVE_CASES)
def test_masked_tokens_do_not_matter(name: str) -> None:
    """Whatever stands at a masked token, NaN included, leaves loss and gradient alone."""
    objective, aggregation = OBJECTIVE_CASES[name]
    batch, reducer = samples(), Reducer(aggregation)
    at = current(batch)
    loss, gradient = loss_and_gradient(batch, at, objective, reducer)
    spoilt = [np.where(s.mask, lp, np.nan) for s, lp in zip(batch, at, strict=True)]
    other = [replace(s, old_logprobs=np.where(s.mask, s.old_logprobs, np.inf)) for s in batch]
    again, same = loss_and_gradient(other, spoilt, objective, reducer)
    assert again == pytest.approx(loss)
    np.testing.assert_allclose(np.concatenate(same), np.concatenate(gradient))
    masked = np.concatenate([~s.mask for s in batch])
    assert masked.any() and not np.concatenate(gradient)[masked].any()


@pytest.mark.parametrize("name", OBJECTIVE_CASES)
def test_order_in_the_group_does_not_matter(name: str) -> None:
    objective, aggregation = OBJECTIVE_CASES[name]
    batch, reducer = samples(), Reducer(aggregation)
    at = current(batch)
    loss, gradient = loss_and_gradient(batch, at, objective, reducer)
    order = [2, 0, 3, 1, 7, 5, 4, 6]
    again, same = loss_and_gradient(
        [batch[i] for i in order], [at[i] for i in order], objective, reducer
    )
    assert again == pytest.approx(loss)
    for place, i in enumerate(order):
        np.testing.assert_allclose(same[place], gradient[i])


def test_sequences_are_what_is_not_masked() -> None:
    """GSPO's ratio is the geometric mean over unmasked tokens, RLOO's the product of theirs."""
    batch = samples()
    at = current(batch)
    wide = {"low": 1.0, "high": 100.0}
    for ratio, reduce_ in (("sequence-mean", np.mean), ("sequence-sum", np.sum)):
        loss, _ = loss_and_gradient(batch, at, Clipped(**wide, ratio=ratio), Reducer())
        expected = [
            -s.advantages[0] * np.exp(reduce_((lp - s.old_logprobs)[s.mask]))
            for lp, s in zip(at, batch, strict=True)
        ]
        assert loss == pytest.approx(np.mean(expected))


def test_nothing_to_train_on_is_weight_zero() -> None:
    batch = [replace(s, mask=np.zeros_like(s.mask)) for s in samples()]
    for name in ("seq-mean-token-mean", "token-mean", "seq-mean-token-sum", "group-mean"):
        assert not any(w.any() for w in token_weights(batch, Reducer(name)))
    assert token_weights([], Reducer()) == []
    assert positive_share([]) == 0.0


def test_an_empty_response_counts_in_the_mean_over_responses() -> None:
    batch = samples(masked=False)
    empty = replace(
        batch[0],
        response=Response(np.zeros(0), np.zeros(0), "", "stop"),
        advantages=np.zeros(0),
        mask=np.zeros(0, dtype=bool),
    )
    alone = token_weights(batch, Reducer())
    beside = token_weights([*batch, empty], Reducer())
    np.testing.assert_allclose(beside[0], alone[0] * len(batch) / (len(batch) + 1))
    assert beside[-1].shape == (0,)


def test_a_group_without_contrast_has_no_pair_loss() -> None:
    batch = [replace(s, advantages=np.ones(len(s.mask))) for s in samples()[:4]]
    at = current(batch)
    for objective in (Preference(), SimPO(), DisCO(beta=0.0)):
        loss, gradient = loss_and_gradient(batch, at, objective, Reducer("group-mean"))
        assert loss == 0 and not np.concatenate(gradient).any()


def test_a_group_of_one_has_no_regression() -> None:
    batch = samples()[:1]
    at = current(batch)
    for objective in (GVPO(), REBEL()):
        loss, gradient = loss_and_gradient(batch, at, objective, Reducer("group-mean"))
        assert loss == 0 and not np.concatenate(gradient).any()


def test_quality_moves_the_chosen_up_and_the_rejected_down() -> None:
    """BCO's middle is a constant: the slope of its two sides has a closed form."""
    batch = samples(masked=False)[4:]
    at, objective = current(batch), MPO(0.5, 0.0, 1.0, 0.0)
    _, gradient = loss_and_gradient(batch, at, objective, Reducer("group-mean"))
    implied = 0.5 * np.array([(x - s.ref_logprobs).sum() for x, s in zip(at, batch, strict=True)])
    for i, (row, sample) in enumerate(zip(gradient, batch, strict=True)):
        sign = 1 if sample.advantages[0] > 0 else -1
        slope = -sign * 0.5 / 2 / (1 + np.exp(sign * (implied[i] - implied.mean())))
        np.testing.assert_allclose(row, slope)
