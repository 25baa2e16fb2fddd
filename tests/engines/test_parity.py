"""vLLM says what the trainer says, for every model that it serves and every medium of each."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engines.models import MODELS, TOLERANCE
from tests.engines.pair import pair_of
from tests.engines.served import measure

pytest.importorskip("vllm", reason="vLLM is not installed: pip install 'mmrl[vllm]'")
from mmrl.engines.vllm.in_process import VLLMEngine

pytestmark = [pytest.mark.engines, pytest.mark.timeout(3600)]


@pytest.mark.parametrize("name", MODELS)
def test_logprobs_are_the_trainers_before_and_after_three_changes(
    name: str, tmp_path: Path
) -> None:
    pair = pair_of(name, tmp_path, VLLMEngine)
    try:
        gaps = measure(pair)
    finally:
        pair.vllm.close()
    assert max(gaps.values()) < TOLERANCE, gaps
