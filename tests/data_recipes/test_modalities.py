"""The modalities recipe: repeatable bytes, golds that agree with the media, no shared media."""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from mmrl.config import load_config
from mmrl.data.samples import load_samples
from mmrl.data_recipes import modalities
from mmrl.errors import UserError
from mmrl.modalities import audio, video
from mmrl.recipes.manifest import verify
from mmrl.rewards.moves import MOVES, read_maze
from mmrl.scoring.tasks import load_task
from mmrl.types import Answer, Media, MediaRef
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
            if math.isfinite(sum(part.high for part in task.parts.values())):
                assert_full_marks(task, sample)
            else:  # a maze's reward has no upper end
                assert sample.target is not None
                assert task.score(sample.gold, Answer(sample.target)).metric == 1.0


def test_the_same_seed_gives_the_same_bytes(built: Path, tmp_path: Path) -> None:
    modalities.build(None, tmp_path, seed=3, **SPLITS)
    for kind in modalities.MAKERS:
        assert verify(built / kind) == []
        for path in sorted((built / kind).rglob("*")):
            if path.is_file():
                assert path.read_bytes() == (tmp_path / path.relative_to(built)).read_bytes(), path


DRAW_CLIPS = """
import sys
from pathlib import Path
from mmrl.data_recipes import modalities
sizes = {"train": 6, "validation": 0, "test": 0}
modalities.MAKERS = {kind: modalities.MAKERS[kind] for kind in ("video", "audio_video")}
modalities.build(None, Path(sys.argv[1]), **sizes)
"""


def test_another_process_draws_the_same_clips(tmp_path: Path) -> None:
    """An encoder that reads memory which it did not write gives other bytes in another process."""
    for fill in ("1", "77"):
        command = [sys.executable, "-c", DRAW_CLIPS, str(tmp_path / fill)]
        # glibc fills fresh memory with a byte of this; elsewhere it changes nothing.
        subprocess.run(command, check=True, env={**os.environ, "MALLOC_PERTURB_": fill})
    one, other = (
        {path.name: path.read_bytes() for path in (tmp_path / fill).rglob("*.mp4")}
        for fill in ("1", "77")
    )
    assert len(one) == 12
    assert [name for name in one if one[name] != other[name]] == []


@pytest.mark.parametrize("kind", modalities.MAKERS)
def test_no_medium_or_question_is_in_two_splits(built: Path, kind: str) -> None:
    split_of: dict[str, str] = {}
    for path in sorted((built / kind / "media").iterdir()):
        digest, split = hashlib.sha256(path.read_bytes()).hexdigest(), path.name.split("-")[1]
        assert split_of.setdefault(digest, split) == split
    asked = [{**row, "id": ""} for split in SPLITS for row in rows(built / kind, split)]
    assert len({json.dumps(row) for row in asked}) == sum(SPLITS.values())


def test_a_question_that_was_asked_is_drawn_again(tmp_path: Path) -> None:
    def make(rng: np.random.Generator, stem: Path, scans: object) -> dict[str, Any]:
        return {"n": int(rng.integers(3))}

    asked: set[str] = set()
    drawn = [modalities._draw(make, [0, n], tmp_path, None, asked)["n"] for n in range(3)]  # type: ignore[arg-type]
    assert sorted(drawn) == [0, 1, 2]


def num_beeps(samples: npt.NDArray[np.float32]) -> int:
    loud = np.abs(samples[: len(samples) // 160 * 160]).reshape(-1, 160).max(axis=1) > 0.1
    return int((np.diff(loud.astype(int), prepend=0) == 1).sum())


def test_the_count_is_the_number_of_beeps(built: Path) -> None:
    for row in rows(built / "audio"):
        heard = audio.decode(MediaRef("audio", built / "audio" / row["audio_id"]))
        assert modalities.NUMBERS[num_beeps(heard.array) - 1] == row["answer"]


def inked(media: Media) -> npt.NDArray[np.bool_]:
    """Which frames show a digit."""
    return media.array.min(axis=(1, 2, 3)) < 120


def test_the_interval_is_when_the_digit_is_shown(built: Path) -> None:
    for row in rows(built / "video"):
        media = video.decode(MediaRef("video", built / "video" / row["video"], {"frames": 8}))
        start, end = row["timestamp"]
        assert media.frame.seconds == tuple(range(8)) and row["duration"] == 8
        assert np.flatnonzero(inked(media)).tolist() == list(range(start, end))


def test_the_letter_says_what_is_more(built: Path) -> None:
    for row in rows(built / "audio_video"):
        options = {"frames": 8, "audio": True}
        media = video.decode(MediaRef("video", built / "audio_video" / row["video"], options))
        assert media.track is not None
        lit = media.array.mean(axis=(1, 2, 3)) > 128
        flashes = int((np.diff(lit.astype(int), prepend=0) == 1).sum())
        beeps = num_beeps(media.track)
        assert row["answer"] == ("C" if beeps == flashes else "A" if beeps > flashes else "B")


def test_the_box_is_the_named_button(built: Path) -> None:
    for row in rows(built / "screenshot"):
        pixels = np.asarray(Image.open(built / "screenshot" / row["image"]))
        colour = modalities.COLOURS[row["instruction"].split()[2]]
        down, right = np.argwhere((pixels == colour).all(axis=-1)).T
        corners = (right.min(), down.min(), right.max() + 1, down.max() + 1)
        assert corners == tuple(row["bbox"])


def ink_of(path: Path) -> npt.NDArray[np.bool_]:
    pixels = np.asarray(Image.open(path).convert("L"))
    found: npt.NDArray[np.bool_] = pixels < pixels.max()
    return found


def test_the_letter_says_which_picture_shows_more_digits(built: Path) -> None:
    for row in rows(built / "two_images"):
        counts = []
        for name in row["images"]:
            cells = ink_of(built / "two_images" / name).reshape(3, 28, 3, 28)
            counts.append(int(cells.any(axis=(1, 3)).sum()))
        right = "C" if counts[0] == counts[1] else "A" if counts[0] > counts[1] else "B"
        assert row["solution"] == f"<answer>{right}</answer>"


def test_the_boxes_hold_all_ink_and_touch_it(built: Path) -> None:
    for row in rows(built / "boxes"):
        ink = ink_of(built / "boxes" / row["image"])
        for note in row["annotations"]:
            x, y, width, height = note["bbox"]
            part = ink[y : y + height, x : x + width]
            assert part.shape == (height, width)
            assert all(edge.any() for edge in (part[0], part[-1], part[:, 0], part[:, -1]))
            part[:] = False
        assert not ink.any()


def test_walls_of_the_maze_are_seen_from_both_sides(built: Path) -> None:
    for row in rows(built / "maze"):
        maze = read_maze(row["Prompt"])
        written = {
            (cell, way)
            for cell in np.ndindex(3, 3)
            for way in MOVES
            if maze.neighbour(cell, way) is None
        }
        assert {(cell, way) for cell, way in maze.walls} == written


def test_an_input_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--in"):
        modalities.build(tmp_path, tmp_path)
