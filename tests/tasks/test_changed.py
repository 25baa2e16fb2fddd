"""Changed pictures: what was drawn is where the mapped gold says; words of sides refuse turns."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image, ImageDraw

from mmrl.corpus.sides import hangs_on_sides
from mmrl.frame import Frame, Space, Turn
from mmrl.modalities import image
from mmrl.plugins import available
from mmrl.rewards.boxes import Box
from mmrl.scoring.tasks import fixture_path, load_task
from mmrl.types import Answer, MediaRef, Record, Sample

WIDTH, HEIGHT = 120, 80
DRAWN = Box(20, 10, 50, 26)
TURNS = get_args(Turn)
SPACES: tuple[Space, ...] = ("processed_pixels", "unit", "thousand")
NOISY = ("noise", "blur")
EXACT = "mmrl.tasks.custom.example:exact_match"
FOUR = re.compile(r"\[([-0-9.]+), ?([-0-9.]+), ?([-0-9.]+), ?([-0-9.]+)\]")
BOXED: dict[str, dict[str, Any]] = {
    "digit_box": {"box": [20, 10, 50, 26]},
    "detection": {
        "categories": ["dog"],
        "annotations": [{"bbox": [20, 10, 30, 16], "category": "dog"}],
    },
    "referring_box": {"sentence": "the black block", "solution": [20, 10, 50, 26]},
    "reasoning_segmentation": {
        "problem": "the dark thing",
        "solution": "<box>(20,10),(50,26)</box><points>(30,15),(40,20)</points>",
    },
}
"""The same box in the layout of each task."""


def picture() -> bytes:
    """White, with one black block."""
    canvas = Image.new("RGB", (WIDTH, HEIGHT), "white")
    ImageDraw.Draw(canvas).rectangle((20, 10, 49, 25), fill="black")
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG")
    return buffer.getvalue()


def shown(sample: Sample) -> tuple[np.ndarray, Frame]:
    """The picture as the model sees it, and its Frame."""
    (ref,) = (part for part in sample.parts if isinstance(part, MediaRef))
    media = image.decode(ref)
    height, width = media.array.shape[:2]
    return media.array, replace(media.frame, processed_size=(width, height))


def block(array: np.ndarray) -> Box:
    """Where the dark pixels are."""
    rows, columns = np.nonzero(array[:, :, 0] < 128)
    return Box(columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def asked(name: str, **fields: Any) -> Sample:
    return load_task(name).ask(Record("1", {"image": picture(), **fields}, Path()))


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("name", BOXED)
def test_a_box_is_where_the_turned_picture_shows_it(name: str, turn: Turn, space: Space) -> None:
    """The right answer of a turned picture, in numbers of what is seen, is the drawn block."""
    task = load_task(name)
    sample = asked(name, **BOXED[name])
    changed = task.changed(sample, {"turn": turn})
    assert changed is not None
    array, frame = shown(changed)
    seen = block(array)
    assert seen != DRAWN
    answer = Answer("", frames=(frame,), space=space)
    target = task.target(changed, answer)
    assert target is not None
    scale = {"unit": 1.0, "thousand": 1000.0}.get(space)
    height, width = array.shape[:2]
    across, down = (scale / width, scale / height) if scale else (1.0, 1.0)
    wanted = [seen.x1 * across, seen.y1 * down, seen.x2 * across, seen.y2 * down]
    if name == "digit_box" and space == "unit":
        return  # its target is in whole numbers
    said = [float(number) for number in FOUR.search(target).groups()]  # type: ignore[union-attr]
    assert said == pytest.approx(wanted, abs=0.6 if name == "digit_box" else 0.01)
    assert task.score(changed.gold, replace(answer, text=target)).metric == pytest.approx(1.0)
    upright = replace(answer, text=target, frames=(replace(frame, turn=None),))
    assert (task.score(changed.gold, upright).metric or 0.0) < 0.5


@pytest.mark.parametrize("name", available("task"))
def test_what_keeps_its_gold_says_so_of_its_own_fixture(name: str) -> None:
    """Noise changes the pictures of whatever keeps its gold, and neither gold nor text."""
    task = load_task(name, {"function": EXACT} if name == "custom" else None)
    for record in islice(task.records(fixture_path(name)), 2):
        sample = task.ask(record)
        kinds = {part.kind for part in sample.parts if isinstance(part, MediaRef)}
        for option in NOISY:
            changed = task.changed(sample, {option: 2.0})
            shown_too = bool(kinds & {"image", "screenshot"})
            assert (changed is not None) == (shown_too and name in KEEP)
            if changed is None:
                continue
            assert changed.gold == sample.gold and changed.target == sample.target
            for before, after in zip(sample.parts, changed.parts, strict=True):
                if isinstance(before, MediaRef) and before.kind in ("image", "screenshot"):
                    assert isinstance(after, MediaRef) and after.options[option] == 2.0
                else:
                    assert before == after
        assert task.changed(sample, {"swap_sides": True}) is None


TURNED = {"counting", "crowd_counting", "fine_grained", "ovdeval"}
TURNED |= {"detection", "referring_box", "reasoning_segmentation", "digit_box", "digit_count"}
KEEP = TURNED | {"digit_rows", "chart_qa", "mathverse", "math_vision", "mathvista", "mmmu"}
KEEP |= {"vqa_mix", "medical_vqa", "trance", "maze_walk", "visual_search", "audio_visual_qa"}
KEEP |= {"mask_tokens", "gui_grounding", "gui_action", "geometry3k", "tool_selection"}


@pytest.mark.parametrize("turn", TURNS)
def test_words_of_sides_refuse_turns(turn: Turn) -> None:
    for name, column in (("counting", "problem"), ("crowd_counting", "problem")):
        task, told = load_task(name), {"solution": "2"}
        free = asked(name, **{column: "How many red cubes are there?"}, **told)
        assert task.changed(free, {"turn": turn}) is not None
        for words in ("left of the cube", "in the second row", "that read STOP", "在左边"):
            held = asked(name, **{column: f"How many are there {words}?"}, **told)
            assert task.changed(held, {"turn": turn}) is None
            assert task.changed(held, {"noise": 10.0}) is not None
    task = load_task("referring_box")
    for expression, known in (("the dog", True), ("dog on the left", False), ("top dog", False)):
        sample = asked("referring_box", sentence=expression, solution=[20, 10, 50, 26])
        assert (task.changed(sample, {"turn": turn}) is not None) == known
    for name in ("chart_qa", "geometry3k", "medical_vqa"):  # labels are read, sides have names
        task = load_task(name)
        sample = task.ask(next(iter(task.records(fixture_path(name)))))
        assert task.changed(sample, {"turn": turn}) is None


def test_what_hangs_on_sides() -> None:
    for text in (
        "the leftmost cup",
        "What is to the RIGHT?",
        "third from the top",
        "What number is on the shirt?",
        "the sign",
        "Which is taller?",
        "какая справа",
    ):
        assert hangs_on_sides(text), text
    for text in (
        "How many dogs are there?",
        "a bright, uplifting leftover",
        "What is the number of cubes?",
    ):
        assert hangs_on_sides(text) == ("leftover" in text), text


def test_rows_are_counted_as_they_are_seen() -> None:
    """Drawn: three blocks in the top row, one in the middle, none below."""
    canvas = Image.new("RGB", (90, 90), "white")
    draw = ImageDraw.Draw(canvas)
    for x, y in ((10, 10), (40, 10), (70, 10), (40, 40)):
        draw.rectangle((x, y, x + 9, y + 9), fill="black")
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG")
    task = load_task("digit_rows")
    sample = task.ask(
        Record("1", {"image": buffer.getvalue(), "rows": [3, 1, 0], "count": 4}, Path())
    )
    for turn in TURNS:
        changed = task.changed(sample, {"turn": turn})
        assert (changed is None) == ("90" in turn)
        if changed is None:
            continue
        dark = shown(changed)[0][:, :, 0] < 128
        rows = [int(dark[top : top + 30].sum()) // 100 for top in (0, 30, 60)]
        assert changed.gold == {"rows": rows, "count": 4}
        assert changed.meta["key_steps"] == [str(row) for row in rows]
        assert task.score(changed.gold, Answer(changed.target or "")).parts["key_steps"] == 1.0


def test_a_blurred_picture_is_smooth_and_as_bright() -> None:
    sharp = image.decode(MediaRef("image", picture())).array.astype(float)
    soft = image.decode(MediaRef("image", picture(), {"blur": 2.0})).array.astype(float)
    assert soft.shape == sharp.shape
    assert soft.mean() == pytest.approx(sharp.mean(), abs=0.5)
    assert np.abs(np.diff(soft, axis=1)).max() < 0.5 * np.abs(np.diff(sharp, axis=1)).max()
    # The edge of a step, blurred by a Gaussian of sigma 2: 16% one sigma inside of it.
    row = soft[18, :, 0]
    assert row[22] / 255 == pytest.approx(0.11, abs=0.06)
