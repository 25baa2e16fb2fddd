"""What Nemotron-H Omni hears: each sound alone, whatever is heard beside it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mmrl.errors import MediaError, UserError
from mmrl.model_config import ModelConfig
from mmrl.policy.policy import load_policy
from tests.families.cases import policy, tone

HEARING = "nemotron_h_omni"


@pytest.mark.parametrize("frames", [2, 8, 80, 81])
@torch.no_grad()
def test_a_sound_is_heard_as_alone_beside_a_longer_one(frames: int) -> None:
    """Padded, the last row of one that is a multiple of eight frames long sees the padding."""
    pytest.importorskip("librosa")
    made = policy(HEARING)
    family, model = made.family, made.model
    short, long = (family.encode_medium(tone(i, s)) for i, s in ((1, frames / 100), (2, 2.0)))
    found = family.features([short, long])[0]
    given = (short.tensors[key] for key in ("input_features", "input_features_mask"))
    wanted = model.get_audio_features(*given, return_dict=True).pooler_output
    assert torch.equal(found, wanted) and found.isfinite().all()
    assert len(found) == short.num_tokens


def test_a_sound_of_one_window_is_refused() -> None:
    """Spectrograms are divided by their spread, which one frame has none of."""
    pytest.importorskip("librosa")
    family = policy(HEARING).family
    with pytest.raises(MediaError, match=r"too short: this family hears 0\.02 s or more"):
        family.encode_medium(tone(1, 0.015))


def test_a_processor_without_its_packages_says_which(tmp_path: Path) -> None:
    """Here of a class whose packages no extra of ours installs."""
    policy("qwen2_audio").save(tmp_path)
    file = tmp_path / "processor_config.json"
    file.write_text(file.read_text().replace("WhisperFeature", "Pop2PianoFeature"))
    with pytest.raises(UserError, match=r"cannot load .*requires .*pip install"):
        load_policy(ModelConfig(path=str(tmp_path)))
