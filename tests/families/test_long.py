"""Long prompts in every family: what picks some of many keys shows nothing in a short one."""

from __future__ import annotations

import pytest
import torch

from mmrl.policy.shared_prefix import SharedRow
from tests.families.cases import (
    LARGE_SCORES,
    Case,
    make,
    plain,
    policy,
    processed,
    relative,
    responses,
    shared,
)
from tests.families.tiny import TINY, build

TOLERANCE = 1e-5  # relative, float32
WORDS = "What is this? Look at it and answer. "


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("length", [4096, 8192])
@pytest.mark.parametrize("name", [name for name in TINY if name != "qwen2_audio_30s"])
@torch.no_grad()
def test_long_prompts(name: str, length: int) -> None:
    made, reference = policy(name), build(name)[0]
    family = made.family.unlimited()  # type: ignore[attr-defined]
    one, two = (len(made.processor.tokenizer(WORDS * n)["input_ids"]) for n in (1, 2))
    case = Case((make(TINY[name].kinds[0], 1), WORDS * (length // (two - one) + 1)))
    prompt = family.encode(case.sample, [family.encode_medium(m) for m in case.media])
    assert length <= len(prompt.ids)
    answers = responses(0, (4, 1, 6))
    found = shared(made, [SharedRow(prompt, answers)])
    wanted = plain(reference, processed(made, case), prompt, answers, made.banned)
    assert relative(found, wanted) < LARGE_SCORES.get(reference.config.model_type, TOLERANCE)
