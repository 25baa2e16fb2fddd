"""Boxes and points as model families write them: numbers by hand, written and read back."""

from __future__ import annotations

import typing

import pytest

from mmrl.frame import Space
from mmrl.rewards.boxes import Box
from mmrl.rewards.native_forms import (
    Form,
    hint_of,
    parse_native_box,
    parse_native_point,
    space_of,
    write_form,
)
from mmrl.rewards.points import Point

BOX, POINT = Box(10, 20, 40, 80), Point(10, 20)


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("own", "[10, 20, 40, 80]"), ("own", "[[10, 20, 40, 80]]"), ("own", "(10,20),(40,80)"),
        ("own", '{"bbox_2d": [10, 20, 40, 80], "label": "x"}'),
        ("own", '```json\n[{"bbox_2d": [10, 20, 40, 80], "label": "x"}]\n```'),
        ("own", "<|box_start|>(10,20),(40,80)<|box_end|>"),
        ("own", "<box>[[10, 20, 40, 80]]</box>"),
        ("own", "<|begin_of_box|>[[10,20,40,80]]<|end_of_box|>"),
        ("own", "<ref>x</ref><box>[[10, 20, 40, 80]]</box>"),
        ("own", "<|ref|>a cat<|/ref|><|det|>[[10, 20, 40, 80]]<|/det|>"),
        ("qwen", '[{"bbox_2d": [10, 20, 40, 80]}]'),
        ("qwen2", "<|box_start|>(10,20),(40,80)<|box_end|>"),
        ("qwen2", "<|object_ref_start|>x<|object_ref_end|><|box_start|>(10,20),(40,80)<|box_end|>"),
        ("internvl", "<box>[[10, 20, 40, 80]]</box>"),
        ("glm", "<|begin_of_box|>[10,20,40,80]<|end_of_box|>"),
        ("deepseek", "<|det|>[[10, 20, 40, 80]]<|/det|>"),
        ("florence", "<loc_10><loc_20><loc_40><loc_80>"),
        ("florence", "a cat<loc_10><loc_20><loc_40><loc_80>"),
        ("gemini", '[{"box_2d": [20, 10, 80, 40], "label": "x"}]'),
        ("kimi", "<|box_start|>[10, 20, 40, 80]<|box_end|>"),
    ],
)  # fmt: skip
def test_a_box_in_each_form(form: Form, text: str) -> None:
    assert parse_native_box(text, form).value == BOX


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("own", "(10, 20)"), ("own", "[10, 20]"), ("own", '{"point_2d": [10, 20], "label": "x"}'),
        ("own", "<point>[[10, 20]]</point>"), ("own", "<|box_start|>(10,20)<|box_end|>"),
        ("qwen", '[{"point_2d": [10, 20]}]'), ("internvl", "<point>[[10, 20]]</point>"),
        ("gemini", '{"point": [20, 10]}'), ("glm", "<|begin_of_box|>[[10,20]]<|end_of_box|>"),
    ],
)  # fmt: skip
def test_a_point_in_each_form(form: Form, text: str) -> None:
    assert parse_native_point(text, form).value == POINT


def test_forms_with_numbers_of_their_own() -> None:
    assert parse_native_point(
        '<point x="12.5" y="50.0" alt="a cat">a cat</point>', "molmo"
    ).value == (
        0.125,
        0.5,
    )
    assert parse_native_point("<loc0512><loc0256>", "paligemma").value == (0.25, 0.5)
    assert parse_native_box("<loc0256><loc0128><loc0512><loc1023> cat", "paligemma").value == Box(
        0.125, 0.25, 1023 / 1024, 0.5
    )
    assert space_of("molmo", "processed_pixels") == space_of("paligemma", "thousand") == "unit"
    assert space_of("internvl", "processed_pixels") == "thousand"
    assert space_of("qwen", "processed_pixels") == "processed_pixels"


@pytest.mark.parametrize(
    ("form", "text", "status"),
    [
        ("own", "[1, 2, 3, 4], [5, 6, 7, 8]", "multiple"),
        ("own", "(1,2),(3,4),(5,6)", "malformed"),
        ("own", '[{"bbox_2d": [1,2,3,4]}, {"bbox_2d": [1,2,3,4]}]', "multiple"),
        ("own", "<box>[[1,2,3,4],[5,6,7,8]]</box>", "multiple"),
        ("own", "the box [1, 2, 3, 4]", "malformed"),
        ("own", "[3, 2, 1, 4]", "malformed"), ("own", "[1, 2, 3, NaN]", "malformed"),
        ("own", "[[[1,2,3,4]]]", "malformed"), ("own", "(1, 2, 3, 4)", "malformed"),
        ("own", '{"bbox_2d": [1, 2, 3]}', "malformed"),
        ("own", '{"bbox_2d": ["1", 2, 3, 4]}', "malformed"),
        ("own", "[\uff11,2,3,4]", "malformed"), ("own", "", "missing"),
        ("qwen", "[1, 2, 3, 4]", "malformed"),
        ("internvl", "[1, 2, 3, 4]", "malformed"), ("paligemma", "<loc0001><loc0002>", "malformed"),
        ("paligemma", "<loc0001><loc0002><loc0003><loc0004>" * 2, "multiple"),
        ("florence", "<loc0001><loc0002><loc0003><loc0004>", "malformed"),
        ("own", "[" * 10**6, "malformed"),
    ],
)  # fmt: skip
def test_what_is_not_one_box(form: Form, text: str, status: str) -> None:
    assert parse_native_box(text, form).status == status


def test_several_points_are_none() -> None:
    assert (
        parse_native_point('<points x1="1" y1="2" x2="3" y2="4" alt="x">x</points>', "molmo").status
        == "multiple"
    )
    two = '<point x="1" y="2" alt="x">x</point><point x="3" y="4" alt="x">x</point>'
    assert parse_native_point(two, "molmo").status == "multiple"
    assert parse_native_point("((10, 20))").status == "malformed"


@pytest.mark.parametrize("form", typing.get_args(Form))
@pytest.mark.parametrize("own", ["processed_pixels", "thousand", "unit"])
def test_what_is_written_is_read_back_and_the_hint_is_no_answer(form: Form, own: Space) -> None:
    space = space_of(form, own)
    side = 1.0 if space == "unit" else 1000.0
    box = Box(0.1 * side, 0.2 * side, 0.3 * side, 0.4 * side)
    point = Point(*box[:2])
    step = side / 500
    read = parse_native_box(write_form(box, form, space), form).value
    assert read is not None and read == pytest.approx(box, abs=step)
    at = parse_native_point(write_form(point, form, space), form).value
    assert at is not None and at == pytest.approx(point, abs=step)
    for what in ("box", "point"):
        hint = hint_of(form, what)  # type: ignore[arg-type]
        assert (
            parse_native_box(hint, form).value is None
            and parse_native_point(hint, form).value is None
        )
