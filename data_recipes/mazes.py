"""Maps of small mazes to walk through, drawn at random; nothing is downloaded.

A maze is a random tree of ways through a grid from which some walls are taken away. No maze of one
split, with its start and target, is in another.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from mmrl.data_recipes.digits import write_jsonl
from mmrl.errors import UserError
from mmrl.recipes.manifest import write_made
from mmrl.recipes.recipe import About
from mmrl.rewards.moves import MOVES, Cell, Maze, Move, shortest_path, write_maze

ABOUT = About(
    name="mazes",
    summary="maps of small mazes to walk through",
    task="maze_walk",
    license="CC0-1.0",
)
SIDE = 28  # pixels of a cell: one token of a Qwen-VL model
INK, START, TARGET = (40, 40, 40), (52, 110, 219), (214, 48, 49)


def build(
    source: Path | None,
    out: Path,
    *,
    seed: int = 0,
    size: int = 3,
    open_share: float = 0.6,
    most_moves: int = 4,
    train: int = 2000,
    validation: int = 200,
    test: int = 300,
) -> None:
    """Write `out/{train,validation,test}.jsonl`, the maps and a manifest.

    `size` is the cells of a side; `open_share` of the walls that are not needed are taken away;
    a shortest way has at most `most_moves` moves. The same options give the same bytes. `source`
    is unused.
    """
    if source is not None:
        raise UserError("the mazes recipe reads no input folder: leave out --in")
    (out / "maps").mkdir(parents=True, exist_ok=True)
    rng, seen = np.random.default_rng(seed), set[str]()
    for split, count in {"train": train, "validation": validation, "test": test}.items():
        records: list[dict[str, str]] = []
        while len(records) < count:
            maze = make_maze(rng, size, open_share)
            text = write_maze(maze)
            if text in seen or len(shortest_path(maze) or ()) > most_moves:
                continue
            seen.add(text)
            name = f"maze-{split}-{len(records):05d}"
            draw_map(maze).save(out / "maps" / f"{name}.png")
            records.append({"id": name, "image": f"maps/{name}.png", "maze": text})
        write_jsonl(out / f"{split}.jsonl", records)
    facts = {"seed": seed, "size": size, "open_share": open_share, "most_moves": most_moves}
    write_made(out, recipe=ABOUT.name, license=ABOUT.license, **facts)


def make_maze(rng: np.random.Generator, size: int, open_share: float) -> Maze:
    """Draw a maze in which every cell can be reached from every other."""
    start, target = (divmod(int(i), size) for i in rng.choice(size * size, 2, replace=False))
    grid = Maze(size, size, frozenset(), start, target)
    needed = _tree(rng, grid)
    walls: set[tuple[Cell, Move]] = set()
    for row, column in np.ndindex(size, size):
        for move in MOVES[1::2]:  # down and right: every wall from one of its sides
            beyond = grid.neighbour((row, column), move)
            spare = beyond and frozenset(((row, column), beyond)) not in needed
            if spare and rng.random() >= open_share:
                walls.add(((row, column), move))
    return Maze(size, size, frozenset(walls), start, target)


def _tree(rng: np.random.Generator, grid: Maze) -> set[frozenset[Cell | None]]:
    """Ways that connect all cells without a circle, by a random walk that backtracks."""
    ways: set[frozenset[Cell | None]] = set()
    path, visited = [grid.start], {grid.start}
    while path:
        moves: list[Move] = [MOVES[int(i)] for i in rng.permutation(len(MOVES))]
        beyond = (grid.neighbour(path[-1], move) for move in moves)
        fresh = next((cell for cell in beyond if cell is not None and cell not in visited), None)
        if fresh is None:
            path.pop()
            continue
        ways.add(frozenset((path[-1], fresh)))
        visited.add(fresh)
        path.append(fresh)
    return ways


def draw_map(maze: Maze) -> Image.Image:
    """Draw the grid, its walls, a blue disc on the start and a red square on the target."""
    image = Image.new("RGB", (maze.columns * SIDE, maze.rows * SIDE), "white")
    pen = ImageDraw.Draw(image)
    for row in range(maze.rows):
        for column in range(maze.columns):
            left, top = column * SIDE, row * SIDE
            right, bottom = left + SIDE - 1, top + SIDE - 1
            pen.rectangle((left, top, right, bottom), outline=(225, 225, 225))
            inside = (left + 7, top + 7, right - 7, bottom - 7)
            if (row, column) == maze.start:
                pen.ellipse(inside, fill=START)
            if (row, column) == maze.target:
                pen.rectangle(inside, fill=TARGET)
            edges = {
                "up": (left, top, right, top + 2),
                "down": (left, bottom - 2, right, bottom),
                "left": (left, top, left + 2, bottom),
                "right": (right - 2, top, right, bottom),
            }
            for move in MOVES:
                if maze.neighbour((row, column), move) is None:
                    pen.rectangle(edges[move], fill=INK)
    return image
