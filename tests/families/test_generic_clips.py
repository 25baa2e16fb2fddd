"""Types without a family that take clips: one row has media of any size and number, exactly."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mmrl.engines.engine import Sampling
from mmrl.engines.hf import HFEngine
from mmrl.policy.families import generic_tensors
from mmrl.policy.families.generic_tensors import Join
from mmrl.policy.policy import Policy
from mmrl.policy.shared_prefix import SharedRow
from tests.families import other_types
from tests.families.cases import (
    Case,
    ask,
    clip,
    picture,
    plain,
    processed,
    relative,
    responses,
    shared,
)
from tests.families.test_generic_sharing import TOLERANCE, policy, slopes

# Patches of all media in one row, tiles of pictures, frames in a dimension of their own.
TYPES = ("minicpmv4_6", "minicpmv4_7", "perception_lm", "llava_next_video", "video_llava")
every_type = pytest.mark.parametrize("name", TYPES)
CASES = (
    Case((clip(1, 4), "What is this?")),
    Case(("Nothing to see here.",)),
    Case((picture(2, 224, 84), "And this, is it the same?")),
    Case((clip(3, 8), picture(4), "Say both.")),
    Case((picture(5),)),
)
LENGTHS = ((4, 1, 70), (3, 2), (6,), (2, 65, 5), (1, 9))


def rows_of(made: Policy) -> list[SharedRow]:
    return [SharedRow(ask(made, case), responses(i, LENGTHS[i])) for i, case in enumerate(CASES)]


def alone(made: Policy, own: Any, rows: list[SharedRow]) -> Tensor:
    """Each answer alone behind what the library's processor makes of the whole conversation."""
    return torch.cat(
        [
            plain(own, processed(made, case), row.prompt, [answer], made.banned)
            for case, row in zip(CASES, rows, strict=True)
            for answer in row.responses
        ]
    )


def compared(name: str) -> tuple[float, float]:
    """How far log-probs and all gradients together are from the library's."""
    made, (own, _) = policy(name), other_types.make(name)
    assert made.family.declaration.shared_prefix, made.family.declaration.notes
    rows = rows_of(made)
    found, wanted = shared(made, rows), alone(made, own, rows)
    weights = torch.randn(len(found), generator=torch.Generator().manual_seed(0))
    (found * weights).sum().backward()
    (wanted * weights).sum().backward()
    return relative(found, wanted), relative(slopes(made.model), slopes(own))


@every_type
def test_shared_rows_equal_the_models_own_forward(name: str) -> None:
    logprobs, gradients = compared(name)
    assert logprobs < 1e-6 and gradients < TOLERANCE


@every_type
def test_the_engine_samples_what_is_trained(name: str) -> None:
    made = policy(name)
    prompts = [row.prompt for row in rows_of(made)]
    groups = HFEngine(made).generate(prompts, [2] * len(prompts), Sampling(max_new_tokens=12), 1)
    rows = [
        SharedRow(p, tuple(r.ids for r in group)) for p, group in zip(prompts, groups, strict=True)
    ]
    sampled = torch.cat([torch.from_numpy(r.logprobs) for group in groups for r in group])
    with torch.no_grad():
        assert relative(shared(made, rows).double(), sampled) < 1e-6


def test_what_was_never_filled_up_stays_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Filled up with zeros, a short clip would have features for frames that it has not."""
    made = policy("video_llava")
    joins = made.family.together  # type: ignore[attr-defined]
    assert joins["pixel_values_videos"] == Join()
    monkeypatch.setattr(Join, "takes", lambda self, pieces: True)
    with pytest.raises(Exception, match="tokens do not match"):
        shared(made, rows_of(made))


def test_media_in_another_order_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    joined = generic_tensors.joined
    made = policy("minicpmv4_6")
    rows = rows_of(made)
    with torch.no_grad():
        usual = shared(made, rows)
        monkeypatch.setattr(generic_tensors, "joined", lambda m, c, j: joined(m, c[::-1], j))
        try:
            assert relative(shared(made, rows), usual) > 1e-3
        except ValueError as error:  # two of one size would change places
            assert "do not match" in str(error)
