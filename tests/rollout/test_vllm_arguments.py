"""What vLLM is started with follows from the run."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mmrl.engines.vllm.in_process import engine_arguments
from mmrl.model_config import ModelConfig
from mmrl.rollout_config import RolloutConfig

SETTINGS = SimpleNamespace(
    model_type="qwen2_5_vl",
    get_text_config=lambda: SimpleNamespace(max_position_embeddings=4096),
)


@pytest.mark.parametrize(("staleness", "sleeps"), [(0, True), (1, False)])
def test_vllm_stays_awake_where_it_works_while_the_policy_learns(
    staleness: int, sleeps: bool
) -> None:
    rollout = RolloutConfig(engine="vllm", max_staleness=staleness)
    made = engine_arguments(SETTINGS, ModelConfig(path="asset:tiny_qwen2_5_vl"), rollout, True)
    assert made["enable_sleep_mode"] is sleeps
