"""What vLLM is told of a prompt's media: every placeholder is some medium's, and only once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmrl import plugins
from mmrl.engines.vllm.media import PlacedMedium, placed_media
from mmrl.errors import UserError
from mmrl.policy.family import Limits
from mmrl.policy.policy import wrap
from tests.families.cases import Case, ask, cases, clip, make, policy
from tests.families.tiny import TINY, build


def embedded(placed: PlacedMedium, length: int) -> np.ndarray:
    """Which tokens of a prompt get a feature row of this medium."""
    found = np.zeros(length, dtype=int)
    inside = slice(placed.first, placed.first + placed.length)
    found[inside] = 1 if placed.embedded is None else placed.embedded
    return found


@pytest.mark.parametrize("name", TINY)
def test_every_placeholder_is_one_mediums(name: str) -> None:
    made = policy(name)
    for label, case in cases(TINY[name].kinds).items():
        prompt = ask(made, case)
        told = placed_media(prompt, made.family)
        total = sum((embedded(p, len(prompt.ids)) for p in told), np.zeros(len(prompt.ids), int))
        assert total.tolist() == np.isin(prompt.ids, made.family.placeholder_ids).tolist(), label
        assert len({(p.modality, p.hash) for p in told}) == len(told), label


def test_the_generic_family_is_refused_with_media_alone() -> None:
    model, processor = build("qwen2_5_vl")
    family = plugins.load("family", "generic").build(model, processor, Limits(2000))
    made = wrap(model, processor, family)
    with pytest.raises(UserError, match=r"sample 's'.*use rollout\.engine=hf"):
        placed_media(ask(made, Case((make("image", 0), "What?"))), made.family)
    assert placed_media(ask(made, Case(("What?",))), made.family) == []


@pytest.mark.parametrize(
    ("name", "kind", "tiles"), [("internvl", "video", 4), ("smolvlm", "video", 4)]
)
def test_frames_are_tiles_of_one_picture(name: str, kind: str, tiles: int) -> None:
    made = policy(name)
    (placed,) = placed_media(ask(made, Case((clip(0, frames=tiles), "?"))), made.family)
    assert placed.modality == "image"
    assert placed.tensors["num_patches"].tolist() == [tiles]
    assert placed.tensors["pixel_values"].shape[:2] == (tiles, 3)


def test_a_sound_leaves_its_padding_behind() -> None:
    """As many frames of a spectrum as its mask has, of one sound."""
    for name, spectrum in (("gemma4", "input_features_padded"), ("qwen3_omni", "")):
        made = policy(name)
        prompt = ask(made, Case((make("audio", 0), "What?")))
        (placed,) = placed_media(prompt, made.family)
        mask = next(v for k, v in prompt.media[0].tensors.items() if k.endswith("mask"))
        frames = int(mask.sum())
        assert frames > 0
        if spectrum:
            assert placed.tensors[spectrum].shape[1] == frames
            assert bool(placed.tensors["input_features_mask"].all())
        else:
            assert placed.tensors["input_audio_features"].shape[1] == frames
            assert placed.tensors["audio_feature_lengths"].tolist() == [frames]


def test_a_clip_with_its_sound_is_two_media_whose_features_take_turns() -> None:
    made = policy("qwen3_omni")
    prompt = ask(made, Case((make("sounding clip", 0), "What?")))
    frames, sound = placed_media(prompt, made.family)
    assert (frames.modality, sound.modality) == ("video", "audio")
    _, video, audio = made.family.placeholder_ids
    for placed, token in ((frames, video), (sound, audio)):
        places = embedded(placed, len(prompt.ids)).nonzero()[0]
        assert set(prompt.ids[places]) == {token}
    assert torch.equal(frames.tensors["use_audio_in_video"], torch.tensor(True))
