"""Pair losses, and KTO, equal TRL's own on random ragged pairs, gradients too.

TRL keeps them inside of its trainers; one without a model is made for them here.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mmrl.algorithms.kto import reference_point
from mmrl.objective import Objective, Reducer
from mmrl.objectives.exact_optimisation import EXO
from mmrl.objectives.noisy_labels import NoisyLabels
from mmrl.objectives.on_policy_weights import WPO
from mmrl.objectives.preference import Preference
from mmrl.objectives.unpaired import KTO
from mmrl.objectives.win_rate_regression import SPPO
from mmrl.objectives.with_likelihood import RegularisedPreference
from mmrl.types import Response, TrainSample
from tests.train.test_losses import loss_and_gradient

trl = pytest.importorskip("trl", reason="compares with TRL, which the extra `test` installs")

LENGTHS = ((3, 5), (1, 40), (300, 7))
"""Tokens of the better and of the worse answer of each pair."""


def pairs(seed: int, label: float = 1.0) -> tuple[list[TrainSample], list[np.ndarray]]:
    """Pairs as groups of two, and the policy's log-probs; `second` is log sum p^2."""
    rng = np.random.default_rng(seed)
    made, at = [], []
    for group, lengths in enumerate(LENGTHS):
        for length, advantage in zip(lengths, (label, -label), strict=True):
            ref = -rng.random(length) * 2
            made.append(
                TrainSample(
                    prompt=None,
                    response=Response(np.arange(length), ref, "", "stop"),
                    advantages=np.full(length, advantage),
                    mask=np.ones(length, dtype=bool),
                    old_logprobs=ref,
                    ref_logprobs=ref,
                    group=group,
                    second=-rng.random(length),
                )
            )
            at.append(ref + 0.3 * rng.standard_normal(length) / length**0.5)
    return made, at


def better_first(rows: list[Any]) -> list[Any]:
    """TRL's order: the better answers of all pairs, then the worse ones."""
    return [*rows[::2], *rows[1::2]]


def padded(rows: list[np.ndarray]) -> torch.Tensor:
    pieces = [torch.tensor(row) for row in better_first(rows)]
    return torch.nn.utils.rnn.pad_sequence(pieces, batch_first=True)


class Model:
    """Gives the log-probs it is made with, of the tokens after the first, as TRL's fused head."""

    training = True
    config = SimpleNamespace(model_type="test")

    def __init__(self, logprobs: torch.Tensor, collision: torch.Tensor) -> None:
        self.logprobs, self.collision = logprobs, collision

    def __call__(self, **inputs: Any) -> Any:
        nothing = torch.zeros_like(self.logprobs)
        return SimpleNamespace(
            log_probs=self.logprobs,
            entropy=nothing,
            mean_logits=nothing,
            log_sum_sq_probs=self.collision,
            is_top1=nothing.bool(),
        )


def trl_dpo(
    made: list[TrainSample], at: list[np.ndarray], **settings: Any
) -> tuple[float, list[np.ndarray]]:
    """The loss of TRL's DPO trainer and its gradient at every log-prob."""
    leaf = padded(at).requires_grad_()
    mask = padded([np.ones(len(s.mask)) for s in made]) > 0
    model = Model(leaf * mask, padded([s.second for s in made]))
    trainer = object.__new__(trl.DPOTrainer)
    values: dict[str, Any] = {
        "model": model,
        "accelerator": SimpleNamespace(
            device=torch.device("cpu"),
            gather_for_metrics=lambda x: x,
            unwrap_model=lambda x: x,
            gather=lambda x: x,
        ),
        "precompute_ref_logps": True,
        "aux_loss_enabled": False,
        "beta": 0.3,
        "label_smoothing": 0.0,
        "loss_types": ["sigmoid"],
        "loss_weights": [1.0],
        "use_weighting": False,
        "ld_alpha": None,
        "f_divergence_type": "reverse_kl",
        "f_alpha_divergence_coef": 0.5,
        "_metrics": {"train": defaultdict(list)},
        "_total_train_tokens": 0,
        "_tp_size": 1,
        **settings,
    }
    for name, value in values.items():
        object.__setattr__(trainer, name, value)
    inputs = {
        **with_a_prompt(mask),
        "ref_chosen_logps": torch.tensor([s.ref_logprobs.sum() for s in made[::2]]),
        "ref_rejected_logps": torch.tensor([s.ref_logprobs.sum() for s in made[1::2]]),
    }
    loss = trainer._compute_loss(model, inputs, False)
    loss.backward()
    return float(loss.detach()), in_our_order(leaf.grad, at)


