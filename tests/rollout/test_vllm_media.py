"""What vLLM is told of a prompt's media: every placeholder is some medium's, and only once."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from mmrl import plugins
from mmrl.engines.vllm.media import PlacedMedium, placed_media
from mmrl.errors import UserError
from mmrl.policy.encoder import whole
from mmrl.policy.family import Limits
from mmrl.policy.policy import Policy, wrap
from mmrl.types import EncodedMedium, Prompt
from tests.families.cases import Case, ask, cases, clip, make, policy
from tests.families.tiny import TINY, build


def placed_of(made: Policy, prompt: Prompt) -> list[PlacedMedium]:
    return placed_media(prompt, made.family, partial(whole, family=made.family))


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
        told = placed_of(made, prompt)
        total = sum((embedded(p, len(prompt.ids)) for p in told), np.zeros(len(prompt.ids), int))
        assert total.tolist() == np.isin(prompt.ids, made.family.placeholder_ids).tolist(), label
        assert len({(p.modality, p.hash) for p in told}) == len(told), label
        assert all(len(p.tensors) > 0 for p in told), label


def test_tensors_are_made_of_what_is_looked_at_alone() -> None:
    """A later turn names every medium before it, and needs the tensors of few."""
    made, looked = policy("qwen3_omni"), list[str]()
    case = Case((make("image", 0), make("sounding clip", 1), "What?"))
    prompt = ask(made, case)

    def noting(medium: EncodedMedium) -> EncodedMedium:
        looked.append(medium.kind)
        return medium

    picture, frames, sound = placed_media(prompt, made.family, noting)
    assert looked == []
    assert "pixel_values_videos" in frames.tensors and "input_audio_features" in sound.tensors
    assert looked == ["video"]
    assert dict(picture.tensors) and looked == ["video", "image"]


def test_the_generic_family_is_refused_with_media_alone() -> None:
    model, processor = build("qwen2_5_vl")
    family = plugins.load("family", "generic").build(model, processor, Limits(2000))
    made = wrap(model, processor, family)
    with pytest.raises(UserError, match=r"sample 's'.*use rollout\.engine=hf"):
        placed_of(made, ask(made, Case((make("image", 0), "What?"))))
    assert placed_of(made, ask(made, Case(("What?",)))) == []


@pytest.mark.parametrize(
    ("name", "kind", "tiles"), [("internvl", "video", 4), ("smolvlm", "video", 4)]
)
def test_frames_are_tiles_of_one_picture(name: str, kind: str, tiles: int) -> None:
    made = policy(name)
    (placed,) = placed_of(made, ask(made, Case((clip(0, frames=tiles), "?"))))
    assert placed.modality == "image"
    assert placed.tensors["num_patches"].tolist() == [tiles]
    assert placed.tensors["pixel_values"].shape[:2] == (tiles, 3)


def test_a_sound_leaves_its_padding_behind() -> None:
    """As many frames of a spectrum as its mask has, of one sound."""
    for name, spectrum in (("gemma4", "input_features_padded"), ("qwen3_omni", "")):
        made = policy(name)
        prompt = ask(made, Case((make("audio", 0), "What?")))
        (placed,) = placed_of(made, prompt)
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
    frames, sound = placed_of(made, prompt)
    assert (frames.modality, sound.modality) == ("video", "audio")
    _, video, audio = made.family.placeholder_ids
    for placed, token in ((frames, video), (sound, audio)):
        places = embedded(placed, len(prompt.ids)).nonzero()[0]
        assert set(prompt.ids[places]) == {token}
    assert torch.equal(frames.tensors["use_audio_in_video"], torch.tensor(True))
