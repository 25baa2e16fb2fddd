"""Media in later turns in bfloat16: rows that share a prompt are as near the truth as copies."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.families.cases import lifted, policy
from tests.families.tiny import build
from tests.rollout.test_observed import COUNT, first, library, play, shown, trained

LONGEST = 150
"""Words of a turn; the shortest have two."""


@pytest.mark.parametrize(
    ("name", "kind"),
    [("qwen2_5_vl", "image"), ("qwen3_5", "image"), ("gemma3", "image"), ("qwen2_5_omni", "audio")],
)
def test_bfloat16_is_as_near_the_truth_as_copies_are(name: str, kind: str) -> None:
    """Both paths against the same bfloat16 weights in float64, over long and short turns."""
    made, reference = policy(name), build(name)[0].to(torch.bfloat16)
    made.model.to(torch.bfloat16)
    prompts, groups = play(made, kind, longest=LONGEST)
    answers = [(n, i, answer) for n, group in enumerate(groups) for i, answer in enumerate(group)]
    lengths = [turn.end - turn.start for _, _, a in answers for turn in a.episode.turns]  # type: ignore[union-attr]
    assert max(lengths) > 100 > 20 > min(lengths)

    def copies(model: torch.nn.Module) -> Tensor:
        pieces = []
        for number, i, answer in answers:
            later = shown(kind, number * 100 + number * COUNT + i + 1)
            media = [first(made, number)[1][0], later]
            pieces.append(library(model, made, prompts[number], answer, media))
        return torch.cat(pieces).double()[written]

    written = torch.from_numpy(np.concatenate([answer.written for _, _, answer in answers]))
    truth = copy.deepcopy(reference).double()
    with torch.no_grad():
        found, own = trained(made, prompts, groups).double()[written], copies(reference)
        with lifted(torch.float64):
            exact = copies(truth)
    usual = float((own - exact).norm())
    assert 0 < usual < 0.1 * float(exact.norm())
    assert float((found - exact).norm()) < 1.5 * usual
