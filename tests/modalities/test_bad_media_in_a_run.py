"""Bad clips and sounds among good ones: a run counts each and trains none without its media."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import pytest

from mmrl.config import RunConfig
from mmrl.runlog.journal import Journal
from mmrl.train.run import train
from mmrl.validation import validate
from tests.families import tiny
from tests.modalities.test_audio import wav
from tests.modalities.test_video import clip

pytest.importorskip("soundfile")
pytest.importorskip("torchaudio")

CLIPS: Mapping[str, tuple[bytes | str, str]] = {
    "cut": (clip(tone_seconds=1.0)[:900], "not a readable video|damaged video|no frames"),
    "text": (b"not a video at all", "not a readable video"),
    "empty": (b"", "empty video file"),
    "four hours": (
        clip(frames=25, step_seconds=Fraction(600), fps=1, tone_seconds=1.0),
        "over max_seconds",
    ),
    "thread": (clip(size=(2000, 2), tone_seconds=1.0), "max_aspect_ratio"),
    "silent": (clip(), "audio"),
    "outside": ("../elsewhere.mp4", "leaves the data folder"),
    "remote": ("https://example.org/a.mp4", "set allow_remote"),
}
SOUNDS: Mapping[str, tuple[bytes | str, str]] = {
    "zero": (wav(0.0), "under min_seconds"),
    "half a header": (wav(1.0)[:20], "not readable audio|damaged"),
    "noise": (b"no sound" * 10, "not readable audio"),
    "a header alone": (struct.pack("<4sI", b"RIFF", 0), "not readable audio|damaged"),
    "missing": ("sounds/none.wav", "no audio at"),
}
GOOD = 3


def place(folder: Path, name: str, medium: bytes | str) -> str:
    if isinstance(medium, str):
        return medium
    (folder / name).write_bytes(medium)
    return name


def records(folder: Path) -> tuple[Path, Path]:
    """Clip and sound records, three good ones of each among the bad."""
    folder.mkdir()
    one = clip(frames=1, tone_seconds=1.0)  # a clip of one frame is short, not bad
    clips = {name: medium for name, (medium, _) in CLIPS.items()} | {"one frame": one}
    clips |= {f"good {n}": clip(frames=4 + n, tone_seconds=1.0) for n in range(GOOD - 1)}
    sounds = {name: medium for name, (medium, _) in SOUNDS.items()}
    sounds |= {f"good {n}": wav(0.5, hertz=(400.0 + 100 * n,)) for n in range(GOOD)}
    asked = {"options": ["A. yes", "B. no"], "question": "Is it grey?", "answer": "A"}
    rows = [
        {"id": f"clip {n}", "video": place(folder, f"{n}.mp4", m), **asked}
        for n, m in clips.items()
    ]
    heard = {"choices": ["yes", "no"], "question": "Is it heard?", "answer": "yes"}
    more = [
        {"id": f"sound {n}", "audio_id": place(folder, f"{n}.wav", m), **heard}
        for n, m in sounds.items()
    ]
    paths = folder / "clips.jsonl", folder / "sounds.jsonl"
    for path, made in zip(paths, (rows, more), strict=True):
        path.write_text("".join(json.dumps(row) + "\n" for row in made))
    return paths


def test_each_is_quarantined_and_the_run_goes_on(tmp_path: Path) -> None:
    clips, sounds = records(tmp_path / "data")
    model, processor = tiny.build("qwen2_5_omni")
    for part in (model, processor):
        part.save_pretrained(tmp_path / "model")
    run = tmp_path / "run"
    config = {
        "run": str(run),
        "model": {"path": str(tmp_path / "model")},
        "data": [
            {"task": "video_choice", "path": str(clips), "max_unusable_share": 1.0},
            {"task": "audio_qa", "path": str(sounds), "max_unusable_share": 1.0},
        ],
        "media": {"video": {"frames": 2, "audio": True}},
        "algorithm": {"name": "grpo", "group_size": 2},
        "rollout": {"max_new_tokens": 4, "scoring_workers": 1},
        "trainer": {"steps": 3, "prompts_per_step": 2 * GOOD},
    }
    train(validate(RunConfig, config, "test"))

    found = {row["id"]: row["reason"] for row in Journal(run / "quarantine.jsonl").rows()}
    expected = {f"clip {name}": reason for name, (_, reason) in CLIPS.items()}
    expected |= {f"sound {name}": reason for name, (_, reason) in SOUNDS.items()}
    assert found.keys() == expected.keys()
    for name, reason in expected.items():
        assert re.search(reason, found[name]), (name, found[name])
    rows = list(Journal(run / "metrics.jsonl").rows())
    assert [row["media/without"] for row in rows] == [0.0] * 3
    asked = {name for row in Journal(run / "consumed.jsonl").rows() for name in row["ids"]}
    assert asked and not asked & expected.keys()
