"""Tools that look: pure functions of pictures, whose result is the next turn of any task."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmrl.config import RunConfig
from mmrl.environments.picture_tools import NotUsable, Places, draw, measure, rotate, zoom
from mmrl.environments.tooled import call_in
from mmrl.errors import ConfigError
from mmrl.frame import Frame
from mmrl.modalities import image
from mmrl.rewards.boxes import Box
from mmrl.rewards.points import Point
from mmrl.runlog.journal import Journal
from mmrl.scoring.tasks import load_task, play
from mmrl.train.run import train
from mmrl.types import Answer, MediaRef, Observation, Record, Sample, Text
from mmrl.validation import validate
from tests.runs import run_config

FOLDER = Path(__file__).parents[2] / "tasks" / "visual_search"


def numbered(width: int, height: int) -> Image.Image:
    """A picture whose every pixel says where it is."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return Image.fromarray(np.stack([x, y, x * 0 + 7], -1).astype(np.uint8))


def test_zoom_is_the_part_in_the_box_at_full_resolution() -> None:
    found = np.asarray(zoom(numbered(60, 40), Places(boxes=(Box(10.4, 5.0, 29.5, 20.0),))))
    assert found.shape == (15, 20, 3)
    assert found[0, 0].tolist() == [10, 5, 7] and found[-1, -1].tolist() == [29, 19, 7]
    beyond = zoom(numbered(60, 40), Places(boxes=(Box(-9.0, 10.0, 12.0, 400.0),)))
    assert beyond.size == (12, 30)


@pytest.mark.parametrize("box", [(70.0, 5.0, 90.0, 20.0), (10.0, 5.0, 14.0, 30.0)])
def test_zoom_refuses_what_shows_nothing(box: tuple[float, float, float, float]) -> None:
    with pytest.raises(NotUsable):
        zoom(numbered(60, 40), Places(boxes=(Box(*box),)))


def test_rotate_turns_clockwise() -> None:
    picture = numbered(60, 40)
    found = np.asarray(rotate(picture, Places(degrees=90.0)))
    assert found.shape == (60, 40, 3)
    assert found[0, -1].tolist() == [0, 0, 7], "the upper left corner goes to the upper right"
    again = rotate(rotate(picture, Places(degrees=90.0)), Places(degrees=270.0))
    assert np.array_equal(np.asarray(again), np.asarray(picture))
    with pytest.raises(NotUsable):
        rotate(picture, Places(degrees=45.0))


def test_draw_leaves_the_rest_alone_and_measure_measures() -> None:
    picture = numbered(60, 40)
    found = np.asarray(draw(picture, Places(boxes=(Box(10.0, 10.0, 30.0, 30.0),))))
    assert found[10, 20].tolist() == [255, 0, 0] and found[20, 20].tolist() == [20, 20, 7]
    assert np.asarray(picture)[10, 20].tolist() == [20, 10, 7], "drawn on a copy"
    assert measure(picture, Places(points=(Point(1, 2), Point(4, 6)))).endswith("5 straight.")


@pytest.mark.parametrize(
    ("turn", "name"),
    [
        ('<tool_call>{"name": "zoom", "arguments": {}}</tool_call>', "zoom"),
        (
            '<think>A <tool_call></think>\n<tool_call>{"name": "a", "arguments": {}}</tool_call>',
            "a",
        ),
        ("<answer>4</answer>", None),
        ("<think><tool_call></think><answer>4</answer>", None),
        ("<tool_call>{}</tool_call>", ""),
        ('<tool_call>{"name": "zoom", "arguments": {}}', ""),
        ('so <tool_call>{"name": "zoom", "arguments": {}}</tool_call>', ""),
        ("<tool_call>" + "[" * 100_000 + "</tool_call>", ""),
    ],
)
def test_a_call_is_all_that_its_turn_has_after_the_thought(turn: str, name: str | None) -> None:
    found = call_in(turn)
    if name is None:
        assert found is None
    elif not name:
        assert found is not None and found.value is None
    else:
        assert found is not None and found.value is not None and found.value.name == name


def zooming(arguments: dict[str, Any]) -> str:
    call = json.dumps({"name": "image_zoom_in_tool", "arguments": arguments})
    return f"<tool_call>{call}</tool_call>"


def search(**params: Any) -> tuple[Any, Sample]:
    task = load_task("visual_search", {"tools": ["zoom"], "think": "none", **params})
    fields = json.loads((FOLDER / "fixture.jsonl").read_text().splitlines()[0])
    return task, task.ask(Record(fields["id"], fields, FOLDER))


