"""A walk by hand: moves, walls, words that are no moves, and what each earns."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmrl.scoring.tasks import load_task, resolve_weights, weigh
from mmrl.types import Answer, Observation, Record, Sample

# One row of three cells, a wall between the second and the third, and a way round below.
MAZE = (
    "<|0-0|><|up_left_wall|><|origin|><|0-1|><|up_right_wall|><|blank|>"
    "<|0-2|><|up_left_right_wall|><|target|>"
    "<|1-0|><|down_left_wall|><|blank|><|1-1|><|down_wall|><|blank|>"
    "<|1-2|><|down_right_wall|><|blank|>"
)
TASK = load_task("maze_walk")


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    (tmp_path / "map.png").write_bytes(b"")
    return TASK.sample(Record("1", {"image": "map.png", "maze": MAZE}, tmp_path))


def go(sample: Sample, state: object, text: str) -> Observation:
    return TASK.step(sample.gold, state, Answer(text))


def test_a_walk_by_hand(sample: Sample) -> None:
    assert sample.start == Observation([0, 0], "0,0", outcome=0.0)
    assert sample.meta == {"moves": 4}  # right, down, right, up
    there = go(sample, [0, 0], "<answer>right</answer>")
    assert there == Observation([0, 1], "0,1", "Row 1, column 2.", 0.0, 0.0)
    wall = go(sample, [0, 1], "<answer>right</answer>")
    assert wall == Observation([0, 1], "0,1", "A wall. Row 1, column 2.", 0.0, 0.0)
    reached = go(sample, [1, 2], "<answer>up</answer>")
    assert (reached.state, reached.reward, reached.outcome) == ([0, 2], 1.0, 1.0)
    assert reached.done and not there.done and not wall.done


@pytest.mark.parametrize(
    "text", ["", "up", "<answer>north</answer>", "<answer>up</answer><answer>up</answer>",
             "<answer>down", "I am on the target.", "<answer>" * 999, "\x00\ud800"]
)  # fmt: skip
def test_what_is_no_move_takes_a_turn_and_leads_nowhere(text: str, sample: Sample) -> None:
    stayed = go(sample, [0, 0], text)
    assert stayed.state == [0, 0] and stayed.reward == 0.0 and not stayed.done
    assert stayed.text == "That is no move. Row 1, column 1."


def test_the_verdict_is_the_environments(sample: Sample) -> None:
    weights = resolve_weights(TASK, {})
    turns = ("<answer>down</answer>", "hm", "<answer>up</answer>", "<answer>up</answer>")
    score = weigh(TASK.score(sample.gold, Answer("x", turns=turns, outcome=1.0)), weights)
    assert score.parts == {"reached": 1.0, "format": 0.75}
    assert score.reward == pytest.approx(1.075) and score.metric == 1.0
    assert score.status == "missing"
    with pytest.raises(ValueError, match="scored by its environment"):
        TASK.score(sample.gold, Answer("<answer>up</answer>"))


def test_a_maze_that_takes_too_long_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at most 3 moves"):
        load_task("maze_walk", {"turns": 3}).sample(
            Record("1", {"image": "map.png", "maze": MAZE}, tmp_path)
        )
