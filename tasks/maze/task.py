"""AlphaMaze: move tokens, walked in a simulator."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

from mmrl import task as contract
from mmrl.rewards.grammar import TagAnswer, Think
from mmrl.rewards.moves import (
    Blocked,
    Maze,
    Move,
    parse_moves,
    reaches_target,
    read_maze,
    shortest_path,
    write_moves,
)
from mmrl.rewards.parsed import Parsed
from mmrl.rewards.shaping import tags_once
from mmrl.task import RewardPart, mean_by
from mmrl.types import Answer, Record, Sample, Score, Text

_TAGS = ("<think>\n", "\n</think>\n")


class Gold(NamedTuple):
    """The maze as text, for the simulator, and the way that the data set gives."""

    maze: str
    path: tuple[Move, ...]


@dataclass(frozen=True)
class Task(contract.Task):
    """Reads AlphaMaze rows.

    `variant` code is AlphaMaze's training reward on the text between the first two `</think>`: 0.2
    a move for the gold path only, 1 for any moves at all, 0.125 a tag.
    """

    variant: Literal["strict", "code"] = "strict"
    blocked: Blocked = "fail"
    think: Think = "required"

    name: ClassVar[str] = "maze"
    summary: ClassVar[str] = "walk a text maze from origin to target, judged by a simulator"
    parts: ClassVar[dict[str, RewardPart]] = {
        "path": RewardPart(0.0, math.inf),
        "format": RewardPart(0.0, 1.0, 0.25),
    }
    metric: ClassVar[str] = "solve_rate"

    def sample(self, record: Record) -> Sample:
        """Ask a record: `Prompt`, and in `Response` or `Golden_path` the way."""
        fields = record.fields
        prompt = str(fields["Prompt"])
        maze = read_maze(prompt)
        path = _gold_path(str(fields.get("Golden_path") or fields.get("Response") or ""), maze)
        grammar = TagAnswer(self.think)
        return Sample(
            id=record.id,
            task=self.name,
            parts=(Text(f"{prompt}\n\n{self._instruction()}"),),
            gold=Gold(prompt, path),
            target=grammar.write(write_moves(path))
            if self.variant == "strict"
            else f"<think>\nWalk.\n</think>\n{write_moves(path)}",
            meta={"level": str(fields.get("Level", "all"))},
        )

    def score(self, gold: Any, answer: Answer) -> Score:
        """Walk the moves; the metric is the simulator's in both variants."""
        if self.variant == "code":
            return self._score_as_coded(gold, answer)
        region = TagAnswer(self.think).parse(answer)
        moves = region.answer.then(parse_moves)
        solved = self._solves(gold, moves)
        formed = region.well_formed and moves.value is not None
        parts = {"path": float(solved), "format": float(formed)}
        return Score(parts, float(solved), moves.status, moves.reason)

    def breakdown(
        self, values: Sequence[float], metas: Sequence[Mapping[str, Any]]
    ) -> Mapping[str, float]:
        """Solve rate of each level."""
        return mean_by("level", values, metas)

    def _instruction(self) -> str:
        if self.variant == "code":
            return "Reason between <think> and </think>, then give the moves, such as <|up|>."
        return (
            f"{TagAnswer(self.think).instruction()} The answer is the moves from origin to target, "
            "as tokens <|up|>, <|down|>, <|left|> and <|right|> and nothing else."
        )

    def _solves(self, gold: Gold, moves: Parsed[tuple[Move, ...]]) -> bool:
        if moves.value is None:
            return False
        return reaches_target(read_maze(gold.maze), moves.value, self.blocked)

    def _score_as_coded(self, gold: Gold, answer: Answer) -> Score:
        regions = answer.text.split("</think>", 2)
        moves = parse_moves(regions[1] if len(regions) > 1 else "")
        exact = moves.value == gold.path
        paid = 0.2 * len(gold.path) * exact + float(moves.value is not None)
        parts = {"path": paid, "format": tags_once(answer.text, _TAGS)}
        return Score(parts, float(self._solves(gold, moves)), moves.status, moves.reason)


def _gold_path(text: str, maze: Maze) -> tuple[Move, ...]:
    """The data set's way, or a shortest one where it gives none; a wrong one raises ValueError."""
    text = text.rpartition("</think>")[2]
    moves = parse_moves(text).value if text.strip() else shortest_path(maze)
    if moves is None or not reaches_target(maze, moves):
        raise ValueError("the gold path does not lead from origin to target")
    return moves
