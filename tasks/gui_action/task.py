"""The next step on a screen: an action's type and its argument."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from mmrl import task as contract
from mmrl.frame import Frame
from mmrl.records import media_source
from mmrl.rewards.actions import ACTIONS, DIRECTIONS, Action, ActionGrammar, Form, canonical_type
from mmrl.rewards.boxes import Box
from mmrl.rewards.grammar import Think
from mmrl.rewards.marks import region_marks
from mmrl.rewards.points import Point, distance, from_source, in_box, to_source
from mmrl.rewards.text import normalize, token_f1
from mmrl.task import RewardPart, mean_by
from mmrl.types import Answer, MediaRef, Record, Sample, Score, Text

Rule = Literal["strict", "ui_r1", "gui_r1", "ton"]
_GUI_R1_PIXELS = 140.0


@dataclass(frozen=True)
class Gold:
    """The action taken. `target` is a point or the two corners of a box, in `space`: source
    pixels, or "unit", 0-1 of the whole source.
    """

    type: str
    target: tuple[Point, ...] = ()
    space: Literal["source_pixels", "unit"] = "source_pixels"
    text: str = ""

    def in_source(self, frame: Frame) -> tuple[Point, ...]:
        """The target in source pixels."""
        width, height = frame.source_size if self.space == "unit" else (1, 1)
        return tuple(Point(p.x * width, p.y * height) for p in self.target)


@dataclass(frozen=True)
class Task(contract.Task):
    """Reads UI-R1, GUI-R1 and AndroidControl records.

    Around a gold point, `radius` counts as right, in widths of the source (strict, ui_r1) or of
    the unit square (ton). `rule` says when an argument is right: strict compares every argument;
    the others are the seeds' rules, which ignore some.
    """

    form: Form = "json"
    think: Think = "required"
    rule: Rule = "strict"
    radius: float = 0.14

    name: ClassVar[str] = "gui_action"
    summary: ClassVar[str] = "predict the next action on a screenshot: type and argument"
    parts: ClassVar[dict[str, RewardPart]] = {
        "accuracy": RewardPart(0.0, 1.0, 0.8),
        "type": RewardPart(0.0, 1.0, 0.0),
        "format": RewardPart(0.0, 1.0, 0.2),
    }
    metric: ClassVar[str] = "step_accuracy"
    keeps: ClassVar[contract.Keeps] = "noise"

    def sample(self, record: Record) -> Sample:
        """Ask a record; the gold keeps its native space."""
        fields = record.fields
        gold = _read_gold(fields)
        goal = str(fields.get("instruction") or fields.get("task") or "").strip()
        if not goal:
            raise ValueError("a step needs an instruction")
        history = str(fields.get("history") or "").strip()
        so_far = f"\nActions so far: {history}" if history and history != "None" else ""
        image = MediaRef(
            "screenshot", media_source(record, fields.get("image") or fields.get("img_filename"))
        )
        ask = (
            f"Instruction: {goal}{so_far}\nWhat is the next action? {self._grammar().instruction()}"
        )
        split = str(fields.get("split") or fields.get("task_type") or fields.get("group") or "all")
        return Sample(
            id=record.id,
            task=self.name,
            parts=(image, Text(ask)),
            gold=gold,
            meta={"split": split, "action": gold.type},
        )

    def score(self, gold: Any, answer: Answer) -> Score:
        """1 for the right type with the right argument."""
        action, formed = self._grammar().parse(answer)
        same_type = action.value is not None and action.value.type == gold.type
        right = (
            action.value is not None
            and same_type
            and self._argument_fits(gold, action.value, answer)
        )
        parts = {"accuracy": float(right), "type": float(same_type), "format": float(formed)}
        frame = answer.frames[0]
        point = action.value and action.value.point
        found = [to_source(point, answer.space, frame)] if point else []
        return Score(
            parts,
            float(right),
            action.status,
            action.reason,
            evidence={"same_type": same_type},
            marks=region_marks(gold.in_source(frame), found),
        )

    def aggregate(self, values: Sequence[float], metas: Sequence[Mapping[str, Any]]) -> float:
        """Macro mean over the splits."""
        splits = mean_by("split", values, metas)
        return sum(splits.values()) / len(splits)

    def breakdown(
        self, values: Sequence[float], metas: Sequence[Mapping[str, Any]]
    ) -> Mapping[str, float]:
        """Accuracy of the type, of the points of actions that have one, of splits and types."""
        same = [float(meta.get("same_type", False)) for meta in metas]
        points = [v for v, m in zip(values, metas, strict=True) if ACTIONS[m["action"]] == "point"]
        return {
            "type": sum(same) / len(same),
            **({"grounding": sum(points) / len(points)} if points else {}),
            **{f"split/{k}": v for k, v in mean_by("split", values, metas).items()},
            **{f"action/{k}": v for k, v in mean_by("action", values, metas).items()},
        }

    def target(self, sample: Sample, answer: Answer) -> str | None:
        """The gold action, its point in the model's own space."""
        gold: Gold = sample.gold
        if not gold.target:
            return self._grammar().write(Action(gold.type, text=gold.text))
        frame = answer.frames[0]
        point = from_source(_center(gold.in_source(frame)), answer.space, frame)
        return self._grammar().write(Action(gold.type, point))

    def _grammar(self) -> ActionGrammar:
        return ActionGrammar(self.think, self.form)

    def _argument_fits(self, gold: Gold, action: Action, answer: Answer) -> bool:
        if action.point is not None:
            return self._point_fits(gold, action.point, answer)
        if self.rule == "strict":
            return normalize(action.text) == normalize(gold.text)
        if self.rule == "gui_r1" and gold.type in ("type", "scroll", "select"):
            ours, theirs = ({*t.lower().split()} for t in (action.text, gold.text))
            return token_f1(sorted(ours), sorted(theirs)) >= 0.5
        return True

    def _point_fits(self, gold: Gold, point: Point, answer: Answer) -> bool:
        frame = answer.frames[0]
        seen, target = to_source(point, answer.space, frame), gold.in_source(frame)
        if self.rule == "ton":
            return distance(_unit(seen, frame), _unit(_center(target), frame)) <= self.radius
        if len(target) == 2:
            edges: Literal["open", "closed"] = "open" if self.rule == "gui_r1" else "closed"
            return in_box(seen, Box(*target[0], *target[1]), edges)
        if self.rule == "gui_r1":
            shown = [from_source(p, "processed_pixels", frame) for p in (seen, target[0])]
            return distance(*shown) < _GUI_R1_PIXELS
        return distance(seen, target[0]) < self.radius * frame.source_size[0]


