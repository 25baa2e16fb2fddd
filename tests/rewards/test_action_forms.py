"""Steps on a screen in the writing of GUI agents: examples of theirs, round trips, hostile text."""

from __future__ import annotations

import json

import pytest

from mmrl.rewards.action_forms import ComputerUse, Form, UiTars, grammar_of
from mmrl.rewards.actions import Action
from mmrl.rewards.points import Point
from mmrl.types import Answer

TYPES = (
    "click", "double_click", "right_click", "move_to", "drag", "scroll", "type", "hotkey", "enter",
    "tab", "wait", "complete",
)  # fmt: skip
TARS, QWEN = UiTars(TYPES), ComputerUse(TYPES)


def tars(text: str) -> Action | None:
    return TARS.parse(Answer(f"Thought: I see.\nAction: {text}"))[0].value


def qwen(**arguments: object) -> Action | None:
    call = {"name": "computer_use", "arguments": arguments}
    return QWEN.parse(Answer(f"<tool_call>\n{json.dumps(call)}\n</tool_call>"))[0].value


def test_ui_tars_as_it_is_written() -> None:
    at = Point(100, 200)
    assert tars("click(start_box='(100,200)')") == Action("click", at)
    assert tars("click(start_box='<|box_start|>(100,200)<|box_end|>')") == Action("click", at)
    assert tars("click(start_box='<bbox>90 190 110 210</bbox>')") == Action("click", at)
    assert tars("click(start_box='[90, 190, 110, 210]')") == Action("click", at)
    assert tars("left_double(start_box='(100, 200)')") == Action("double_click", at)
    assert tars("right_single(start_box='(100,200)')") == Action("right_click", at)
    dragged = tars("drag(start_box='(100,200)', end_box='(7,8)')")
    assert dragged == Action("drag", at, to=Point(7, 8))
    assert tars("hotkey(key='ctrl c')") == Action("hotkey", text="ctrl c")
    assert tars(r"type(content='it\'s\n')") == Action("type", text="it's\n")
    scrolled = tars("scroll(start_box='(100,200)', direction='down')")
    assert scrolled == Action("scroll", at, "down")
    assert tars("wait()") == Action("wait") and tars("finished()") == Action("complete")


def test_qwen_as_it_is_written() -> None:
    at = Point(100, 200)
    assert qwen(action="left_click", coordinate=[100, 200]) == Action("click", at)
    assert qwen(action="mouse_move", coordinate=[100, 200]) == Action("move_to", at)
    assert qwen(action="left_click_drag", coordinate=[100, 200]) == Action("drag", to=at)
    assert qwen(action="type", text="ab") == Action("type", text="ab")
    assert qwen(action="key", keys=["ctrl", "a"]) == Action("hotkey", text="ctrl a")
    assert qwen(action="key", keys=["enter"]) == Action("enter")
    assert qwen(action="scroll", pixels=-5) == Action("scroll", text="down")
    assert qwen(action="scroll", pixels=5) == Action("scroll", text="up")
    assert qwen(action="terminate", status="success") == Action("complete")


@pytest.mark.parametrize("form", ["json", "ui_r1", "gui_r1", "ui_tars", "qwen"])
@pytest.mark.parametrize("kind", TYPES)
def test_what_is_written_is_read(form: Form, kind: str) -> None:
    if form in ("ui_r1", "gui_r1") and kind == "drag":
        pytest.skip("neither has drags")
    if form == "ui_tars" and kind == "move_to":
        pytest.skip("it has no mouse without a button")
    at, to = Point(12.0, 34.0), Point(56.0, 7.0)
    wanted = {
        "drag": Action(kind, None if form == "qwen" else at, to=to),
        "scroll": Action(kind, at if form == "ui_tars" else None, "down"),
        "type": Action(kind, text='it\'s "so"'),
        "hotkey": Action(kind, text="ctrl a"),
    }
    points = ("click", "double_click", "right_click", "move_to")
    action = wanted.get(kind, Action(kind, at if kind in points else None))
    grammar = grammar_of(form, "none", TYPES)
    found, whole = grammar.parse(Answer(grammar.write(action)))
    assert found.value == action and whole
    assert grammar.parse(Answer(grammar.instruction()))[0].value is None


def test_names_of_the_systems_are_read_in_their_forms() -> None:
    text = '<answer>[{"action": "input_text", "text": "ab"}]</answer>'
    found, _ = grammar_of("ui_r1", "none", TYPES).parse(Answer(text))
    assert found.value == Action("type", text="ab")
    own = '<answer>{"action": "input_text", "text": "ab"}</answer>'
    assert grammar_of("json", "none", TYPES).parse(Answer(own))[0].status == "malformed"


@pytest.mark.parametrize(
    "text",
    [
        "", "Action:", "Action: click", "Action: click()", "Action: click(start_box='x')",
        "Action: __import__('os')", "Action: click(start_box='(1,2)')\nAction: wait()",
        "Action: fly(start_box='(1,2)')", "Action: scroll(start_box='(1,2)', direction='in')",
        "Action: " + "(" * 10_000, "Action: click(start_box=(1,2))", "<tool_call></tool_call>",
        '<tool_call>{"name": "computer_use", "arguments": {"action": ["left_click"]}}</tool_call>',
        '<tool_call>{"name": "other", "arguments": {"action": "wait"}}</tool_call>',
        '<tool_call>{"name": "computer_use", "arguments": {"action": "key"}}</tool_call>',
        "<tool_call>" * 5_000,
    ],
)  # fmt: skip
def test_what_is_no_step_is_none(text: str) -> None:
    for grammar in (TARS, QWEN):
        found, whole = grammar.parse(Answer(text))
        assert found.value is None and not whole
