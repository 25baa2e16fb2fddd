"""The mazes recipe: every maze can be walked, its map shows it, and no maze is in two splits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmrl.data_recipes import mazes
from mmrl.errors import UserError
from mmrl.recipes.manifest import verify
from mmrl.rewards.moves import MOVES, read_maze, shortest_path, write_maze

SPLITS = {"train": 12, "validation": 3, "test": 4}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("mazes")
    mazes.build(None, out, seed=5, size=4, most_moves=5, **SPLITS)
    return out


def texts(folder: Path, split: str) -> list[str]:
    lines = (folder / f"{split}.jsonl").read_text().splitlines()
    return [json.loads(line)["maze"] for line in lines]


def test_every_maze_has_a_short_way_and_stands_in_one_split(built: Path) -> None:
    every = [text for split in SPLITS for text in texts(built, split)]
    assert len(every) == len(set(every)) == sum(SPLITS.values())
    for text in every:
        maze = read_maze(text)
        path = shortest_path(maze)
        assert path is not None and 1 <= len(path) <= 5
        assert (maze.rows, maze.columns) == (4, 4)
        assert write_maze(maze) == text
    assert any(
        maze.neighbour(cell, "down") is None
        for maze in map(read_maze, every)
        for cell in np.ndindex(3, 4)
    ), "some have inner walls"


def test_the_map_shows_walls_start_and_target(built: Path) -> None:
    for line in (built / "train.jsonl").read_text().splitlines():
        record = json.loads(line)
        maze = read_maze(record["maze"])
        pixels = np.asarray(Image.open(built / record["image"]))
        assert pixels.shape == (4 * mazes.SIDE, 4 * mazes.SIDE, 3)
        half = mazes.SIDE // 2
        offsets = {"up": (0, half), "down": (-1, half), "left": (half, 0), "right": (half, -1)}
        for row, column in np.ndindex(4, 4):
            cell = pixels[row * mazes.SIDE :, column * mazes.SIDE :][: mazes.SIDE, : mazes.SIDE]
            for move in MOVES:
                drawn = tuple(cell[offsets[move]].tolist()) == mazes.INK
                assert drawn == (maze.neighbour((row, column), move) is None)
            centre = tuple(cell[half, half].tolist())
            assert (centre == mazes.START) == ((row, column) == maze.start)
            assert (centre == mazes.TARGET) == ((row, column) == maze.target)


def test_the_same_options_give_the_same_bytes(built: Path, tmp_path: Path) -> None:
    mazes.build(None, tmp_path, seed=5, size=4, most_moves=5, **SPLITS)
    files = [path.relative_to(built) for path in built.rglob("*") if path.is_file()]
    assert len(files) == sum(SPLITS.values()) + len(SPLITS) + 1
    assert all((tmp_path / f).read_bytes() == (built / f).read_bytes() for f in files)
    assert verify(tmp_path) == []


def test_it_reads_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="leave out --in"):
        mazes.build(tmp_path, tmp_path / "out")
