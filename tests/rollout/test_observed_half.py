"""Media in later turns in bfloat16: rows that share a prompt are as near the truth as copies."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.families.cases import lifted, policy
from tests.families.tiny import build
from tests.rollout.test_history import PIXELS, media_of, parts_of, played
from tests.rollout.test_observed import COUNT, Script, first, library, play, shown, trained

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
        return torch.cat(pieces)

    written = torch.from_numpy(np.concatenate([answer.written for _, _, answer in answers]))
    with torch.no_grad():
        found = trained(made, prompts, groups)
    assert_near(found[written], reference, lambda model: copies(model)[written])


@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_5", "gemma3"])
@pytest.mark.parametrize("pixels", [None, PIXELS])
def test_behind_a_cut_bfloat16_is_as_near_the_truth(name: str, pixels: int | None) -> None:
    """Branches of a history: turns of 2 to 150 words, behind screens that are gone or small."""
    made, reference = policy(name), build(name)[0].to(torch.bfloat16)
    made.model.to(torch.bfloat16)
    script = Script(made, LONGEST)
    parts = parts_of(made, played(made, script, pixels=pixels))  # type: ignore[arg-type]
    assert sum(prompt is not parts[0][0] for prompt, _ in parts) > 2, "histories were cut"
    written = torch.from_numpy(np.concatenate([answer.written for _, answer in parts]))

    def copies(model: torch.nn.Module) -> Tensor:
        return torch.cat([library(model, made, *part, media_of(made, part)) for part in parts])

    with torch.no_grad():
        found = torch.cat([trained(made, [prompt], [[answer]]) for prompt, answer in parts])
    assert_near(found[written], reference, lambda model: copies(model)[written])


def assert_near(
    found: Tensor, reference: torch.nn.Module, copies: Callable[[torch.nn.Module], Tensor]
) -> None:
    """As near what the weights give in float64 as what copies give in bfloat16 is."""
    truth = copy.deepcopy(reference).double()
    with torch.no_grad():
        own = copies(reference).double()
        with lifted(torch.float64):
            exact = copies(truth).double()
    usual = float((own - exact).norm())
    assert 0 < usual < 0.1 * float(exact.norm())
    assert float((found.double() - exact).norm()) < 1.5 * usual
