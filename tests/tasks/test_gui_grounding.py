from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from mmrl.frame import Frame, Space
from mmrl.scoring.tasks import load_task
from mmrl.types import Answer, Record, Score

# A 400 x 200 region cut out of a 1000 x 500 screen and shown at 200 x 400: both axes differ.
FRAME = Frame((1000, 500), (200, 400), crop=(100.0, 50.0, 500.0, 250.0))
SEECLICK = {"img_filename": "a.png", "instruction": "go", "data_type": "x", "data_source": "ios"}
PRO = {"img_filename": "a.png", "instruction": "go", "ui_type": "icon", "img_size": [1000, 500]}
OSWORLD = {"image_path": "a.png", "instruction": "go"}
BOX = [10, 10, 20, 20]


def grade(fields: dict[str, Any], text: str, frame: Frame, space: Space, **params: Any) -> Score:
    task = load_task("gui_grounding", params)
    sample = task.sample(Record("1", fields, Path("root")))
    wrapped = f"<think>t</think><answer>{text}</answer>"
    return task.score(sample.gold, Answer(wrapped, frames=(frame,), space=space))


def plain(text: str, **params: Any) -> float:
    """Score on a screen that the model sees unchanged, gold [10, 10, 20, 20]."""
    frame = Frame((100, 100), (100, 100))
    return grade({**PRO, "bbox": BOX}, text, frame, "processed_pixels", **params).parts["accuracy"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(10, 20)", 1.0), ("(21, 15)", 0.0), ("", 0.0),
        ("(9.999, 15)", 0.0), ("(15, 20.001)", 0.0), ("[15, 15]", 1.0),
        ("(15, 15) (16, 16)", 0.0), ("(15, 15), (90, 90)", 0.0), ("15, 15", 0.0),
        ("(NaN, 15)", 0.0), ("(15, inf)", 0.0), ("(15, 1e1)", 0.0), ("(\uff11\uff15, 15)", 0.0),
        ("(15, 15, 15)", 0.0), ("the point (15, 15)", 0.0), ("[10, 10, 20, 20]", 0.0),
        ("((15, 15))", 0.0), ("(15, 15", 0.0), ("(-15, 15)", 0.0), ("unachievable", 0.0),
    ],
)  # fmt: skip
def test_worked_examples(text: str, expected: float) -> None:
    assert plain(text) == expected


def test_format_is_apart_from_accuracy() -> None:
    task = load_task("gui_grounding")
    gold = task.sample(Record("1", {**PRO, "bbox": BOX}, Path("root"))).gold
    answer = Answer("<answer>(15, 15)</answer>", frames=(Frame((100, 100), (100, 100)),))
    assert dict(task.score(gold, answer).parts) == {"accuracy": 1.0, "format": 0.0}


def test_edges_are_a_parameter() -> None:
    assert [plain("(20, 20)", edges=e) for e in ("closed", "open", "last_pixel")] == [1, 0, 0]
    assert [plain("(10, 10)", edges=e) for e in ("closed", "open", "last_pixel")] == [1, 0, 1]
    assert [plain("(19, 19)", edges=e) for e in ("closed", "open", "last_pixel")] == [1, 1, 1]


def test_a_box_stands_for_its_centre_where_asked() -> None:
    assert plain("[12, 12, 20, 20]", answer="box") == 1.0
    assert plain("[15, 15, 40, 40]", answer="box") == 0.0
    assert plain("(15, 15)", answer="box") == 0.0
    assert plain("(15, 15)", answer="point_or_box") == 1.0
    assert plain("[12, 12, 20, 20]", answer="point_or_box") == 1.0


@pytest.mark.parametrize(
    ("space", "hit", "miss"),
    [
        # source (300, 150) is the centre of what the model sees; (340, 150) is right of the box
        ("source_pixels", "(300, 150)", "(100, 200)"),
        ("processed_pixels", "(100, 200)", "(300, 150)"),
        ("unit", "(0.5, 0.5)", "(0.3, 0.3)"),
        ("thousand", "(500, 500)", "(300, 300)"),
    ],
)
@pytest.mark.parametrize(
    "fields",
    [
        {**SEECLICK, "bbox": [290, 140, 40, 20]},
        {**SEECLICK, "bbox": [0.29, 0.28, 0.33, 0.32], "bbox_order": "xyxy", "bbox_space": "unit"},
        {**PRO, "bbox": [290, 140, 330, 160]},
        {**OSWORLD, "box_type": "bbox", "box_coordinates": [290, 140, 40, 20]},
        {**OSWORLD, "box_type": "polygon",
         "box_coordinates": [290, 150, 310, 140, 330, 150, 310, 160]},
    ],
)  # fmt: skip
def test_points_go_through_the_frame(
    fields: dict[str, Any], space: Space, hit: str, miss: str
) -> None:
    assert grade(fields, hit, FRAME, space).metric == 1.0
    assert grade(fields, miss, FRAME, space).metric == 0.0
    uncropped = dataclasses.replace(FRAME, crop=None)
    if space != "source_pixels":
        assert grade(fields, hit, uncropped, space).metric == 0.0


