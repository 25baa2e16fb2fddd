"""Prompts that vLLM prefills in parts on a CPU are answered as those that it prefills whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmrl.types import Response
from tests.engines.models import TOLERANCE
from tests.engines.pair import SAMPLED, Pair, pair_of, teacher_forced

pytest.importorskip("vllm", reason="vLLM is not installed: pip install 'mmrl[vllm]'")
from mmrl.engines.vllm.in_process import VLLMEngine

pytestmark = [pytest.mark.engines, pytest.mark.timeout(900)]

PART = 64  # tokens
COUNT = 3


def answers(pair: Pair) -> list[list[Response]]:
    prompts = list(pair.prompts.values())
    assert max(len(prompt.ids) for prompt in prompts) > PART
    return pair.vllm.generate(prompts, [COUNT] * len(prompts), SAMPLED, 7)


def test_parts_change_neither_what_is_drawn_nor_what_is_reported(tmp_path: Path) -> None:
    """Each part but the last has a sample that is thrown away."""
    whole = pair_of("qwen2_5_vl", tmp_path / "whole", VLLMEngine)
    wanted = answers(whole)
    whole.vllm.close()
    parts = pair_of(
        "qwen2_5_vl",
        tmp_path / "parts",
        VLLMEngine,
        enable_chunked_prefill=True,
        max_num_batched_tokens=PART,
        max_num_seqs=8,
    )
    try:
        found = answers(parts)
    finally:
        parts.vllm.close()
    for prompt, group, other in zip(parts.prompts.values(), found, wanted, strict=True):
        assert [r.ids.tolist() for r in group] == [r.ids.tolist() for r in other]
        trained = teacher_forced(parts.policy, prompt, group, SAMPLED.temperature)
        assert np.abs(np.concatenate([r.logprobs for r in group]) - trained).max() < TOLERANCE
