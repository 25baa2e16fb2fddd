"""What a prompt says of a clip's frames is when they are shown, whatever the clip's rate."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from mmrl.modalities.video import decode
from mmrl.types import Media, MediaRef, Sample, Text
from tests.families.cases import clip, policy
from tests.families.tiny import TINY
from tests.modalities import clips
from tests.modalities.clips import B_FRAMES, Form

VIDEO = [name for name in TINY if "video" in TINY[name].kinds]
VARYING = (0.0, 0.4, 2.0, 2.3, 7.0, 31.5, 64.0, 65.9)
EVEN = tuple(i / 2 for i in range(8))
LONG = tuple(i / 29.97 for i in range(0, 3600, 600))
"""Of an even clip whose frames last no whole number of milliseconds."""

SAID = {
    "qwen3_vl": r"<([\d.]+) seconds>",
    "qwen3_5": r"<([\d.]+) seconds>",
    "glm4v": r"<\|end_of_image\|>(\d+)",
    "smolvlm": r"Frame from (\d\d:\d\d):",
    "gemma4": r"(\d\d:\d\d) ",
    "nemotron_h_omni": r"sampled at ([\d.]+) seconds",
}
"""How families write a frame's second."""


def shown_at(seconds: tuple[float, ...]) -> Media:
    media = clip(0, frames=len(seconds))
    fps = 29.97 if seconds is LONG else 2.0
    indices = tuple(range(len(seconds)))
    if seconds is LONG:
        indices = tuple(round(second * fps) for second in seconds)
    frame = dataclasses.replace(media.frame, seconds=seconds, indices=indices, fps=fps)
    return dataclasses.replace(media, frame=frame)


def written(name: str, seconds: tuple[float, ...]) -> list[str]:
    """Pairs of frames are one step of a tower with a temporal patch of two."""
    family = TINY[name].family
    if family in ("qwen3_vl", "qwen3_5"):
        pairs = zip(seconds[::2], seconds[1::2], strict=True)
        return [f"{(a + b) / 2:.1f}" for a, b in pairs]
    if family == "glm4v":
        return [str(int(second)) for second in seconds[::2]]
    if family == "nemotron_h_omni":
        return [f"{second:.2f}" for second in seconds]
    return [f"{int(second // 60):02d}:{int(second % 60):02d}" for second in seconds]


@pytest.mark.parametrize("seconds", [EVEN, VARYING, LONG], ids=["even", "varying", "long"])
@pytest.mark.parametrize("name", [n for n in VIDEO if TINY[n].family in SAID])
def test_the_text_holds_the_times_of_the_frames_shown(
    name: str, seconds: tuple[float, ...]
) -> None:
    encoded = policy(name).family.encode_medium(shown_at(seconds))
    found = re.findall(SAID[TINY[name].family], encoded.expansion)
    assert found == written(name, seconds)


POSITIONS = ("qwen2_5_vl", "qwen2_5_omni", "qwen3_omni")
"""Families that say seconds by positions."""


def rate_of(name: str) -> float:
    config = policy(name).model.config
    inner = getattr(config, "thinker_config", config)
    vision = inner.vision_config
    return float(getattr(inner, "position_id_per_seconds", getattr(vision, "tokens_per_second", 0)))


@pytest.mark.parametrize("name", [n for n in VIDEO if TINY[n].family in POSITIONS])
def test_positions_hold_the_times_of_the_frames_shown(name: str) -> None:
    made, rate = policy(name), rate_of(name)
    media = made.family.encode_medium(shown_at(VARYING))
    ref = MediaRef("video", Path("a.mp4"))
    prompt = made.family.encode(Sample("s", "t", (ref, Text("When?")), gold=None), [media])
    placed = np.isin(prompt.ids, made.family.placeholder_ids)
    times = np.unique(prompt.positions[0, placed])
    wanted = [int(second * rate + 1e-3) for second in VARYING[::2]]
    assert times - times[0] == pytest.approx(wanted, rel=1e-6)
    # What follows comes after all that was shown.
    after = prompt.positions[0, int(np.flatnonzero(placed)[-1]) + 1 :]
    assert (np.diff(after) == 1).all() and after[0] == prompt.positions[:, placed].max() + 1


@pytest.mark.parametrize("name", VIDEO)
def test_one_frame_is_a_clip(name: str, tmp_path: Path) -> None:
    form = Form("mp4", "H.264", "libx264", B_FRAMES)
    path = clips.write(tmp_path / "one.mp4", form, frames=1)
    media = decode(MediaRef("video", path, {}))
    assert len(media.array) == 1
    family = policy(name).family
    encoded = family.encode_medium(media)
    parts = (MediaRef("video", path), Text("What?"))
    prompt = family.encode(Sample("s", "t", parts, gold=None), [encoded])
    assert np.isin(prompt.ids, family.placeholder_ids).sum() == encoded.num_tokens > 0


def test_a_clip_as_it_is_written_comes_with_its_own_times(tmp_path: Path) -> None:
    form = Form("mp4", "H.264", "libx264", B_FRAMES, varying=True)
    path = clips.write(tmp_path / "v.mp4", form)
    media = decode(MediaRef("video", path, {"frames": 8}))
    assert media.frame.seconds == pytest.approx([form.seconds[i] for i in media.frame.indices])
    name = next(n for n in VIDEO if TINY[n].family == "qwen3_vl")
    encoded = policy(name).family.encode_medium(media)
    found = re.findall(SAID["qwen3_vl"], encoded.expansion)
    assert found == written(name, media.frame.seconds)
