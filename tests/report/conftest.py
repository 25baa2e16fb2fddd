"""Run folders made by hand, line by line, as a run would leave them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

Line = dict[str, Any]


def jpeg(side: int = 32, quality: int = 80) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((side, side), 90).convert("RGB").save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def rollout(step: int, **changes: Any) -> Line:
    line: Line = {
        "step": step,
        "id": f"sample-{step}",
        "task": "count",
        "variant": "",
        "prompt": "How many digits?",
        "media": [
            {"kind": "image", "hash": "a", "thumbnail": "media/a.jpg", "processed_size": [28, 28]}
        ],
        "gold": 3,
        "responses": [
            {
                "text": "three",
                "tokens": ["th", "re", "e"],
                "length": 3,
                "finish": "stop",
                "reward": 1.0,
                "parts": {"accuracy": 1.0},
                "status": "ok",
                "reason": "",
                "metric": 1.0,
                "advantages": [1.0, 0.5, None],
            },
            {
                "text": "four",
                "length": 1,
                "finish": "length",
                "reward": 0.0,
                "parts": {"accuracy": 0.0},
                "status": "missing",
                "reason": "no answer tag",
                "metric": 0.0,
                "advantages": -1.0,
            },
        ],
    }
    return {**line, **changes}


def metrics(step: int) -> Line:
    return {
        "step": step,
        "reward/mean": step / 100,
        "reward/accuracy": step / 100,
        "metric/mean": step / 100,
        "share/zero_variance": 0.25,
        "length/mean": 40.0,
        "length/max": 64.0,
        "time/rollout": 2.0,
        "time/update": 1.0,
        "time/step": 3.0,
        "memory/peak": 900.0,
        "train/loss": 0.1,
    }


def write_lines(path: Path, lines: list[Line]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Write a finished run; keyword arguments replace its files' contents."""

    def make(name: str = "run", steps: int = 6, **files: Any) -> Path:
        run = tmp_path / name
        (run / "media").mkdir(parents=True)
        (run / "media" / "a.jpg").write_bytes(jpeg())
        every = range(1, steps + 1)
        write_lines(run / "metrics.jsonl", files.get("metrics", [metrics(i) for i in every]))
        write_lines(run / "rollouts.jsonl", files.get("rollouts", [rollout(i) for i in every]))
        write_lines(run / "quarantine.jsonl", files.get("quarantine", []))
        (run / "config.yaml").write_text(
            files.get(
                "config",
                "seed: 5\nmodel: {path: tiny}\ndata: [{task: count}]\nalgorithm: {name: grpo}\n"
                "trainer: {steps: 6}\nrollout: {max_new_tokens: 64}\n",
            )
        )
        for side, value in (("before", 0.2), ("after", 0.8)):
            evaluation = {"metric": value, "low": value - 0.1, "high": value + 0.1, "records": 50}
            content = json.dumps(files.get(f"eval_{side}", evaluation))
            (run / f"eval_{side}.json").write_text(content)
        result = {"before": 0.2, "after": 0.8, "seconds": 125.0, "seed": 5}
        (run / "result.json").write_text(json.dumps(files.get("result", result)))
        return run

    return make
