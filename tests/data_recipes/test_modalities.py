"""The modalities recipe: repeatable bytes, golds that agree with the media, no shared media."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmrl.config import load_config
from mmrl.data import load_samples
from mmrl.data_recipes import modalities
from mmrl.errors import UserError
from mmrl.modalities import audio, video
from mmrl.recipes.manifest import verify
from mmrl.tasking import load_task
from mmrl.types import Media, MediaRef
from tests.recipes.grading import assert_full_marks, refuse

pytest.importorskip("av", reason="the clips are written by PyAV: pip install 'mmrl[video]'")
pytest.importorskip("soundfile", reason="needs pip install 'mmrl[audio]'")

CONFIGS = Path(__file__).parents[2] / "configs" / "modalities"
SPLITS = {"train": 12, "validation": 3, "test": 3}


def rows(folder: Path, split: str = "train") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{split}.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("modalities")
    modalities.build(None, out, seed=3, **SPLITS)
    return out


@pytest.mark.parametrize("kind", modalities.MAKERS)
def test_every_record_loads_through_the_task_of_its_configuration(built: Path, kind: str) -> None:
    source = load_config(CONFIGS / f"{kind}.yaml").data[0]
    task = load_task(source.task, source.params)
    for split, size in SPLITS.items():
        samples = load_samples(task, built / kind / f"{split}.jsonl", source.task, refuse)
        assert len(samples) == size
        for sample in samples:
            assert_full_marks(task, sample)


def test_the_same_seed_gives_the_same_bytes(built: Path, tmp_path: Path) -> None:
    modalities.build(None, tmp_path, seed=3, **SPLITS)
    for kind in modalities.MAKERS:
        assert verify(built / kind) == []
        manifest = (tmp_path / kind / "manifest.json").read_bytes()
        assert manifest == (built / kind / "manifest.json").read_bytes()


@pytest.mark.parametrize("kind", modalities.MAKERS)
def test_no_medium_is_in_two_splits(built: Path, kind: str) -> None:
    split_of: dict[str, str] = {}
    for path in sorted((built / kind / "media").iterdir()):
        digest, split = hashlib.sha256(path.read_bytes()).hexdigest(), path.name.split("-")[1]
        assert split_of.setdefault(digest, split) == split
    assert set(split_of.values()) == set(SPLITS)


def test_the_count_is_the_number_of_beeps(built: Path) -> None:
    for row in rows(built / "audio"):
        heard = audio.decode(MediaRef("audio", built / "audio" / row["audio_id"]))
        loud = np.abs(heard.array).reshape(-1, 160).max(axis=1) > 0.1
        starts = int((np.diff(loud.astype(int)) == 1).sum())
        assert modalities.NUMBERS[starts - 1] == row["answer"]


def clip(path: Path, **options: Any) -> Media:
    return video.decode(MediaRef("video", path, {"frames": modalities.FRAMES, **options}))


def travel(media: Media) -> tuple[float, float]:
    """How far the dark pixels' centre moves from the first frame to the last, (x, y)."""
    grey = media.array.mean(axis=-1)
    centres = [np.argwhere(frame < 150).mean(axis=0) for frame in (grey[0], grey[-1])]
    down, right = centres[1] - centres[0]
    return float(right), float(down)


def answer(row: dict[str, Any]) -> str:
    text: str = row["options"]["ABCD".index(row["answer"])].removeprefix(f"{row['answer']}. ")
    return text


def test_the_way_is_that_of_the_dark_pixels(built: Path) -> None:
    for row in rows(built / "video"):
        right, down = travel(clip(built / "video" / row["video"]))
        way = modalities.WAYS[answer(row)]
        assert np.sign(np.round(np.array([right, down]) / 10)).tolist() == list(way)


def test_the_sound_rises_as_the_answer_says(built: Path) -> None:
    for row in rows(built / "audio_video"):
        media = clip(built / "audio_video" / row["video"], audio=True)
        assert media.track is not None
        way, tone = answer(row).split(", ")
        assert (travel(media)[0] > 0) == (way == "right")
        quarter = len(media.track) // 4
        pitches = [
            np.abs(np.fft.rfft(part))[50:].argmax()
            for part in (media.track[:quarter], media.track[-quarter:])
        ]
        assert (pitches[1] > pitches[0]) == (tone == "rising")


def test_the_box_is_the_named_button(built: Path) -> None:
    for row in rows(built / "screenshot"):
        pixels = np.asarray(Image.open(built / "screenshot" / row["img_filename"]))
        colour = modalities.COLOURS[row["instruction"].split()[2]]
        down, right = np.argwhere((pixels == colour).all(axis=-1)).T
        x, y, width, height = row["bbox"]
        assert (right.min(), down.min()) == (x, y)
        assert (right.max() + 1, down.max() + 1) == (x + width, y + height)


def test_the_letter_says_which_pictures_are_discs(built: Path) -> None:
    for row in rows(built / "two_images"):
        discs = []
        for name in row["images"]:
            dark = np.asarray(Image.open(built / "two_images" / name)).mean(axis=-1) < 150
            down, right = np.argwhere(dark).T
            box = (np.ptp(down) + 1) * (np.ptp(right) + 1)
            discs.append(int(dark.sum() < 0.9 * box))
        assert row["solution"] == f"<answer>{'ABCD'[discs[0] + 2 * discs[1]]}</answer>"


def test_an_input_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--in"):
        modalities.build(tmp_path, tmp_path)
