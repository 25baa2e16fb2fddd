from __future__ import annotations

import time
from pathlib import Path

import pytest

from mmrl.rewards.moves import (
    Maze,
    parse_moves,
    reaches_target,
    read_maze,
    shortest_path,
    write_moves,
)
from mmrl.scoring.tasks import load_task, resolve_weights, weigh
from mmrl.types import Answer, Record, Score

# 3 x 3, origin bottom left, target two up and two right but one: gold UURD ends at (1, 1).
PROMPT = "\n".join(
    (
        "<|0-0|><|up_left_wall|><|blank|><|0-1|><|up_wall|><|blank|><|0-2|><|up_right_wall|><|blank|>",
        "<|1-0|><|left_right_wall|><|blank|><|1-1|><|no_wall|><|target|>"
        "<|1-2|><|right_wall|><|blank|>",
        "<|2-0|><|down_left_wall|><|origin|><|2-1|><|down_wall|><|blank|>"
        "<|2-2|><|down_right_wall|><|blank|>",
    )
)
GOLD = ("up", "up", "right", "down")
OTHER = ("right", "right", "up", "left")


def grade(answer: str, truncated: bool = False, **params: str) -> Score:
    task = load_task("maze", params)
    fields = {"Prompt": PROMPT, "Golden_path": write_moves(GOLD)}
    sample = task.sample(Record("1", fields, Path()))
    score = task.score(sample.gold, Answer(answer, truncated))
    return weigh(score, resolve_weights(task, {}))


def tagged(moves: str) -> str:
    return f"<think>t</think><answer>{moves}</answer>"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>\nt\n</think>\n" + write_moves(GOLD), 2.05),
        ("<think>\nt\n</think>\n" + write_moves(OTHER), 1.25),
        ("<think>\nt\n</think>\ngo up", 0.25),
        ("<think>\nt\n</think>\n<|up|>", 1.25),
        ("<|up|>", 0.0),
        ("<think>\nt\n</think>\n" + write_moves(GOLD) + "</think>x", 2.05),
    ],
)
def test_worked_examples_as_coded(text: str, expected: float) -> None:
    assert grade(text, variant="code").reward == pytest.approx(expected)


@pytest.mark.parametrize(
    ("moves", "expected"),
    [
        (write_moves(GOLD), 1), (write_moves(OTHER), 1), (" <|right|>\n<|up|> ", 1),
        ("<|up|>", 0), ("go up", 0), ("", 0), ("<|up|><|right|>", 0), ("<|left|>" * 3, 0),
        (write_moves((*GOLD, "down")), 0), (write_moves(GOLD) + "<|blank|>", 0),
        ("up up right down", 0), ("<|UP|>", 0), ("<|up|>" * 500, 0), ("<|up" * 500, 0),
        (write_moves(GOLD) * 200, 0),
    ],
)  # fmt: skip
def test_any_way_that_ends_on_the_target_is_right(moves: str, expected: int) -> None:
    score = grade(tagged(moves))
    assert (score.parts["path"], score.metric) == (expected, expected)


def test_walls_end_the_walk_unless_ignored() -> None:
    bumping = write_moves(("left", "right", "up"))
    assert grade(tagged(bumping)).metric == 0
    assert grade(tagged(bumping), blocked="stay").metric == 1
    assert grade(tagged(write_moves(("up", "right"))), blocked="stay").metric == 0
    assert grade("<think>a</think><answer><|up", truncated=True).status == "truncated"


def test_a_wall_counts_from_both_sides_and_the_rim_is_one() -> None:
    maze = read_maze(PROMPT)
    assert (maze.rows, maze.columns, maze.start, maze.target) == (3, 3, (2, 0), (1, 1))
    assert maze.neighbour((1, 1), "left") is None
    assert maze.neighbour((1, 0), "right") is None
    assert maze.neighbour((0, 0), "up") is None and maze.neighbour((2, 2), "right") is None
    assert maze.neighbour((2, 1), "up") == (1, 1)
    open_grid = Maze(1, 3, frozenset(), (0, 0), (0, 2))
    assert open_grid.neighbour((0, 2), "right") is None
    assert open_grid.neighbour((0, 0), "down") is None
    assert shortest_path(open_grid) == ("right", "right")
    assert shortest_path(maze) in (("right", "up"),)
    walled = Maze(1, 2, frozenset({((0, 1), "left")}), (0, 0), (0, 1))
    assert shortest_path(walled) is None
    assert not reaches_target(walled, ["right"])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("<|origin|>", "<|blank|>"), ("<|0-0|>", "<|0-1|>"), ("<|2-2|>", "<|3-3|>"),
        ("up_left_wall", "north_wall"), ("<|target|>", "<|origin|>"), (PROMPT, ""),
        ("<|2-2|>", "<|0-0|><|no_wall|><|blank|><|2-2|>"),
    ],
)  # fmt: skip
def test_unusable_mazes_raise_value_error(old: str, new: str) -> None:
    fields = {"Prompt": PROMPT.replace(old, new), "Golden_path": write_moves(GOLD)}
    with pytest.raises(ValueError):
        load_task("maze").sample(Record("1", fields, Path()))


@pytest.mark.parametrize("path", ["<|up|>", "<|right|><|left|>", "up", "<|up|>" * 300])
def test_a_wrong_gold_path_raises_value_error(path: str) -> None:
    with pytest.raises(ValueError, match="gold path"):
        load_task("maze").sample(Record("1", {"Prompt": PROMPT, "Golden_path": path}, Path()))


def test_a_megabyte_is_read_in_a_moment() -> None:
    for unit in ("<|up|>", "<|", "</think>", " "):
        started = time.process_time()
        assert parse_moves(unit * (10**6 // len(unit))).value is None
        for variant in ("strict", "code"):
            assert grade(unit * (10**6 // len(unit)), variant=variant).metric == 0
        assert time.process_time() - started < 1.5
