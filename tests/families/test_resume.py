"""Every family resumes exactly: the weights and the optimiser's state of a run left alone."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from mmrl import api
from mmrl.config import RunConfig
from mmrl.runlog.journal import Journal
from mmrl.validation import validate
from tests.families import tiny
from tests.modalities.test_audio import wav
from tests.modalities.test_video import clip
from tests.runs import write_config

pytest.importorskip("soundfile")
pytest.importorskip("torchaudio")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

MIDDLE, STEPS = 1, 2
RECORDS = 2
PATIENT = {"timeout_seconds": 600.0}
SAME_FAMILY = "qwen2_audio_30s"  # as qwen2_audio, padded for vLLM
RECURRENT = ("qwen3_5", "qwen3_5_moe", "lfm2_vl", "nemotron_h_omni")
KILLED_STEPS = 4


def picture(seed: int, path: Path) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (56, 84, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def questions(kind: str, folder: Path) -> dict[str, Any]:
    """A source of the run's data: records that show or play one medium of a kind each."""
    folder.mkdir(parents=True)
    chosen = {"options": ["A. yes", "B. no"], "question": "Is it so?", "answer": "A"}
    rows: list[dict[str, Any]] = []
    for n in range(RECORDS):
        if kind == "image":
            picture(n, folder / f"{n}.png")
            asked = {"problem": "<image>Is it?", "problem_type": "yes/no", "solution": "yes"}
            rows.append({"image": f"{n}.png", **asked})
        elif kind == "audio":
            (folder / f"{n}.wav").write_bytes(wav(0.4 + 0.2 * n, hertz=(300.0 * (n + 1),)))
            asked = {"choices": ["yes", "no"], "question": "Is it heard?", "answer": "yes"}
            rows.append({"audio_id": f"{n}.wav", **asked})
        else:
            (folder / f"{n}.mp4").write_bytes(clip(frames=4 + n, tone_seconds=1.0))
            rows.append({"video": f"{n}.mp4", **chosen})
    task = {"image": "vqa_mix", "audio": "audio_qa", "video": "video_choice"}[kind]
    path = folder / "records.jsonl"
    path.write_text(
        "".join(json.dumps({"id": f"{kind} {n}", **r}) + "\n" for n, r in enumerate(rows))
    )
    return {"task": task, "path": str(path)}


def config_of(
    name: str, folder: Path, steps: int = STEPS, lora: dict[str, Any] | None = None
) -> RunConfig:
    """A run of a few steps that asks about media of all kinds and moves the weights.

    Self-certainty is the reward, since an untrained model's answers all earn nothing.
    """
    model, processor = tiny.build(name)
    for part in (model, processor):
        part.save_pretrained(folder / "model")
    kinds = tiny.TINY[name].kinds
    sources = [questions(kind, folder / kind) for kind in kinds if kind != "sounding clip"]
    values = {
        "run": str(folder / "run"),
        "model": {"path": str(folder / "model"), "lora": lora},
        "data": sources,
        # PyAV's child starts soonest; a busy machine must not look like a hanging decoder.
        "media": {
            "video": {"frames": 4, "reader": "pyav", "audio": "sounding clip" in kinds, **PATIENT}
        },
        "algorithm": {"name": "intuitor", "group_size": 2, "updates": {"mini_batches": 2}},
        "rollout": {"max_new_tokens": 5, "scoring_workers": 1},
        "optimizer": {"learning_rate": 1e-3, "warmup_steps": 2, "schedule": "linear"},
        "trainer": {
            "steps": steps,
            "prompts_per_step": 2 * len(sources),
            "checkpoint_every": 1,
            "keep_checkpoints": steps,
        },
    }
    return validate(RunConfig, values, "test")


def state(run: Path, step: int) -> Mapping[str, torch.Tensor]:
    """Weights, or the adapters', and the optimiser's tensors by name."""
    folder = run / "checkpoints" / f"step_{step}"
    (file,) = folder.glob("*model.safetensors")
    weights, optimizer = load_file(file), load_file(folder / "trainer/optimizer.safetensors")
    return {**weights, **{f"optimizer {name}": value for name, value in optimizer.items()}}


def progress(run: Path, step: int) -> dict[str, Any]:
    text = (run / "checkpoints" / f"step_{step}" / "trainer" / "state.json").read_text()
    return {key: value for key, value in json.loads(text).items() if key != "seconds"}


def rows(run: Path, name: str) -> list[Any]:
    """A journal's lines without what the clock says."""
    timed = ("seconds", "time", "memory", "host", "per_second")
    return [
        {k: v for k, v in row.items() if not any(part in k for part in timed)}
        for row in Journal(run / f"{name}.jsonl").rows()
    ]


@pytest.mark.parametrize("name", [name for name in tiny.TINY if name != SAME_FAMILY])
def test_a_resumed_run_ends_as_the_one_left_alone(name: str, tmp_path: Path) -> None:
    config = config_of(name, tmp_path)
    run = config.run
    api.train(config)
    whole, done = state(run, STEPS), progress(run, STEPS)
    middle, consumed = state(run, MIDDLE), rows(run, "consumed")
    assert any(not torch.equal(middle[key], whole[key]) for key in middle)
    towers = [key for key in whole if "vis" in key or "audio" in key]
    assert any(not torch.equal(middle[key], whole[key]) for key in towers)
    kinds = {identity.split()[0] for row in consumed for identity in row["ids"]}
    assert kinds == {kind for kind in tiny.TINY[name].kinds if kind != "sounding clip"}

    for step in range(MIDDLE + 1, STEPS + 1):
        shutil.rmtree(run / "checkpoints" / f"step_{step}")
    # What is left of the first run in this process must not matter.
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    api.train(config, resume=True)

    again = state(run, STEPS)
    assert again.keys() == whole.keys()
    assert [key for key in whole if not torch.equal(whole[key], again[key])] == []
    assert progress(run, STEPS) == done
    assert rows(run, "consumed") == consumed
    assert [row["media/without"] for row in rows(run, "metrics")] == [0.0] * STEPS


@pytest.mark.parametrize("lora", [None, {"rank": 2}], ids=["whole", "adapters"])
@pytest.mark.parametrize("name", RECURRENT)
def test_a_killed_run_ends_as_the_one_left_alone(
    name: str, lora: dict[str, Any] | None, tmp_path: Path
) -> None:
    """Layers that carry a state, and adapters on them beside a tower that stays as it is."""
    config = config_of(name, tmp_path, KILLED_STEPS, lora)
    api.train(config)
    whole, start = state(config.run, KILLED_STEPS), state(config.run, 1)
    assert any(not torch.equal(start[key], whole[key]) for key in whole)

    killed = config.model_copy(update={"run": tmp_path / "killed"})
    file = write_config(tmp_path / "killed.yaml", killed.model_dump(mode="json"))
    with (tmp_path / "killed.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mmrl.cli", "train", str(file)], stdout=log, stderr=log
        )
        while process.poll() is None and not rows(killed.run, "metrics"):
            time.sleep(0.01)
        process.kill()
        assert process.wait() == -signal.SIGKILL, (tmp_path / "killed.log").read_text()
    assert not (killed.run / "checkpoints" / f"step_{KILLED_STEPS}").exists()
    api.train(killed, resume=True)

    again = state(killed.run, KILLED_STEPS)
    assert again.keys() == whole.keys()
    assert [key for key in whole if not torch.equal(whole[key], again[key])] == []
    assert rows(killed.run, "consumed") == rows(config.run, "consumed")
