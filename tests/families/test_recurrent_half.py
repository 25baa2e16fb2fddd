"""Recurrent layers in bfloat16: a shared prompt costs no more precision than one's own copy."""

from __future__ import annotations

import copy

import pytest
import torch

from mmrl.policy.shared_prefix import SharedRow
from tests.families.cases import (
    ask,
    cases,
    lifted,
    plain,
    policy,
    processed,
    responses,
    retyped,
    shared,
)
from tests.families.tiny import TINY, build

LENGTHS = ((5, 70, 9, 1), (33, 2))


@pytest.mark.parametrize("name", ["qwen3_5", "qwen3_5_moe", "lfm2_vl", "nemotron_h_omni"])
def test_bfloat16_is_as_near_the_truth_as_copies_are(name: str) -> None:
    """Both paths against the same bfloat16 weights in float64, ragged answers over a chunk."""
    made, reference = policy(name), retyped(build(name)[0], torch.bfloat16)
    retyped(made.model, torch.bfloat16)
    asked = list(cases(TINY[name].kinds).values())[: len(LENGTHS)]
    rows = [SharedRow(ask(made, case), responses(i, LENGTHS[i])) for i, case in enumerate(asked)]
    truth = retyped(copy.deepcopy(reference), torch.float64)
    truth.set_experts_implementation("eager")

    def copies(model: torch.nn.Module) -> torch.Tensor:
        pieces = [
            plain(model, processed(made, case), row.prompt, row.responses, made.banned)
            for case, row in zip(asked, rows, strict=True)
        ]
        return torch.cat(pieces).double()

    with torch.no_grad():
        found, own = shared(made, rows).double(), copies(reference)
        with lifted(torch.float64):
            exact = copies(truth)
    usual = float((own - exact).norm())
    assert 0 < usual < 0.1 * float(exact.norm())
    assert float((found - exact).norm()) < 1.5 * usual
