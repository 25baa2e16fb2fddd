"""Importance weights by hand, and what they do to the loss."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mmrl.objective import Reducer
from mmrl.objectives.clipped_ratio import Clipped
from mmrl.train.correction import Correction, Mode, correct
from mmrl.train.losses import policy_loss, token_batch, token_weights
from mmrl.types import Prompt, Response, Sample, TrainSample

LOG = np.log


def sample(drawn: list[float], mask: list[bool] | None = None, **more: object) -> TrainSample:
    """A response whose tokens the engine gave these probabilities."""
    prompt = Prompt(
        Sample("s", "t", (), None), (), np.zeros(1, int), np.zeros((1, 1)), 1, (), "unit"
    )
    length = len(drawn)
    return TrainSample(
        prompt=prompt,
        response=Response(np.arange(length), LOG(np.array(drawn)), "", "stop"),
        advantages=np.arange(1.0, length + 1),
        mask=np.array(mask or [True] * length),
        **more,  # type: ignore[arg-type]
    )


# The trainer's probabilities are twice, one and a half of, equal to and a quarter of the engine's.
ENGINE, TRAINER = [0.2, 0.4, 0.5, 0.8], LOG(np.array([0.4, 0.6, 0.5, 0.2]))


@pytest.mark.parametrize(
    ("mode", "limit", "weights", "bounded"),
    [
        ("token_truncate", 1.75, [1.75, 1.5, 1.0, 0.25], 1 / 4),
        ("token_mask", 1.75, [0.0, 1.5, 1.0, 0.25], 1 / 4),
        ("token_truncate", 3.0, [2.0, 1.5, 1.0, 0.25], 0.0),
        ("sequence_truncate", 0.5, [0.5] * 4, 1.0),  # 2 * 1.5 * 1 / 4 = 0.75
        ("sequence_truncate", 0.8, [0.75] * 4, 0.0),
        ("sequence_mask", 0.5, [0.0] * 4, 1.0),
        ("sequence_mask", 0.8, [0.75] * 4, 0.0),
    ],
)
def test_weights(mode: Mode, limit: float, weights: list[float], bounded: float) -> None:
    (made,), activity = correct([sample(ENGINE)], [TRAINER], Correction(mode, limit))
    assert made.correction == pytest.approx(weights)
    assert activity.bounded == bounded
    assert activity.weight == pytest.approx(np.mean(weights))
    assert activity.mismatch == pytest.approx(-math.log(0.75) / 4)


def test_masked_tokens_count_for_nothing() -> None:
    """Without the second token the product is 2 * 1 / 4; it is in no mean either."""
    mask = [True, False, True, True]
    (made,), activity = correct(
        [sample(ENGINE, mask)], [TRAINER], Correction("sequence_truncate", 3.0)
    )
    assert made.correction is not None
    assert made.correction[np.array(mask)] == pytest.approx([0.5] * 3)
    assert activity.weight == pytest.approx(0.5)
    assert activity.mismatch == pytest.approx(math.log(2) / 3)


def test_what_was_not_sampled_here_keeps_weight_one() -> None:
    away = sample(ENGINE, sampled=False)
    (made, other), activity = correct(
        [away, sample(ENGINE)], [TRAINER, TRAINER], Correction("token_mask", 1.75)
    )
    assert made.correction == pytest.approx([1.0] * 4)
    assert other.correction is not None
    assert activity.weight == pytest.approx(other.correction.mean())


def test_the_loss_of_every_token_is_weighed() -> None:
    """On-policy the gradient of a token's log-prob is -advantage * weight / tokens."""
    (made,), _ = correct([sample(ENGINE)], [TRAINER], Correction("token_truncate", 1.75))
    logprobs = torch.tensor(TRAINER, requires_grad=True)
    weights = token_weights([made], Reducer("token-mean"))
    policy_loss(token_batch([made], weights, logprobs), Clipped()).backward()
    assert logprobs.grad is not None
    assert logprobs.grad.numpy() == pytest.approx(
        -np.array([1, 2, 3, 4]) * np.array([1.75, 1.5, 1.0, 0.25]) / 4
    )
