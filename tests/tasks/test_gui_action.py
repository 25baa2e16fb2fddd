from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from mmrl.frame import Frame, Space
from mmrl.scoring.tasks import load_task, resolve_weights, weigh
from mmrl.types import Answer, Record, Score

UI_R1_WEIGHTS = {"type": 1.0, "accuracy": 1.0, "format": 1.0}
# A 1000 x 2000 screen shown at 500 x 500: the axes differ.
FRAME = Frame((1000, 2000), (500, 500))
# The lower half of it only.
CROPPED = Frame((1000, 2000), (500, 500), crop=(0.0, 1000.0, 1000.0, 2000.0))
UI_R1 = {"img_filename": "a.png", "instruction": "go", "bbox": [100, 1200, 200, 1400]}
GUI_R1 = {"image": "a.png", "instruction": "go", "gt_action": "click", "gt_input_text": ""}


def control(**gt: Any) -> dict[str, Any]:
    return {"image": "a.png", "task": "go", "gt": gt}


def grade(
    fields: dict[str, Any],
    payload: Any,
    frame: Frame = FRAME,
    space: Space = "processed_pixels",
    weights: dict[str, float] | None = None,
    **params: Any,
) -> Score:
    task = load_task("gui_action", params)
    sample = task.sample(Record("1", fields, Path("root")))
    text = payload if isinstance(payload, str) else json.dumps(payload)
    answer = Answer(f"<think>t</think><answer>{text}</answer>", frames=(frame,), space=space)
    return weigh(task.score(sample.gold, answer), resolve_weights(task, weights or {}))


def click(x: float, y: float) -> dict[str, Any]:
    return {"action": "click", "point": [x, y]}


def test_worked_examples() -> None:
    # 1 UI-R1, click inside: 3. 2 type right, one pixel outside: 2.
    assert grade(UI_R1, click(75, 325), weights=UI_R1_WEIGHTS).reward == 3
    assert grade(UI_R1, click(101, 325), weights=UI_R1_WEIGHTS).reward == 2
    # 3 open_app with the wrong name: 1 as GUI-R1 codes it, compared by default
    gold = control(action_type="open_app", app_name="PocketBook")
    wrong = {"action": "open_app", "text": "Calendar"}
    assert grade(gold, wrong, rule="gui_r1").reward == pytest.approx(1.0)
    assert grade(gold, wrong).reward == pytest.approx(0.2)
    right = {"action": "open_app", "text": "pocketbook "}
    assert grade(gold, right).reward == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("space", "hit", "miss"),
    [
        ("source_pixels", (150, 1300), (75, 325)),
        ("processed_pixels", (75, 150), (150, 1300)),
        ("unit", (0.15, 0.3), (0.15, 0.65)),
        ("thousand", (150, 300), (150, 650)),
    ],
)
def test_points_go_through_a_cropped_frame(
    space: Space, hit: tuple[float, float], miss: tuple[float, float]
) -> None:
    unit = {**GUI_R1, "gt_bbox": [0.1, 0.6, 0.2, 0.7]}
    for fields in (UI_R1, unit):
        assert grade(fields, click(*hit), CROPPED, space).metric == 1.0
        assert grade(fields, click(*miss), CROPPED, space).metric == 0.0


def test_distance_to_a_gold_point_by_rule() -> None:
    gold = control(action_type="click", x=500, y=1000)
    # (x, y) shown -> source (2x, 4y); the gold is shown at (250, 250)
    cases = [
        # sideways 139 source pixels; 141; 38 shown upwards are 152 source pixels
        ((319.5, 250), "strict", 1), ((320.5, 250), "strict", 0), ((250, 288), "strict", 0),
        ((250, 284), "strict", 1),
        ((250, 389), "gui_r1", 1), ((250, 390), "gui_r1", 0), ((389, 250), "gui_r1", 1),
        ((250, 319), "ton", 1), ((250, 321), "ton", 0), ((319, 250), "ton", 1),
    ]  # fmt: skip
    for point, rule, expected in cases:
        assert grade(gold, click(*point), rule=rule).metric == expected, (point, rule)


def test_the_rim_of_a_box_is_inside_except_in_gui_r1() -> None:
    for rule, expected in (("strict", 1), ("ui_r1", 1), ("gui_r1", 0)):
        assert grade(UI_R1, click(50, 300), rule=rule).metric == expected


@pytest.mark.parametrize(
    ("rule", "text", "expected"),
    [
        ("strict", "send the mail", 1), ("strict", "Send  THE mail", 1), ("strict", "send mail", 0),
        ("gui_r1", "send mail", 1), ("gui_r1", "the", 1), ("gui_r1", "a b the c d", 0),
        ("ui_r1", "nonsense", 1), ("ton", "nonsense", 1),
    ],
)  # fmt: skip
def test_typed_text_by_rule(rule: str, text: str, expected: int) -> None:
    gold = control(action_type="input_text", text="send the mail")
    assert grade(gold, {"action": "type", "text": text}, rule=rule).metric == expected


def test_directions_and_actions_without_argument() -> None:
    down = control(action_type="scroll", direction="down")
    assert grade(down, {"action": "scroll", "direction": "down"}).metric == 1
    score = grade(down, {"action": "scroll", "direction": "up"})
    assert (score.metric, score.parts["type"]) == (0, 1)
    assert grade(down, {"action": "scroll", "direction": "in"}).status == "malformed"
    pressed = {"action": "long_press", "point": [75, 325]}
    assert grade(UI_R1, pressed).metric == 0
    back = control(action_type="navigate_back")
    assert grade(back, {"action": "navigate_back"}).metric == 1
    assert grade(back, {"action": "navigate_home"}).parts["type"] == 0


