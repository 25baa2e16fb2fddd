"""One step on a screen: an action's type and its argument, in the spellings of the GUI systems."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from mmrl.rewards.calls import parse_literal
from mmrl.rewards.grammar import TagAnswer, Think
from mmrl.rewards.json_text import parse_json
from mmrl.rewards.parsed import Parsed, malformed, ok
from mmrl.rewards.points import Point, point_of
from mmrl.types import Answer

Argument = Literal["point", "points", "direction", "text", "none"]
Form = Literal["json", "ui_r1", "gui_r1"]

ACTIONS: Mapping[str, Argument] = {
    "click": "point", "long_press": "point", "double_click": "point", "right_click": "point",
    "move_to": "point", "drag": "points", "scroll": "direction", "type": "text", "open_app": "text",
    "select": "text", "hotkey": "text", "navigate_back": "none", "navigate_home": "none",
    "enter": "none", "tab": "none", "wait": "none", "close": "none", "complete": "none",
    "impossible": "none",
}  # fmt: skip
"""Every action and what it takes."""
USUAL = tuple(name for name in ACTIONS if name != "drag")
"""Those that the data sets of single steps have."""

_ALIASES = {
    "input_text": "type", "press_back": "navigate_back", "press_home": "navigate_home",
    "press_enter": "enter", "press_tab": "tab", "doubleclick": "double_click",
    "rightclick": "right_click", "moveto": "move_to", "close/delete": "close", "tap": "click",
    "longpress": "long_press", "swipe": "scroll", "status_complete": "complete",
    "status_impossible": "impossible",
}  # fmt: skip

Direction = Literal["up", "down", "left", "right"]
DIRECTIONS = get_args(Direction)
_NO_POINT, _NO_TEXT = [-100, -100], "no input text"


@dataclass(frozen=True, slots=True)
class Action:
    """An action with the argument its type takes; `text` is a text, an app or a direction.

    A drag goes from `point` `to` another.
    """

    type: str
    point: Point | None = None
    text: str = ""
    to: Point | None = None


@dataclass(frozen=True, slots=True)
class ActionGrammar:
    """One action between `<answer>` tags.

    json: `{"action": "click", "point": [x, y]}`, `{"action": "scroll", "direction": "down"}`,
    `{"action": "type", "text": "..."}`, `{"action": "drag", "point": [x, y], "to": [x, y]}`, no key
    to spare. ui_r1: a list of one such object, with
    `coordinate` for `point`. gui_r1: a list of one object with all of `action`, `point` and
    `input_text`. The seeds' forms may be in Python's quotes too. With `aliases` actions may have
    the names that the systems give them.
    """

    think: Think = "required"
    form: Form = "json"
    types: tuple[str, ...] = USUAL
    aliases: bool = False

    def instruction(self) -> str:
        names = ", ".join(f"{t} ({ACTIONS[t]})" if ACTIONS[t] != "none" else t for t in self.types)
        example = "; ".join(_write(a, self.form) for a in self._examples())
        return (
            f"{self._tags.instruction()} The answer is one action and its argument, for example "
            f"{example}. Actions: {names}. Directions are up, down, left and right, and name where "
            "the view moves: down shows what is below."
        )

    def parse(self, answer: Answer) -> tuple[Parsed[Action], bool]:
        """Read the one action; True if nothing else is in the completion and it is readable."""
        region = self._tags.parse(answer)
        action = region.answer.then(self._read)
        return action, region.well_formed and action.value is not None

    def write(self, action: Action) -> str:
        """Write a well-formed completion with this action."""
        return self._tags.write(_write(action, self.form))

    @property
    def _tags(self) -> TagAnswer:
        return TagAnswer(self.think)

    def _examples(self) -> list[Action]:
        samples = (
            Action("click", Point(5, 5)), Action("drag", Point(5, 5), to=Point(9, 5)),
            Action("scroll", text="down"), Action("type", text="..."),
        )  # fmt: skip
        return [action for action in samples if action.type in self.types]

    def _read(self, text: str) -> Parsed[Action]:
        parsed = (parse_json if self.form == "json" else parse_literal)(text)
        if self.form != "json":
            parsed = parsed.then(_only_item)
        return parsed.then(self._action)

    def _action(self, value: Any) -> Parsed[Action]:
        if self.aliases and isinstance(value, dict) and isinstance(value.get("action"), str):
            value = {**value, "action": _ALIASES.get(value["action"], value["action"])}
        if not isinstance(value, dict) or value.get("action") not in self.types:
            return malformed("not an object with one of the actions")
        kind = ACTIONS[value["action"]]
        expected = {"action", *_keys(kind, self.form)}
        if value.keys() != expected:
            return malformed(f"{value['action']} has the keys {', '.join(sorted(expected))}")
        if kind == "none":
            return ok(Action(value["action"]))
        if kind == "points":
            end = point_of(value["to"])
            return point_of(value["point"]).then(
                lambda start: end.then(lambda to: ok(Action(value["action"], start, to=to)))
            )
        given = value[_key(kind, self.form)]
        if kind == "point":
            return point_of(given).then(lambda point: ok(Action(value["action"], point)))
        if not isinstance(given, str) or not given.strip():
            return malformed(f"{value['action']} needs a {kind}")
        if kind == "direction" and given not in DIRECTIONS:
            return malformed(f"not a direction: '{given:.20}'")
        return ok(Action(value["action"], text=given))


def canonical_type(name: str) -> str:
    """The name this module uses for a data set's action; an unknown one raises ValueError."""
    name = name.strip().lower()
    name = _ALIASES.get(name, name)
    if name not in USUAL:
        raise ValueError(f"unknown action '{name}'")
    return name


def _only_item(value: Any) -> Parsed[Any]:
    if isinstance(value, list) and len(value) > 1:
        return Parsed("multiple", None, f"{len(value)} actions")
    return ok(value[0]) if isinstance(value, list) and value else malformed("not a list of one")


def _key(kind: Argument, form: Form) -> str:
    if kind == "point":
        return "coordinate" if form == "ui_r1" else "point"
    return "input_text" if form == "gui_r1" else kind


def _keys(kind: Argument, form: Form) -> set[str]:
    if form == "gui_r1":
        return {"point", "input_text"}
    if kind == "points":
        return {"point", "to"}
    return {_key(kind, form)} if kind != "none" else set()


def _write(action: Action, form: Form) -> str:
    fields: dict[str, Any] = {"action": action.type}
    if form == "gui_r1":
        fields |= {"point": _NO_POINT, "input_text": _NO_TEXT}
    kind = ACTIONS[action.type]
    if kind == "points":
        ends = (("point", action.point), ("to", action.to))
        fields |= {name: [float(f"{v:.6g}") for v in at or ()] for name, at in ends}
    elif kind != "none":
        point = [float(f"{v:.6g}") for v in action.point or ()]
        fields[_key(kind, form)] = point if kind == "point" else action.text
    return json.dumps(fields if form == "json" else [fields], ensure_ascii=False)