def _center(target: Sequence[Point]) -> Point:
    return Point((target[0].x + target[-1].x) / 2, (target[0].y + target[-1].y) / 2)


def _unit(point: Point, frame: Frame) -> Point:
    return Point(point.x / frame.source_size[0], point.y / frame.source_size[1])


def _read_gold(fields: Mapping[str, Any]) -> Gold:
    """Gold of any of the three schemas; the columns say which, and with it the space."""
    if isinstance(fields.get("gt"), Mapping):
        step = fields["gt"]
        numbers = [step["x"], step["y"]] if "x" in step else []
        text = step.get("text") or step.get("app_name") or step.get("direction") or ""
        return _gold(step["action_type"], numbers, "source_pixels", str(text))
    if "gt_action" in fields:
        space = fields.get("bbox_space", "unit")
        text = str(fields.get("gt_input_text") or "")
        return _gold(fields["gt_action"], fields.get("gt_bbox"), space, text)
    text = str(fields.get("direction") or fields.get("text") or "")
    return _gold(fields.get("action") or "click", fields.get("bbox"), "source_pixels", text)


def _gold(name: Any, numbers: Any, space: Any, text: str) -> Gold:
    action = canonical_type(str(name))
    if space not in ("source_pixels", "unit"):
        raise ValueError(f"unknown bbox_space '{space}'")
    match ACTIONS[action]:
        case "point":
            return Gold(action, _target([*(numbers or ())], space), space)
        case "direction":
            if text.strip().lower() not in DIRECTIONS:
                raise ValueError(f"'{text}' is no direction")
            return Gold(action, text=text.strip().lower())
        case "text":
            if not text.strip():
                raise ValueError(f"{action} without a text")
            return Gold(action, text=text)
        case _:
            return Gold(action)


def _target(numbers: list[Any], space: str) -> tuple[Point, ...]:
    if len(numbers) not in (2, 4) or not all(
        isinstance(n, int | float) and math.isfinite(n) for n in numbers
    ):
        raise ValueError(f"a target is 2 or 4 finite numbers, found {numbers!r:.60}")
    if space == "unit" and not all(-0.01 <= n <= 1.01 for n in numbers):
        raise ValueError(f"target {numbers} is not within 0-1: set the column bbox_space")
    pairs = zip(numbers[::2], numbers[1::2], strict=True)
    points = tuple(Point(float(x), float(y)) for x, y in pairs)
    if len(points) == 2 and not (points[0].x < points[1].x and points[0].y < points[1].y):
        raise ValueError(f"empty or inverted box {numbers}")
    return points
