"""Shared fixtures: the shipped tiny Qwen2.5-VL, and prompts of every shape."""

from __future__ import annotations

import io
from collections.abc import Callable

import hypothesis
import numpy as np
import pytest
import torch
from PIL import Image

from mmrl.model_config import ModelConfig
from mmrl.policy.encoder import Encoder
from mmrl.policy.policy import Policy, load_policy
from mmrl.types import MediaRef, Sample, Text

TINY = "asset:tiny_qwen2_5_vl"

# An example that a busy machine is slow at is no failure.
hypothesis.settings.register_profile("any_machine", deadline=None)
hypothesis.settings.load_profile("any_machine")


@pytest.fixture
def policy() -> Policy:
    """A fresh copy of the tiny model in float32 on the CPU."""
    return load_policy(ModelConfig(path=TINY), torch.device("cpu"))


@pytest.fixture
def encoder(policy: Policy) -> Encoder:
    return Encoder(policy.family)


def noise_image(width: int, height: int, seed: int) -> MediaRef:
    """A random PNG by its bytes."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return MediaRef("image", buffer.getvalue())


@pytest.fixture
def ask() -> Callable[..., Sample]:
    """Make a sample from text and (width, height, seed) triples, in order."""

    def ask(*parts: str | tuple[int, int, int], id: str = "s") -> Sample:
        made = [Text(p) if isinstance(p, str) else noise_image(*p) for p in parts]
        return Sample(id, "test", tuple(made), gold=None)

    return ask