def test_the_seeds_forms() -> None:
    inside = "[{'action': 'click', 'coordinate': [75, 325]}]"
    assert grade(UI_R1, inside, form="ui_r1").reward == pytest.approx(1.0)
    both = "[{'action': 'click', 'point': [75, 325], 'input_text': 'no input text'}]"
    assert grade(UI_R1, both, form="gui_r1").reward == pytest.approx(1.0)
    typed = "[{'action': 'type', 'point': [-100, -100], 'input_text': 'it\\'s'}]"
    gold = control(action_type="input_text", text="it's")
    assert grade(gold, typed, form="gui_r1").metric == 1
    assert grade(UI_R1, inside).metric == 0
    two = "[{'action': 'click', 'coordinate': [75, 325]}, {'action': 'wait'}]"
    assert grade(UI_R1, two, form="ui_r1").status == "multiple"


@pytest.mark.parametrize(
    "payload",
    [
        "", "click", "null", "[]", "{}", "__import__('os').system('true')", "[" * 500,
        '{"action": "click"}', '{"action": "click", "point": [75, 325], "text": "x"}',
        '{"action": "click", "point": "[75, 325]"}', '{"action": "click", "point": [75, NaN]}',
        '{"action": "click", "point": [75, 1e999]}', '{"action": "click", "point": [75, 325, 1]}',
        '{"action": "click", "point": [true, 325]}', '{"action": "CLICK", "point": [75, 325]}',
        '{"action": "click", "action": "wait", "point": [75, 325]}',
        '{"action": "click", "point": [[75, 325], [10, 10]]}',
        '{"action": ["click", "scroll"], "point": [75, 325]}',
        '{"action": "click", "point": [75, 325]} {"action": "wait"}',
        '[{"action": "click", "point": [75, 325]}]', '{"action": "click", "point": [\uff17, 325]}',
    ],
)  # fmt: skip
def test_anything_else_is_no_action(payload: str) -> None:
    score = grade(UI_R1, payload)
    assert dict(score.parts) == {"accuracy": 0, "type": 0, "format": 0}
    assert score.status in ("missing", "malformed")
    assert grade(UI_R1, payload, form="gui_r1").metric == 0


def test_a_corner_box_is_not_hit_by_default() -> None:
    corner = {**UI_R1, "bbox": [0, 0, 50, 50]}
    assert grade(corner, '{"action": "click"}').metric == 0
    assert grade(corner, click(0, 0)).metric == 1


@pytest.mark.parametrize(
    "fields",
    [
        {**UI_R1, "bbox": None}, {**UI_R1, "bbox": [1, 2, 3]}, {**UI_R1, "bbox": [9, 1, 3, 4]},
        {**UI_R1, "bbox": [1, 2, float("inf"), 4]}, {**UI_R1, "action": "levitate"},
        {**UI_R1, "instruction": ""}, {**UI_R1, "img_filename": None},
        {**GUI_R1, "gt_bbox": [100, 200]}, {**GUI_R1, "gt_bbox": [0.5, 0.5], "bbox_space": "px"},
        control(action_type="scroll", direction="sideways"), control(action_type="input_text"),
        control(action_type="click"), control(action_type="open_app", app_name=" "),
    ],
)  # fmt: skip
def test_unusable_gold_raises_value_error(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        load_task("gui_action").sample(Record("1", fields, Path("root")))


def test_the_number_is_macro_over_splits() -> None:
    task = load_task("gui_action")
    metas = [{"split": "high", "action": "click", "same_type": True}] * 3
    metas = [*metas, {"split": "low", "action": "type"}]
    assert task.aggregate([1.0, 1.0, 0.0, 0.0], metas) == pytest.approx((2 / 3 + 0) / 2)
    numbers = task.breakdown([1.0, 1.0, 0.0, 0.0], metas)
    assert numbers["type"] == 0.75 and numbers["grounding"] == pytest.approx(2 / 3)
    assert numbers["action/type"] == 0 and numbers["split/high"] == pytest.approx(2 / 3)


def test_real_android_control_steps() -> None:
    path = (
        Path(os.environ.get("MMRL_TEST_DATA", "")) / "lll6gg__UI-R1/dataset/ac_test_first400.json"
    )
    if not path.is_file():
        pytest.skip("MMRL_TEST_DATA does not hold the AndroidControl steps")
    task = load_task("gui_action")
    frame = Frame((1080, 2400), (644, 1484))
    kinds: dict[str, int] = {}
    for record in task.records(path):
        if not record.fields["task"]:
            with pytest.raises(ValueError, match="instruction"):
                task.sample(record)
            continue
        sample = task.sample(record)
        blank = Answer("", frames=(frame,))
        target = task.target(sample, blank)
        assert target is not None
        kinds[sample.gold.type] = kinds.get(sample.gold.type, 0) + 1
        assert task.score(sample.gold, Answer(target, frames=(frame,))).metric == 1.0
        assert task.score(sample.gold, Answer("", frames=(frame,))).metric == 0.0
    assert sum(kinds.values()) >= 395 and kinds["click"] > 200
