"""Grid mazes in AlphaMaze's tokens: reading them, walking them, shortest paths."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from mmrl.rewards.parsed import Parsed, malformed, ok

Move = Literal["up", "down", "left", "right"]
MOVES: tuple[Move, ...] = get_args(Move)
Cell = tuple[int, int]
"""Row and column, from 0 at the top left."""

Blocked = Literal["fail", "stay"]
"""What a move into a wall or over the rim does: end the walk in failure, or nothing."""

_STEPS: dict[Move, Cell] = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}
_OPPOSITE: dict[Move, Move] = {"up": "down", "down": "up", "left": "right", "right": "left"}
_CELL = re.compile(
    r"<\|(?P<row>[0-9]{1,2})-(?P<column>[0-9]{1,2})\|>\s*"
    r"<\|(?P<walls>no|[a-z]{2,5}(?:_[a-z]{2,5}){0,3})_wall\|>\s*<\|(?P<content>blank|origin|target)\|>"
)
_MOVE = re.compile(r"\s*<\|(up|down|left|right)\|>")


@dataclass(frozen=True)
class Maze:
    """A grid with walls on the sides of its cells; a wall counts from both sides."""

    rows: int
    columns: int
    walls: frozenset[tuple[Cell, Move]]
    start: Cell
    target: Cell

    def neighbour(self, cell: Cell, move: Move) -> Cell | None:
        """The cell a move leads to; None if a wall or the rim is in the way."""
        row, column = cell[0] + _STEPS[move][0], cell[1] + _STEPS[move][1]
        inside = 0 <= row < self.rows and 0 <= column < self.columns
        beyond = ((row, column), _OPPOSITE[move])
        if not inside or (cell, move) in self.walls or beyond in self.walls:
            return None
        return row, column


def read_maze(text: str) -> Maze:
    """Read `<|row-column|><|up_left_wall|><|blank|>` cells out of a prompt.

    Cells that do not fill a grid, unknown walls, and none or several origins or targets raise
    ValueError.
    """
    contents: dict[Cell, str] = {}
    walls: set[tuple[Cell, Move]] = set()
    for match in _CELL.finditer(text):
        cell = int(match["row"]), int(match["column"])
        if cell in contents:
            raise ValueError(f"cell {cell} occurs twice")
        contents[cell] = match["content"]
        names = [] if match["walls"] == "no" else match["walls"].split("_")
        for name in names:
            if name not in MOVES:
                raise ValueError(f"unknown wall '{name}'")
            walls.add((cell, name))
    rows, columns = (max((cell[i] for cell in contents), default=-1) + 1 for i in (0, 1))
    if len(contents) != rows * columns or rows * columns < 2:
        raise ValueError(f"{len(contents)} cells do not fill a grid of {rows} x {columns}")
    start, target = (_only(contents, name) for name in ("origin", "target"))
    return Maze(rows, columns, frozenset(walls), start, target)


def write_maze(maze: Maze) -> str:
    """Write a maze as `read_maze` reads it, a line a row, every wall on both of its sides."""
    return "\n".join(
        "".join(_cell_text(maze, (row, column)) for column in range(maze.columns))
        for row in range(maze.rows)
    )


def _cell_text(maze: Maze, cell: Cell) -> str:
    walls = [move for move in MOVES if maze.neighbour(cell, move) is None]
    content = "origin" if cell == maze.start else "target" if cell == maze.target else "blank"
    return f"<|{cell[0]}-{cell[1]}|><|{'_'.join(walls) or 'no'}_wall|><|{content}|>"


def parse_moves(text: str, max_moves: int = 256) -> Parsed[tuple[Move, ...]]:
    """Read move tokens, white space between them and nothing else."""
    text = text.strip()
    if not text:
        return Parsed("missing", None, "no move")
    moves: list[Move] = []
    at = 0
    while at < len(text):
        match = _MOVE.match(text, at)
        if match is None:
            return malformed(f"not a move: '{text[at : at + 20]}'")
        if len(moves) == max_moves:
            return malformed(f"more than {max_moves} moves")
        moves.append(match[1])  # type: ignore[arg-type]
        at = match.end()
    return ok(tuple(moves))


def write_moves(moves: Iterable[Move]) -> str:
    """Write moves as tokens."""
    return "".join(f"<|{move}|>" for move in moves)


def reaches_target(maze: Maze, moves: Sequence[Move], blocked: Blocked = "fail") -> bool:
    """Whether the walk from the start ends on the target; passing over it is not enough."""
    cell = maze.start
    for move in moves:
        beyond = maze.neighbour(cell, move)
        if beyond is None and blocked == "fail":
            return False
        cell = beyond or cell
    return cell == maze.target


def shortest_path(maze: Maze) -> tuple[Move, ...] | None:
    """A shortest way from start to target; None if there is none."""
    paths: dict[Cell, tuple[Move, ...]] = {maze.start: ()}
    queue = deque([maze.start])
    while queue:
        cell = queue.popleft()
        if cell == maze.target:
            return paths[cell]
        for move in MOVES:
            beyond = maze.neighbour(cell, move)
            if beyond is not None and beyond not in paths:
                paths[beyond] = (*paths[cell], move)
                queue.append(beyond)
    return None


def _only(contents: dict[Cell, str], name: str) -> Cell:
    found = [cell for cell, content in contents.items() if content == name]
    if len(found) != 1:
        raise ValueError(f"{len(found)} cells are the {name}")
    return found[0]