def turn(task: Any, sample: Sample, text: str, size: tuple[int, int]) -> Observation:
    """The first turn of a model that sees the picture in this size."""
    (ref,) = (p for p in sample.parts if isinstance(p, MediaRef))
    frame = replace(image.decode(ref).frame, processed_size=size)
    answer = Answer(text, frames=(frame,), turns=(text,), screens=(frame,), shown=(ref,))
    found: Observation = task.step(sample.gold, sample.start.state, answer)  # type: ignore[union-attr]
    return found


def test_a_zoom_shows_the_sources_own_pixels_however_small_the_model_saw_them() -> None:
    task, sample = search()
    (ref,) = (p for p in sample.parts if isinstance(p, MediaRef))
    source = np.asarray(image.decode(ref).array)
    height, width = source.shape[:2]
    call = zooming({"bbox_2d": [10, 5, 40, 20]})
    seen = turn(task, sample, call, (width // 4, height // 4))
    (picture,) = (p for p in seen.parts if isinstance(p, MediaRef))
    assert isinstance(picture.source, bytes) and not seen.done
    shown = np.asarray(Image.open(io.BytesIO(picture.source)))
    ratio = width / (width // 4), height / (height // 4)
    x1, y1 = int(10 * ratio[0]), int(5 * ratio[1])
    assert np.array_equal(shown[:20, :20], source[y1 : y1 + 20, x1 : x1 + 20])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("<tool_call>zoom</tool_call>", "no call"),
        ('<tool_call>{"name": "fly", "arguments": {}}</tool_call>', "no tool fly"),
        (zooming({"bbox_2d": [1, 1, 40, 40], "image": 2}), "1 pictures"),
        (zooming({"bbox_2d": "all"}), "a box is"),
    ],
)
def test_what_cannot_be_done_is_said_and_takes_a_turn(text: str, says: str) -> None:
    task, sample = search()
    seen = turn(task, sample, text, (400, 300))
    assert says in seen.text and not seen.parts and not seen.done
    assert seen.state == sample.start.state  # type: ignore[union-attr]


def test_a_tool_may_look_at_what_a_tool_has_shown() -> None:
    task = load_task("digit_count", {"tools": ["zoom", "rotate"]})
    picture = numbered(200, 100)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    ref, frame = MediaRef("image", buffer.getvalue()), Frame((200, 100), (200, 100))
    first = json.dumps({"name": "zoom", "arguments": {"bbox_2d": [100, 20, 200, 80]}})
    second = json.dumps({"name": "zoom", "arguments": {"bbox_2d": [25, 0, 50, 15], "image": 2}})
    calls = tuple(f"<tool_call>{call}</tool_call>" for call in (first, second))
    screens = (frame, Frame((100, 60), (50, 30)))  # the model sees the second at half its size
    state: Any = {"shown": []}
    for number in (1, 2):
        answer = Answer(
            calls[number - 1],
            frames=(frame,),
            space="processed_pixels",
            turns=calls[:number],
            screens=screens[:number],
            shown=(ref,),
        )
        seen = task.step(None, state, answer)
        state = json.loads(json.dumps(seen.state))
    words, shown = seen.parts
    assert words == Text("Picture 3: ") and isinstance(shown, MediaRef)
    assert isinstance(shown.source, bytes)
    pixels = np.asarray(Image.open(io.BytesIO(shown.source)))
    assert pixels.shape == (30, 50, 3)
    assert pixels[0, 0].tolist() == [150, 20, 7] and pixels[-1, -1].tolist() == [199, 49, 7]


def test_a_task_scores_the_turn_that_answers() -> None:
    plain, task = load_task("digit_count"), load_task("digit_count", {"tools": ["zoom"]})
    call = '<tool_call>{"name": "zoom", "arguments": {"bbox_2d": [1, 1, 40, 40]}}</tool_call>'
    gold, said = 4, "<answer>4</answer>"
    alone = plain.score(gold, Answer(said))
    played = task.score(gold, Answer(f"{call}\n{said}", turns=(call, said)))
    assert played.parts == alone.parts and played.metric == alone.metric == 1.0


def test_the_target_is_played_turn_by_turn_and_earns_everything() -> None:
    task, sample = search()
    answer = play(task, sample, lambda here: task.target(here, replace(_seen(here), text="")))
    assert len(answer.turns) == 2 and len(answer.screens) == 2
    score = task.score(sample.gold, answer)
    assert score.parts == {"accuracy": 1.0, "tool": 1.0, "format": 1.0}


def _seen(sample: Sample) -> Answer:
    (ref,) = (p for p in sample.parts if isinstance(p, MediaRef))
    frame = image.decode(ref).frame
    return Answer("", frames=(replace(frame, processed_size=frame.source_size),))


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"tools": ["fly"]}, "no tool 'fly'"),
        ({"tools": ["zoom"], "tool_turns": 1}, "tool_turns is at least 2"),
        ({"tools": "zoom"}, "parameter 'tools'"),
        ({"tool_turns": 3}, "no parameter 'tool_turns'"),
    ],
)
def test_mistakes_in_tools_are_one_line(params: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_task("digit_count", params)


def test_visual_search_trains_live_with_zooms(tmp_path: Path) -> None:
    """Two supervised steps over whole episodes, then two of GRPO; every turn's picture is shown."""
    values = run_config(
        tmp_path / "run",
        tmp_path,
        data={
            "task": "visual_search",
            "path": str(FOLDER / "fixture.jsonl"),
            "params": {"tools": ["zoom"], "think": "none"},
            "eval_path": None,
        },
        rollout={"max_new_tokens": 300, "max_environment_tokens": 600},
        trainer={"steps": 2, "prompts_per_step": 2},
    )
    warm = {
        "name": "warm-up",
        "algorithm": {"name": "sft"},
        "rollout": {"engine": "targets"},
        "trainer": {"steps": 1, "prompts_per_step": 2},
    }
    del values["algorithm"]
    values |= {"phases": [warm, {"name": "grpo", "algorithm": {"name": "grpo", "group_size": 2}}]}
    train(validate(RunConfig, values, "test"))
    run = tmp_path / "run"
    first, *_ = Journal(run / "rollouts.jsonl").rows()
    (response,) = first["responses"]
    assert response["metric"] == 1.0 and len(response["turns"]) == 2
    rows = list(Journal(run / "metrics.jsonl").rows())
    assert len(rows) == 3 and rows[0]["tokens/environment"] > 16
    assert all(np.isfinite(row["train/loss"]) for row in rows)


def called(name: str, **arguments: Any) -> str:
    call = {"name": name, "arguments": arguments}
    return f"<tool_call>{json.dumps(call)}</tool_call>"


def test_programs_and_searches_answer_in_words(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("The red fox sleeps.\n\nA dog barks at the moon.")
    row = {"title": "Foxes", "text": "A fox is red, mostly."}
    (tmp_path / "b.jsonl").write_text(json.dumps(row) + "\n")
    task = load_task("counting", {"tools": ["python", "search"], "tool_corpus": str(tmp_path)})
    buffer = io.BytesIO()
    numbered(60, 40).save(buffer, "PNG")
    fields = json.loads((FOLDER.parent / "counting" / "fixture.jsonl").read_text().splitlines()[0])
    sample = task.ask(Record("1", fields, FOLDER.parent / "counting"))
    source = buffer.getvalue()
    parts = (replace(p, source=source) if isinstance(p, MediaRef) else p for p in sample.parts)
    sample = replace(sample, parts=tuple(parts))
    code, size = "print(pictures[0][5, 9].tolist())", (60, 40)
    said = turn(task, sample, called("python", code=code), size)
    assert said.text == "[9, 5, 7]\n" and not said.done
    found = turn(task, sample, called("search", query="a red fox"), size).text
    first, second, third = found.splitlines()
    assert first == "[1] Foxes: A fox is red, mostly." and second == "[2] The red fox sleeps."
    assert third == "[3] A dog barks at the moon."
    assert turn(task, sample, called("search", query="zebra"), size).text == "Nothing was found."
    assert "query is a text" in turn(task, sample, called("search", query=7), size).text
    offer = "".join(p.text for p in sample.parts if isinstance(p, Text))
    assert "python(code" in offer and "search(query" in offer and "n-th picture" not in offer


def test_a_search_needs_something_to_search(tmp_path: Path) -> None:
    for corpus in ("", str(tmp_path)):
        with pytest.raises(ConfigError, match="tool_corpus"):
            load_task("counting", {"tools": ["search"], "tool_corpus": corpus})
    with pytest.raises(ConfigError, match="own prompt"):
        load_task("visual_search", {"tools": ["zoom", "python"]})