def with_a_prompt(mask: torch.Tensor) -> dict[str, torch.Tensor]:
    """A prompt of one token before completions [M, T]."""
    first = torch.zeros(len(mask), 1, dtype=torch.long)
    tokens = torch.cat([first, mask.long()], dim=1)
    seen = torch.cat([first + 1, mask.long()], dim=1)
    return {"input_ids": tokens, "attention_mask": seen, "completion_mask": tokens}


def in_our_order(gradient: torch.Tensor, at: list[np.ndarray]) -> list[np.ndarray]:
    """TRL's rows, where pairs stand side by side."""
    places = np.argsort(better_first(list(range(len(at)))))
    return [gradient[p, : len(x)].numpy() for p, x in zip(places, at, strict=True)]


CASES: dict[str, tuple[Objective, dict[str, Any], float]] = {
    "dpo": (Preference("dpo", 0.3), {}, 1.0),
    "ipo": (Preference("ipo", 0.3, average=True), {"loss_types": ["ipo"]}, 1.0),
    "exo": (EXO(0.3, 0.05), {"loss_types": ["exo_pair"], "label_smoothing": 0.05}, 1.0),
    "rdpo": (NoisyLabels(0.3, 0.2), {"loss_types": ["robust"], "label_smoothing": 0.2}, 1.0),
    "wpo": (WPO(0.3), {"use_weighting": True}, 1.0),
    "iterative rpo": (
        RegularisedPreference(0.3, 0.4, average=True),
        {"loss_types": ["sigmoid", "sft"], "loss_weights": [1.0, 0.4]},
        1.0,
    ),
    # Hard labels: win rates of 1 and 0, less 1/2; eta is 1 / beta. TRL adds a pair's two losses.
    "sppo": (SPPO(1 / 0.3), {"loss_types": ["sppo_hard"]}, 0.5),
}


@pytest.mark.parametrize("name", CASES)
def test_losses_of_pairs_equal_those_of_trl(name: str) -> None:
    objective, settings, label = CASES[name]
    made, at = pairs(3, label)
    if "sft" in settings.get("loss_types", ()):  # TRL's mean is over the tokens of all pairs
        made, at = made[4:], at[4:]
    expected, slopes = trl_dpo(made, at, **settings)
    reducer = Reducer(objective.reducer or "group-mean")
    loss, gradient = loss_and_gradient(made, at, objective, reducer)
    factor = 2.0 if name == "sppo" else 1.0
    assert factor * loss == pytest.approx(expected, abs=1e-7)
    for found, wanted in zip(gradient, slopes, strict=True):
        np.testing.assert_allclose(factor * found, wanted, atol=1e-7)
    assert np.abs(np.concatenate(slopes)).max() > 1e-3


@pytest.mark.parametrize("point", [0.4, -0.2])
def test_kto_equals_that_of_trl(point: float) -> None:
    """The reference point is given: a mean log-ratio of 0.4, and one of -0.2, which counts as 0."""
    made, at = pairs(5)
    leaf = padded(at).requires_grad_()
    mask = padded([np.ones(len(s.mask)) for s in made]) > 0
    model = Model(leaf * mask, torch.zeros_like(leaf))
    trainer = object.__new__(trl.KTOTrainer)
    values: dict[str, Any] = {
        "model": model,
        "accelerator": SimpleNamespace(
            device=torch.device("cpu"), gather_for_metrics=lambda x: x, gather=lambda x: x
        ),
        "_compute_kl_logps": lambda *_: torch.full((len(made),), point),
        "precompute_ref_logps": True,
        "calculate_KL": True,
        "aux_loss_enabled": False,
        "loss_type": "kto",
        "beta": 0.3,
        "desirable_weight": 1.2,
        "undesirable_weight": 0.7,
        "_metrics": {"train": defaultdict(list)},
        "_total_train_tokens": 0,
        "_tp_size": 1,
    }
    for name, value in values.items():
        object.__setattr__(trainer, name, value)
    inputs = {
        **with_a_prompt(mask),
        "label": torch.tensor(better_first([True, False] * len(LENGTHS))),
        "ref_logps": torch.tensor(better_first([s.ref_logprobs.sum() for s in made])),
        "ref_KL_logps": torch.zeros(len(made)),
    }
    expected = trainer._compute_loss(model, inputs, False)
    expected.backward()
    ours = [replace(s, second=np.full(len(s.mask), reference_point([point]))) for s in made]
    loss, gradient = loss_and_gradient(ours, at, KTO(0.3, 1.2, 0.7), Reducer())
    assert loss == pytest.approx(float(expected.detach()), abs=1e-7)
    for found, wanted in zip(gradient, in_our_order(leaf.grad, at), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-8)
