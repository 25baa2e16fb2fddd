"""vLLM rolls out ahead in a thread of its own, beside the trainer in the same process."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmrl.runlog.journal import Journal
from tests.rollout.overlapping import start
from tests.runs import make_digits

pytest.importorskip("vllm")
pytestmark = [pytest.mark.engines, pytest.mark.timeout(1800)]


def test_vllm_samples_ahead_and_resumes_exactly(tmp_path: Path) -> None:
    """Two steps ahead, so that weights are copied and handed over while it samples."""
    digits = make_digits(tmp_path / "digits", train=24)
    trainer = {"steps": 5, "checkpoint_every": 1, "keep_checkpoints": 9}
    rollout = {"engine": "vllm", "parity_every": 2}
    run = start(tmp_path / "run", digits, 2, rollout=rollout, trainer=trainer)
    metrics = list(Journal(run / "metrics.jsonl").rows())
    assert [row["overlap/staleness_max"] for row in metrics] == [0, 1, 2, 2, 2]
    gaps = [row["parity/image/max"] for row in metrics if "parity/image/max" in row]
    assert len(gaps) == 3 and max(gaps) < 1e-4, "with the newest weights, whatever is under way"
    # Sampled with older weights, so that the trainer's are others by now.
    assert metrics[-1]["train/clip_share"] > 0

    said = list(Journal(run / "rollouts.jsonl").rows())
    for later in (3, 4, 5):
        (run / "checkpoints" / f"step_{later}" / "trainer" / "state.json").unlink()
    start(run, digits, 2, rollout=rollout, trainer=trainer, resume=True)
    assert list(Journal(run / "rollouts.jsonl").rows()) == said
