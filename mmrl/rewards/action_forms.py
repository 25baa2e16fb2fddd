"""One step on a screen as GUI agents write it by themselves, read and written.

| form | a turn |
|---|---|
| json | `<answer>{"action": "click", "point": [x, y]}</answer>` |
| ui_r1 | `<answer>[{"action": "click", "coordinate": [x, y]}]</answer>` |
| gui_r1 | `<answer>[{"action": "click", "point": [x, y], "input_text": "..."}]</answer>` |
| ui_tars | `Thought: ...` and `Action: click(start_box='(x,y)')` |
| qwen | `<tool_call>{"name": "computer_use", "arguments": {"action": ...}}</tool_call>` |

Points are in the model's own space (UI-TARS on Qwen2-VL: thousandths, on Qwen2.5-VL: pixels of what
it sees); whoever carries an action out maps them through the Frame. UI-TARS: arXiv 2501.12326, the
action space of its prompt; Qwen: the computer-use tool of Qwen2.5-VL's and Qwen3-VL's cookbooks;
the others: `rewards/actions.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from mmrl.rewards.actions import DIRECTIONS, Action, ActionGrammar
from mmrl.rewards.calls import Call, call_of, parse_calls
from mmrl.rewards.grammar import Think
from mmrl.rewards.json_text import is_number, parse_json
from mmrl.rewards.parsed import Parsed, malformed, ok
from mmrl.rewards.points import Point, parse_point, point_of
from mmrl.types import Answer

Form = Literal["json", "ui_r1", "gui_r1", "ui_tars", "qwen"]
MOST = 4_096
PIXELS = 120
"""Of a Qwen scroll: what one turn of the wheel is, in either direction."""


class StepGrammar(Protocol):
    """What a task of single steps needs of a form."""

    def instruction(self) -> str:
        """Tell the model how to write a step."""
        ...

    def parse(self, answer: Answer) -> tuple[Parsed[Action], bool]:
        """Read the one step; True if nothing else is in the turn and it is readable."""
        ...

    def write(self, action: Action) -> str:
        """Write a turn with this step."""
        ...


def grammar_of(form: Form, think: Think, types: tuple[str, ...]) -> StepGrammar:
    """The grammar of a form, for the action types that there are.

    Args:
        form: whose way of writing it is.
        think: whether a thought comes first, for the forms with tags.
        types: names of `rewards/actions.py`.
    """
    match form:
        case "ui_tars":
            return UiTars(types)
        case "qwen":
            return ComputerUse(types)
        case _:
            return ActionGrammar(think, form, types, aliases=form != "json")


_TARS: Mapping[str, str] = {
    "click": "click", "double_click": "left_double", "right_click": "right_single", "drag": "drag",
    "hotkey": "hotkey", "type": "type", "scroll": "scroll", "wait": "wait", "complete": "finished",
    "long_press": "long_press", "open_app": "open_app", "navigate_back": "press_back",
    "navigate_home": "press_home", "impossible": "call_user",
}  # fmt: skip
_FROM_TARS = {theirs: ours for ours, theirs in _TARS.items()}
_ACTION = re.compile(r"^\s*Action:", re.MULTILINE)
_BOX = re.compile(r"<\|box_(?:start|end)\|>|</?(?:point|bbox)>")


@dataclass(frozen=True, slots=True)
class UiTars:
    r"""`Thought: ...` and one `Action: name(arguments)`.

    A `type` whose content ends with a newline sends it. Enter and Tab are hotkeys.

    Example:
        >>> found, whole = UiTars().parse(Answer("Thought: It.\nAction: click(start_box='(3,4)')"))
        >>> found.value.point, whole
        (Point(x=3.0, y=4.0), True)
    """

    types: tuple[str, ...] = ("click",)

    def instruction(self) -> str:
        forms = "\n".join(self._form(t) for t in self.types if t in _TARS)
        return (
            "Write one step:\nThought: ...\nAction: ...\nwhere the action is one of\n"
            f"{forms}\nA content that ends with \\n is sent."
        )

    def parse(self, answer: Answer) -> tuple[Parsed[Action], bool]:
        """Read what stands behind the only `Action:`."""
        text = answer.text[-MOST:]
        found = list(_ACTION.finditer(text))
        if len(found) != 1:
            status: Any = "multiple" if found else "missing"
            return Parsed(status, None, f"{len(found)} times Action:"), False
        action = parse_calls(text[found[0].end() :].strip()).then(_only).then(self._read)
        before = text[: found[0].start()].strip()
        return action, action.value is not None and (not before or before.startswith("Thought:"))

    def write(self, action: Action) -> str:
        """Write a turn with this step."""
        return f"Thought: {action.type}\nAction: {self._written(action)}"

    def _form(self, kind: str) -> str:
        text = "down" if kind == "scroll" else "ctrl a" if kind == "hotkey" else "..."
        point = Point(0, 0)
        return self._written(Action(kind, point, text, point)).replace("(0,0)", "(x,y)")

    def _written(self, action: Action) -> str:
        kind = action.type
        if kind in ("enter", "tab"):
            kind, action = "hotkey", Action("hotkey", text=kind)
        given: dict[str, str] = {}
        if kind in ("click", "double_click", "right_click", "drag", "scroll", "long_press"):
            given["start_box"] = _pair(action.point or Point(0, 0))
        if kind == "drag":
            given["end_box"] = _pair(action.to or Point(0, 0))
        named = {"scroll": "direction", "hotkey": "key", "type": "content", "open_app": "app_name"}
        if kind in named:
            given[named[kind]] = action.text
        listed = ", ".join(f"{name}='{_quoted(value)}'" for name, value in given.items())
        return f"{_TARS[kind]}({listed})"

    def _read(self, call: Call) -> Parsed[Action]:
        kind = _FROM_TARS.get(call.name, "")
        given = call.arguments
        if kind == "hotkey" and given.get("key") in ("enter", "tab"):
            kind = str(given["key"])
        if kind not in self.types:
            return malformed(f"no action {call.name:.30}")
        if kind in ("scroll", "type", "hotkey", "open_app"):
            names = {"scroll": "direction", "type": "content", "hotkey": "key"}
            text = given.get(names.get(kind, "app_name"))
            if not isinstance(text, str) or (kind == "scroll" and text not in DIRECTIONS):
                return malformed(f"{call.name} needs its {names.get(kind, 'app_name')}")
            at = _tars_point(given.get("start_box"))
            return ok(Action(kind, at.value if kind == "scroll" else None, text))
        if kind in ("click", "double_click", "right_click", "long_press", "drag"):
            start = _tars_point(given.get("start_box"))
            if kind != "drag":
                return start.then(lambda at: ok(Action(kind, at)))
            end = _tars_point(given.get("end_box"))
            return start.then(lambda at: end.then(lambda to: ok(Action(kind, at, to=to))))
        return ok(Action(kind))


_QWEN: Mapping[str, str] = {
    "click": "left_click", "double_click": "double_click", "right_click": "right_click",
    "move_to": "mouse_move", "drag": "left_click_drag", "type": "type", "hotkey": "key",
    "scroll": "scroll", "wait": "wait", "complete": "terminate",
}  # fmt: skip
_FROM_QWEN = {theirs: ours for ours, theirs in _QWEN.items()}
_TOOL = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ComputerUse:
    """One call of the tool `computer_use`; a drag begins where the mouse is.

    Example:
        >>> turn = ComputerUse().write(Action("click", Point(3, 4)))
        >>> ComputerUse().parse(Answer(turn))[0].value.point
        Point(x=3.0, y=4.0)
    """

    types: tuple[str, ...] = ("click",)

    def instruction(self) -> str:
        forms = "; ".join(self._form(t) for t in self.types if t in _QWEN)
        return (
            'Write one call <tool_call>{"name": "computer_use", "arguments": {...}}</tool_call> '
            f"and nothing else. Arguments: {forms}."
        )

    def parse(self, answer: Answer) -> tuple[Parsed[Action], bool]:
        """Read the only call; a thought before it is not part of the turn."""
        text = answer.text.rpartition("</think>")[2][-MOST:]
        found = _TOOL.findall(text)
        if len(found) != 1:
            status: Any = "multiple" if found else "missing"
            return Parsed(status, None, f"{len(found)} calls"), False
        read = parse_json(found[0]).then(lambda value: call_of(value, "arguments"))
        action = read.then(self._read)
        return action, action.value is not None and not _TOOL.sub("", text).strip()

    def write(self, action: Action) -> str:
        """Write a turn with this step."""
        call = {"name": "computer_use", "arguments": self._arguments(action)}
        return f"<tool_call>\n{json.dumps(call, ensure_ascii=False)}\n</tool_call>"

    def _form(self, kind: str) -> str:
        text = "down" if kind == "scroll" else "ctrl a" if kind == "hotkey" else "..."
        return json.dumps(self._arguments(Action(kind, Point(5, 5), text, Point(9, 5))))

    def _arguments(self, action: Action) -> dict[str, Any]:
        kind = action.type
        if kind in ("enter", "tab"):
            kind, action = "hotkey", Action("hotkey", text=kind)
        given: dict[str, Any] = {"action": _QWEN[kind]}
        at = action.to if kind == "drag" else action.point
        if kind in ("click", "double_click", "right_click", "move_to", "drag") and at is not None:
            given["coordinate"] = [float(f"{v:.6g}") for v in at]
        match kind:
            case "type":
                given["text"] = action.text
            case "hotkey":
                given["keys"] = action.text.split()
            case "scroll":
                given["pixels"] = {"up": PIXELS, "down": -PIXELS}.get(action.text, 0)
            case "wait":
                given["time"] = 1
            case "complete":
                given["status"] = "success"
        return given

    def _read(self, call: Call) -> Parsed[Action]:
        given = call.arguments
        kind = _FROM_QWEN.get(str(given.get("action")), "")
        keys = given.get("keys")
        if kind == "hotkey" and keys in (["enter"], ["tab"]):
            kind = keys[0]
        if call.name != "computer_use" or kind not in self.types:
            return malformed(f"no action {given.get('action')!s:.30}")
        match kind:
            case "type":
                said = given.get("text")
                return ok(Action(kind, text=said)) if isinstance(said, str) else malformed("text")
            case "hotkey":
                listed = isinstance(keys, list) and all(isinstance(key, str) for key in keys)
                return ok(Action(kind, text=" ".join(keys or ()))) if listed else malformed("keys")
            case "scroll":
                pixels = given.get("pixels")
                if not is_number(pixels) or not pixels:
                    return malformed("pixels")
                return ok(Action(kind, text="up" if pixels > 0 else "down"))
            case "wait" | "complete" | "enter" | "tab":
                return ok(Action(kind))
        point = point_of(given.get("coordinate"))
        if kind == "drag":
            return point.then(lambda to: ok(Action(kind, to=to)))
        return point.then(lambda at: ok(Action(kind, at)))


def _only(calls: tuple[Call, ...]) -> Parsed[Call]:
    return ok(calls[0]) if len(calls) == 1 else Parsed("multiple", None, f"{len(calls)} actions")


def _pair(point: Point) -> str:
    return f"({point.x:.6g},{point.y:.6g})"


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")


def _tars_point(value: Any) -> Parsed[Point]:
    """A point, or the middle of a box, in any of the spellings."""
    if not isinstance(value, str):
        return malformed("a box is written in quotes")
    text = _BOX.sub("", value).strip()
    numbers = re.findall(r"-?\d+(?:\.\d+)?", text[:80])
    if len(numbers) == 4:
        x1, y1, x2, y2 = map(float, numbers)
        return ok(Point((x1 + x2) / 2, (y1 + y2) / 2))
    return parse_point(text if text[:1] in "([" else f"({text.replace(' ', ',')})")
