"""Actions of every writing land on the page's own points, however the model saw the screen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mmrl.frame import Frame, Space
from mmrl.rewards.action_forms import Form
from mmrl.scoring.tasks import fixture_path, load_task
from mmrl.types import Answer, Observation, Sample

# A 448 x 448 screenshot of a page of 224 x 224 points, seen at 112 x 112.
SEEN = Frame((448, 448), (112, 112), pixel_ratio=2.0)


def samples(form: Form) -> tuple[Any, list[Sample]]:
    task = load_task("web_page", {"form": form})
    return task, [task.ask(record) for record in task.records(fixture_path("web_page"))]


def along(task: Any, sample: Sample, space: Space) -> list[Observation]:
    """What the oracle's turns come to, in a model's own coordinates."""
    found: list[Observation] = []
    said: tuple[str, ...] = ()
    here = sample
    while here.start is not None and not here.start.done:
        blank = Answer("", frames=(SEEN,), space=space)
        text = task.target(here, blank)
        said = (*said, text)
        answer = Answer(text, frames=(SEEN,), space=space, turns=said, screens=(SEEN,) * len(said))
        found.append(task.step(sample.gold, here.start.state, answer))
        here = replace(here, start=found[-1])
    return found


@pytest.mark.parametrize("space", ["processed_pixels", "thousand", "unit"])
@pytest.mark.parametrize("form", ["json", "ui_r1", "gui_r1", "ui_tars", "qwen"])
def test_every_form_goes_the_oracles_way(form: Form, space: Space) -> None:
    task, asked = samples(form)
    for sample in asked:
        ended = along(task, sample, space)[-1]
        assert ended.outcome == 1.0 and ended.done
        for taken, wanted in zip(ended.state["actions"], sample.gold["path"], strict=True):
            assert taken["type"] == wanted["type"]
            if "x" in wanted:
                assert taken["x"] == pytest.approx(wanted["x"], abs=0.2)
                assert taken["y"] == pytest.approx(wanted["y"], abs=0.2)


def test_a_drag_has_two_ends_and_a_step_that_ends_it_all_is_one() -> None:
    task, asked = samples("ui_tars")
    text = "Thought: It.\nAction: drag(start_box='(10,20)', end_box='(100,20)')"
    answer = Answer(text, frames=(SEEN,), turns=(text,), screens=(SEEN,))
    seen = task.step(asked[0].gold, {"start": {}, "actions": []}, answer)
    (taken,) = seen.state["actions"]
    assert (taken["x"], taken["y"], taken["to_x"], taken["to_y"]) == (20.0, 40.0, 200.0, 40.0)
    over = "Thought: Done.\nAction: finished()"
    ended = task.step(asked[0].gold, seen.state, replace(answer, text=over, turns=(text, over)))
    assert ended.done and ended.outcome == 0.0
