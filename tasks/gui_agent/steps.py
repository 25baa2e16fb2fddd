"""Steps of a GUI trajectory as UI-TARS writes them, and their replay on recorded screens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmrl.rewards.boxes import Box
from mmrl.rewards.calls import Call, parse_calls
from mmrl.rewards.grammar import MAX_CHARACTERS
from mmrl.rewards.parsed import Parsed, malformed, ok
from mmrl.rewards.points import Point, in_box, parse_point, to_source
from mmrl.types import Answer

ACTIONS: Mapping[str, tuple[str, ...]] = {
    "click": ("start_box",), "left_double": ("start_box",), "right_single": ("start_box",),
    "drag": ("start_box", "end_box"), "scroll": ("start_box", "direction"), "hotkey": ("key",),
    "type": ("content",), "wait": (), "finished": (), "fail": (),
}  # fmt: skip
"""Every action and the arguments it takes, all of them texts; boxes are points `(x,y)`."""

ENDS = ("finished", "fail")
_MARK = "Action:"
_DIRECTIONS = ("up", "down", "left", "right")


@dataclass(frozen=True)
class Step:
    """One action; points are where the model saw them."""

    name: str
    point: Point | None = None
    text: str = ""


@dataclass(frozen=True)
class Screens:
    """A recorded application: from each screen, what leads to which other.

    A link is `{"box": [x1, y1, x2, y2], "to": name}` in source pixels for a click, or
    `{"type": text, "to": name}`. Any other action leaves the screen as it is.
    """

    links: Mapping[str, Sequence[Mapping[str, Any]]]
    start: str
    goal: str

    def reaches_goal(self, steps: Sequence[Step], answer: Answer) -> bool:
        """Whether the steps end on the goal's screen, declared as finished."""
        screen = self.start
        for step in steps:
            screen = next(
                (link["to"] for link in self.links[screen] if _follows(step, link, answer)), screen
            )
        return screen == self.goal and bool(steps) and steps[-1].name == "finished"


def parse_steps(text: str, max_steps: int) -> list[Parsed[Step]]:
    """Read every `Action:` of a trajectory; one after an end or over the cap is malformed."""
    if len(text) > 4 * MAX_CHARACTERS:
        return [malformed("trajectory too long")]
    steps: list[Parsed[Step]] = []
    over = False
    for turn in text.split(_MARK, max_steps + 1)[1:]:
        step = _parse_step(turn.partition("\nThought:")[0])
        if len(steps) == max_steps:
            step = malformed(f"more than {max_steps} steps")
        elif over:
            step = malformed("a step after the end")
        over = over or (step.value is not None and step.value.name in ENDS)
        steps.append(step)
    return steps


def write_step(step: Step) -> str:
    """Write an action."""
    if step.point is not None:
        return f"{step.name}(start_box='({step.point.x:.6g},{step.point.y:.6g})')"
    return f"type(content={step.text!r})" if step.name == "type" else f"{step.name}()"


def _parse_step(text: str) -> Parsed[Step]:
    return parse_calls(text).then(
        lambda calls: (
            _step(calls[0])
            if len(calls) == 1
            else Parsed("multiple", None, f"{len(calls)} actions in a step")
        )
    )


def _step(call: Call) -> Parsed[Step]:
    if call.name not in ACTIONS or set(call.arguments) != set(ACTIONS[call.name]):
        return malformed(f"no action of this form: '{call.name:.20}'")
    if not all(isinstance(value, str) and value for value in call.arguments.values()):
        return malformed(f"{call.name} takes texts")
    if call.arguments.get("direction", "up") not in _DIRECTIONS:
        return malformed("no direction")
    points = [parse_point(v) for k, v in call.arguments.items() if k.endswith("_box")]
    if any(point.value is None for point in points):
        return malformed("a box is one point (x,y)")
    point = points[0].value if points else None
    text = str(call.arguments.get("content") or call.arguments.get("key") or "")
    return ok(Step(call.name, point, text))


def _follows(step: Step, link: Mapping[str, Any], answer: Answer) -> bool:
    if "type" in link:
        return step.name == "type" and step.text == link["type"]
    if step.name != "click" or step.point is None:
        return False
    return in_box(to_source(step.point, answer.space, answer.frames[0]), Box(*link["box"]))
