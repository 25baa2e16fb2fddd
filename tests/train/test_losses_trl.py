"""Losses and gradients equal TRL's own on random inputs.

TRL keeps them inside of its trainers; a trainer without a model is made for them here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mmrl.objective import KL, Objective, Reducer
from mmrl.objectives.bounded_weight import CISPO
from mmrl.objectives.clipped_ratio import Clipped
from mmrl.types import TrainSample
from tests.train.test_losses import current, loss_and_gradient, samples

trl = pytest.importorskip("trl", reason="compares with TRL, which the extra `test` installs")


class _Accelerator:
    """What TRL's loss functions use of accelerate, in one process."""

    num_processes = 1

    @staticmethod
    def gather(value: Any) -> Any:
        return value

    @staticmethod
    def reduce(value: Any, reduction: str = "sum") -> Any:
        return value


def _padded(rows: Sequence[np.ndarray]) -> torch.Tensor:
    pieces = [torch.tensor(np.asarray(row, dtype=float)) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(pieces, batch_first=True)


def _trl_inputs(batch: Sequence[TrainSample]) -> dict[str, Any]:
    masks = _padded([s.mask for s in batch])
    nothing = torch.zeros(len(batch), 0, dtype=torch.long)
    return {
        "prompt_ids": nothing,
        "prompt_mask": nothing,
        "completion_ids": torch.zeros(masks.shape, dtype=torch.long),
        "completion_mask": masks,
        "advantages": torch.tensor([s.advantages[0] for s in batch]),
        "old_per_token_logps": _padded([s.old_logprobs for s in batch]),
        "ref_per_token_logps": _padded([s.ref_logprobs for s in batch]),
        "num_items_in_batch": masks.sum(),
    }


def _trl_trainer(cls: type, logprobs: torch.Tensor, **settings: Any) -> Any:
    trainer = object.__new__(cls)
    arguments = {"delta": None, "use_bias_correction_kl": False, "steps_per_generation": 1}
    values = {
        "_get_per_token_logps_and_entropies": lambda *a, **k: (
            logprobs,
            torch.zeros_like(logprobs),
            None,
        ),
        "args": SimpleNamespace(**{**arguments, **settings.pop("args", {})}),
        "aux_loss_enabled": False,
        "top_entropy_quantile": 1.0,
        "off_policy_mask_threshold": None,
        "importance_sampling_level": "token",
        "epsilon_low": 0.1,
        "epsilon_high": 0.3,
        "beta": 0.0,
        "use_vllm": False,
        "max_completion_length": 9,
        "accelerator": _Accelerator(),
        "current_gradient_accumulation_steps": 1,
        "_entropy_bonus_enabled": False,
        "model": SimpleNamespace(training=True),
        "_metrics": {"train": defaultdict(list)},
        **settings,
    }
    for name, value in values.items():
        object.__setattr__(trainer, name, value)
    return trainer


CLIP = {"low": 0.1, "high": 0.3}
TRL_CASES: dict[str, tuple[dict[str, Any], Objective, Reducer, KL | None]] = {
    "grpo": ({"loss_type": "grpo"}, Clipped(**CLIP), Reducer(), None),
    "grpo-kl": ({"loss_type": "grpo", "beta": 0.04}, Clipped(**CLIP), Reducer(), KL(0.04)),
    "two-sided": (
        {"loss_type": "grpo", "args": {"delta": 1.5}},
        Clipped(**CLIP, cap=1.5),
        Reducer(),
        None,
    ),
    "dr_grpo": ({"loss_type": "dr_grpo"}, Clipped(**CLIP), Reducer("constant", 9.0), None),
    "dapo": ({"loss_type": "dapo"}, Clipped(**CLIP), Reducer("token-mean"), None),
    "gspo": (
        {"loss_type": "grpo", "importance_sampling_level": "sequence"},
        Clipped(**CLIP, ratio="sequence-mean"),
        Reducer(),
        None,
    ),
    "cispo": (
        {"loss_type": "cispo", "epsilon_high": 1.2},
        CISPO(high=1.2),
        Reducer("token-mean"),
        None,
    ),
}


@pytest.mark.parametrize("name", TRL_CASES)
def test_losses_equal_those_of_trl(name: str) -> None:
    settings, objective, reducer, kl = TRL_CASES[name]
    batch = samples(seed=3)
    at = current(batch, seed=4)
    theirs = _padded(at).requires_grad_()
    trainer = _trl_trainer(trl.GRPOTrainer, theirs, **settings)
    expected = trl.GRPOTrainer._compute_loss(trainer, trainer.model, _trl_inputs(batch))
    expected.backward()
    loss, gradient = loss_and_gradient(batch, at, objective, reducer, kl=kl)
    assert loss == pytest.approx(float(expected.detach()), abs=1e-10)
    np.testing.assert_allclose(_padded(gradient).numpy(), theirs.grad.numpy(), atol=1e-10)


def test_rloo_equals_that_of_trl() -> None:
    batch = samples(seed=3)
    at = current(batch, seed=4)
    theirs = _padded(at).requires_grad_()
    trainer = _trl_trainer(trl.RLOOTrainer, theirs)
    inputs = _trl_inputs(batch)
    masked = inputs["old_per_token_logps"] * inputs["completion_mask"]
    inputs["old_logps"] = masked.sum(1)
    expected = trl.RLOOTrainer._compute_loss(trainer, trainer.model, inputs)
    expected.backward()
    objective = Clipped(**CLIP, ratio="sequence-sum")
    loss, gradient = loss_and_gradient(batch, at, objective, Reducer())
    assert loss == pytest.approx(float(expected.detach()), abs=1e-10)
    np.testing.assert_allclose(_padded(gradient).numpy(), theirs.grad.numpy(), atol=1e-10)
