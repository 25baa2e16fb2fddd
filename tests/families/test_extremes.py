"""Media at the edge of what can be decoded: a family takes them whole or refuses with a reason."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from mmrl.errors import MediaError
from mmrl.frame import Frame
from mmrl.types import Media
from tests.families.cases import RATE, medium, policy
from tests.families.tiny import TINY

SIZES = ((1, 1), (1, 190), (190, 1), (2, 3), (1800, 10), (10, 1800), (999, 1001))
SECONDS = (1 / RATE, 0.005, 0.02, 0.03, 0.05, 0.5, 70.0)


def grey(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def shown(count: int, width: int, height: int) -> Media:
    indices = tuple(range(count))
    frame = Frame((width, height), seconds=tuple(i / 20 for i in indices), indices=indices, fps=20)
    return medium("video", grey(count, height, width, 3), frame)


def heard(seconds: float) -> Media:
    samples = np.random.default_rng(0).normal(0, 0.1, max(1, round(seconds * RATE)))
    return medium("audio", samples.astype(np.float32), Frame(seconds=(0.0, seconds)))


def extremes(kinds: tuple[str, ...]) -> dict[str, Media]:
    """Thin, tiny and large pictures, clips of a frame, sounds shorter than a spectrum's window."""
    found: dict[str, Media] = {}
    if "image" in kinds:
        found |= {
            f"image {w} x {h}": medium("image", grey(h, w, 3), Frame((w, h))) for w, h in SIZES
        }
    if "video" in kinds:
        found |= {f"one frame {w} x {h}": shown(1, w, h) for w, h in ((84, 56), (1, 1), (1000, 6))}
        found |= {f"{n} frames": shown(n, 56, 56) for n in (2, 3)}
    if "sounding clip" in kinds:
        found["a clip with 70 s"] = replace(shown(4, 56, 56), track=heard(70).array, rate=RATE)
    if "audio" in kinds:
        found |= {f"{seconds:g} s": heard(seconds) for seconds in SECONDS}
    return found


@pytest.mark.parametrize("name", [name for name in TINY if name != "qwen2_audio_30s"])
def test_extremes_are_taken_whole_or_refused(name: str) -> None:
    made = policy(name).family
    taken: dict[str, int] = {}
    for label, one in extremes(TINY[name].kinds).items():
        try:
            encoded = made.encode_medium(one)
        except MediaError as error:
            assert str(error) and "\n" not in str(error), label
            continue
        taken[label] = encoded.num_tokens
        assert encoded.num_tokens > 0, f"{label} would be trained without its medium"
        with torch.no_grad():
            (features,) = made.features([encoded])
        assert len(features) == encoded.num_tokens, label
        assert features.isfinite().all(), label
    assert taken
    if "70 s" in taken:
        assert taken["70 s"] > 100 * taken["0.5 s"], "the sound was cut and nobody was told"