def test_columns_decide_what_a_box_means() -> None:
    # xywh (10, 10, 80, 20) reaches x = 90; as xyxy it would end at 80
    frame = Frame((1000, 500), (1000, 500))
    seeclick, pro = ({**base, "bbox": [10, 10, 80, 20]} for base in (SEECLICK, PRO))
    assert grade(seeclick, "(85, 25)", frame, "processed_pixels").metric == 1.0
    assert grade(pro, "(85, 15)", frame, "processed_pixels").metric == 0.0
    hub = {**SEECLICK, "file_name": "a.png", "bbox": [0.01, 0.02, 0.08, 0.04]}
    del hub["img_filename"]
    assert grade(hub, "(79, 19)", frame, "processed_pixels").metric == 1.0
    assert grade(hub, "(81, 19)", frame, "processed_pixels").metric == 0.0


def test_refusal_is_right_only_where_there_is_nothing() -> None:
    nothing = {**OSWORLD, "box_type": "refusal", "box_coordinates": [-1, -1, -1, -1]}
    there = {**OSWORLD, "box_type": "bbox", "box_coordinates": [10, 10, 10, 10]}
    right = grade(nothing, "unachievable", FRAME, "unit")
    assert (right.metric, right.status, right.parts["format"]) == (1.0, "ok", 1.0)
    wrong = grade(there, "unachievable", FRAME, "unit")
    assert (wrong.metric, wrong.status) == (0.0, "refusal")
    for text in ("(0.5, 0.5)", "(-1, -1)", ""):
        assert grade(nothing, text, FRAME, "unit").metric == 0.0
    pro = {**PRO, "bbox": BOX, "gt_type": "negative"}
    with pytest.raises(ValueError, match="offer_refusal"):
        grade(pro, "unachievable", FRAME, "unit")
    assert grade(pro, "unachievable", FRAME, "unit", offer_refusal=True).metric == 1.0


def test_the_prompt_offers_a_refusal_only_where_the_layout_has_them() -> None:
    task = load_task("gui_grounding")
    for fields, offered in (
        ({**PRO, "bbox": BOX}, False),
        ({**OSWORLD, "box_type": "bbox", "box_coordinates": BOX}, True),
    ):
        text = task.sample(Record("1", fields, Path("root"))).parts[1]
        assert ("unachievable" in text.text) == offered  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "fields",
    [
        {**PRO, "bbox": [20, 10, 10, 20]},
        {**PRO, "bbox": [10, 10, 10, 20]},
        {**PRO, "bbox": [10, 10, float("nan"), 20]},
        {**PRO, "bbox": [10, 10, 20]},
        {**PRO, "bbox": None},
        {**PRO, "bbox": BOX, "instruction": " "},
        {**PRO, "bbox": BOX, "img_filename": ""},
        {**PRO, "bbox": BOX, "img_filename": "../a.png"},
        {**PRO, "bbox": BOX, "bbox_space": "unit"},
        {**PRO, "bbox": BOX, "bbox_space": "pixels"},
        {**SEECLICK, "bbox": [10, 10, 0, 20]},
        {**OSWORLD, "box_type": "circle", "box_coordinates": BOX},
        {**OSWORLD, "box_type": "polygon", "box_coordinates": [1, 1, 2, 2]},
        {**OSWORLD, "box_type": "polygon", "box_coordinates": [1, 1, 2, 2, 3, 3]},
        {"image": "a.png", "instruction": "go", "bbox": BOX},
    ],
)
def test_unusable_gold_raises_value_error(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        load_task("gui_grounding").sample(Record("1", fields, Path("root")))


def test_the_average_over_cells_weighs_them_alike() -> None:
    metas = [{"cell": "mobile/icon"}] * 3 + [{"cell": "web/text"}]
    values = [1.0, 1.0, 1.0, 0.0]
    assert load_task("gui_grounding").aggregate(values, metas) == 0.75
    by_cells = load_task("gui_grounding", {"average": "cells"})
    assert by_cells.aggregate(values, metas) == 0.5
    assert by_cells.breakdown(values, metas) == {"mobile/icon": 1.0, "web/text": 0.0}
