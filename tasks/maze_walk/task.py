"""A maze on a map, walked one move a turn; the environment says where a move led."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from mmrl import task as contract
from mmrl.records import media_source
from mmrl.rewards.grammar import TagAnswer, Think
from mmrl.rewards.moves import MOVES, Cell, Move, read_maze, shortest_path
from mmrl.rewards.parsed import Parsed, malformed, ok
from mmrl.task import RewardPart, mean_by
from mmrl.types import Answer, MediaRef, Observation, Record, Sample, Score, Status, Text


@dataclass(frozen=True)
class Task(contract.Task):
    """Reads a map as `image` and its `maze` in AlphaMaze's cells.

    An episode has at most `turns` turns. A move into a wall leads nowhere and takes a turn; so
    does a turn that is not a move.
    """

    turns: int = 8
    think: Think = "none"

    name: ClassVar[str] = "maze_walk"
    summary: ClassVar[str] = "walk a maze on a map, one move a turn"
    parts: ClassVar[dict[str, RewardPart]] = {
        "reached": RewardPart(0.0, 1.0),
        "format": RewardPart(0.0, 1.0, 0.1),
    }
    metric: ClassVar[str] = "success_rate"
    keeps: ClassVar[contract.Keeps] = "noise"

    def sample(self, record: Record) -> Sample:
        """Ask with the map; the episode begins on the disc."""
        text = str(record.fields["maze"])
        maze = read_maze(text)
        path = shortest_path(maze)
        if path is None or len(path) > self.turns:
            raise ValueError(f"no way of at most {self.turns} moves leads to the target")
        image = MediaRef("image", media_source(record, record.fields["image"]))
        ask = (
            "Walk from the disc to the square, one move a turn: up, down, left or right. "
            f"{TagAnswer(self.think).instruction()}"
        )
        return Sample(
            id=record.id,
            task=self.name,
            parts=(image, Text(ask)),
            gold=text,
            meta={"moves": len(path)},
            start=Observation(list(maze.start), key=_key(maze.start), outcome=0.0),
            turns=self.turns,
        )

    def step(self, gold: Any, state: Any, answer: Answer) -> Observation:
        """Make one move; it earns 1 if it leads to the target."""
        maze, here = read_maze(gold), _cell(state)
        move = self._move(answer)
        beyond = None if move.value is None else maze.neighbour(here, move.value)
        there = beyond or here
        reached = there == maze.target
        news = "That is no move. " if move.value is None else "" if beyond else "A wall. "
        return Observation(
            state=list(there),
            key=_key(there),
            text=f"{news}Row {there[0] + 1}, column {there[1] + 1}.",
            reward=float(reached),
            outcome=float(reached),
            done=reached,
        )

    def score(self, gold: Any, answer: Answer) -> Score:
        """Take the environment's verdict; `format` is the share of turns that are moves."""
        if answer.outcome is None:
            raise ValueError("a walk is scored by its environment")
        moves = [self._move(replace(answer, text=turn)) for turn in answer.turns]
        broken = [move for move in moves if move.value is None]
        formed = 1 - len(broken) / len(moves) if moves else 0.0
        status: Status = "truncated" if answer.truncated else "ok"
        if broken:
            status = broken[0].status
        parts = {"reached": answer.outcome, "format": formed}
        return Score(parts, answer.outcome, status, broken[0].reason if broken else "")

    def breakdown(
        self, values: Sequence[float], metas: Sequence[Mapping[str, Any]]
    ) -> Mapping[str, float]:
        """Success rate by the moves of a shortest way."""
        return mean_by("moves", values, metas)

    def target(self, sample: Sample, answer: Answer) -> str | None:
        """The first move of a shortest way from here."""
        assert sample.start is not None
        path = shortest_path(replace(read_maze(sample.gold), start=_cell(sample.start.state)))
        return TagAnswer(self.think).write(path[0]) if path else None

    def _move(self, answer: Answer) -> Parsed[Move]:
        return TagAnswer(self.think).parse(replace(answer, truncated=False)).answer.then(_read_move)


def _read_move(text: str) -> Parsed[Move]:
    found = [move for move in MOVES if move == text.strip()]
    return ok(found[0]) if found else malformed(f"not a move: '{text[:20]}'")


def _cell(state: Any) -> Cell:
    row, column = state
    return int(row), int(column)


def _key(cell: Cell) -> str:
    return f"{cell[0]},{cell[1]}"
