"""GRPO with vLLM learns what GRPO with the embedded engine learns: the quickstart, both ways.

Engines draw other random numbers, so the two runs differ as two seeds do: by up to ten points
(README.md). A policy that is trained on what it did not sample would not get that near.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed: pip install 'mmrl[vllm]'")

pytestmark = [pytest.mark.engines, pytest.mark.slow, pytest.mark.timeout(7200)]

TOLERANCE = 0.10
QUICKSTART = Path(__file__).parent.parent.parent / "configs" / "quickstart.yaml"


def outcome(engine: str, folder: Path) -> tuple[float, float]:
    """Held-out accuracy before and after; the two engines start from the same model."""
    data = folder / "digits"
    overrides = [
        f"run={folder / engine}",
        f"rollout.engine={engine}",
        "model.max_prompt_tokens=200",
        f"data.path={data}/digit_count/train.jsonl",
        f"data.eval_path={data}/digit_count/test.jsonl",
        f"data.recipe.out={data}",
    ]
    subprocess.run(
        [sys.executable, "-m", "mmrl.cli", "train", str(QUICKSTART), *overrides], check=True
    )
    result = json.loads((folder / engine / "result.json").read_text(encoding="utf-8"))
    return result["before"], result["after"]


def test_vllm_reaches_the_accuracy_of_the_embedded_engine(tmp_path: Path) -> None:
    before, after = outcome("hf", tmp_path)
    vllm_before, vllm_after = outcome("vllm", tmp_path)
    assert abs(vllm_before - before) <= 0.01  # greedy, the same weights
    assert abs(vllm_after - after) <= TOLERANCE
    assert vllm_after - vllm_before > (after - before) / 2 > 0
