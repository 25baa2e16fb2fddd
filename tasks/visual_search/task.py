"""Visual search: zoom calls over several turns, then an answer that a judge compares."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from mmrl import task as contract
from mmrl.frame import Frame
from mmrl.records import media_source
from mmrl.rewards.boxes import Box, from_source, to_source
from mmrl.rewards.calls import Call, call_of
from mmrl.rewards.custom import load_callable
from mmrl.rewards.grammar import MAX_CHARACTERS, Region, TagAnswer, Think
from mmrl.rewards.json_text import is_number, parse_json
from mmrl.rewards.parsed import Parsed, malformed, ok
from mmrl.rewards.points import Point, in_box
from mmrl.rewards.text import normalize
from mmrl.task import RewardPart, mean_by
from mmrl.types import Answer, MediaRef, Record, Sample, Score, Text

TOOL = "image_zoom_in_tool"
_END = "</tool_call>"


class Gold(NamedTuple):
    """The question, for judges; the answer; where to look, in source pixels, if known."""

    question: str
    answer: str
    box: Box | None


@dataclass(frozen=True)
class Task(contract.Task):
    """Reads DeepEyes rows and V*-like records.

    `judge` names a function f(question, gold, answer) -> a number in [0, 1], or None where it
    reaches no verdict, which makes the answer unscorable. Without a judge the texts must agree,
    articles and punctuation aside.
    """

    think: Think = "required"
    judge: str | None = None
    max_turns: int = 6

    name: ClassVar[str] = "visual_search"
    summary: ClassVar[str] = "zoom into an image over several turns, then answer"
    parts: ClassVar[dict[str, RewardPart]] = {
        "accuracy": RewardPart(0.0, 1.0, 0.8),
        "tool": RewardPart(0.0, 1.0, 0.2),
        "format": RewardPart(0.0, 1.0, 0.2),
    }
    metric: ClassVar[str] = "accuracy"
    keeps: ClassVar[contract.Keeps] = "noise"
    own_tools: ClassVar[Mapping[str, str]] = {TOOL: "zoom"}

    def sample(self, record: Record) -> Sample:
        """Ask a record: an image, a question, `reward_model.ground_truth` or `answer`."""
        fields = record.fields
        image = fields["images"][0] if fields.get("images") else fields["image"]
        question = str(fields.get("question") or fields["extra_info"]["question"]).strip()
        answer = str((fields.get("reward_model") or {}).get("ground_truth") or fields.get("answer"))
        if not question or not _bare(answer):
            raise ValueError("a record needs a question and an answer")
        gold = Gold(question, answer.strip(), _read_box(fields.get("target_box")))
        return Sample(
            id=record.id,
            task=self.name,
            parts=(
                MediaRef("image", media_source(record, image)),
                Text(f"{question}\n\n{self._instruction()}"),
            ),
            gold=gold,
            meta={"category": str(fields.get("category", "all"))},
        )

    def score(self, gold: Any, answer: Answer) -> Score:
        """Judge the last turn's answer; the tool term needs a right answer and sensible zooms."""
        gold = Gold(*gold)
        calls, region = self._parse(answer)
        said = region.answer.value
        accuracy = self._judge(gold, said) if said is not None else 0.0
        zoomed = bool(calls) and all(_is_sensible(c, gold, answer) for c in calls)
        formed = region.well_formed and all(call.value is not None for call in calls)
        parts = {
            "accuracy": accuracy,
            "tool": accuracy if zoomed else 0.0,
            "format": float(formed),
        }
        return Score(parts, accuracy, region.answer.status, region.answer.reason)

    def breakdown(
        self, values: Sequence[float], metas: Sequence[Mapping[str, Any]]
    ) -> Mapping[str, float]:
        """Accuracy by category (V*: attribute or relation)."""
        return mean_by("category", values, metas)

    def target(self, sample: Sample, answer: Answer) -> str | None:
        """Zoom to the known box, or the middle, then give the gold answer."""
        frame = answer.frames[0]
        width, height = frame.source_size
        gold = Gold(*sample.gold)
        box = gold.box or Box(width / 4, height / 4, width * 3 / 4, height * 3 / 4)
        corners = [float(f"{v:.6g}") for v in from_source(box, answer.space, frame)]
        call = json.dumps({"name": TOOL, "arguments": {"bbox_2d": corners}})
        zoom = TagAnswer(self.think, "tool_call").write(call)
        return f"{zoom}\n{TagAnswer(self.think).write(gold.answer)}"

    def _instruction(self) -> str:
        return (
            f"{TagAnswer(self.think).instruction()} Before that, you may zoom in, once a turn and "
            f'up to {self.max_turns - 1} times, by writing {{"name": "{TOOL}", "arguments": '
            '{"bbox_2d": [x1, y1, x2, y2]}} between <tool_call> </tool_call> tags instead.'
        )

    def _parse(self, answer: Answer) -> tuple[list[Parsed[Box]], Region]:
        """Split the turns at the ends of tool calls; all but the last are one call each."""
        if len(answer.text) > MAX_CHARACTERS:
            return [], Region(malformed(f"longer than {MAX_CHARACTERS} characters"), False)
        *zooms, last = answer.text.split(_END, self.max_turns)
        region = TagAnswer(self.think).parse(Answer(last, answer.truncated))
        calls: list[Parsed[Box]] = []
        for turn in zooms:
            found = TagAnswer(self.think, "tool_call").parse(Answer(turn + _END))
            if not found.well_formed:
                return [], Region(
                    malformed(f"a turn is not one call: {found.answer.reason}"), False
                )
            calls.append(found.answer.then(parse_json).then(_read_call))
        return calls, region

    def _judge(self, gold: Gold, answer: str) -> float:
        if self.judge is None:
            return float(_bare(answer) == _bare(gold.answer))
        verdict = load_callable(self.judge, "judge")(gold.question, gold.answer, answer)
        if verdict is None or not 0.0 <= float(verdict) <= 1.0:
            raise ValueError(f"judge {self.judge} reached no verdict in [0, 1]: {verdict!r:.40}")
        return float(verdict)


def _read_call(value: Any) -> Parsed[Box]:
    return call_of(value, "arguments").then(_read_zoom)


def _read_zoom(call: Call) -> Parsed[Box]:
    corners = call.arguments.get("bbox_2d")
    if call.name != TOOL or not call.arguments.keys() <= {"bbox_2d", "label"}:
        return malformed(f"not a call of {TOOL}")
    if not isinstance(corners, list) or len(corners) != 4 or not all(map(is_number, corners)):
        return malformed("bbox_2d has four numbers")
    box = Box(*map(float, corners))
    return ok(box) if box.x1 < box.x2 and box.y1 < box.y2 else malformed("empty or inverted box")


def _is_sensible(call: Parsed[Box], gold: Gold, answer: Answer) -> bool:
    """A readable crop, smaller than the picture and inside it, with the middle of the gold box."""
    if call.value is None:
        return False
    frame = answer.frames[0]
    box = to_source(call.value, answer.space, frame)
    if not _is_inside(box, frame):
        return False
    return gold.box is None or in_box(Point(*gold.box.center), box)


def _is_inside(box: Box, frame: Frame) -> bool:
    width, height = frame.source_size
    within = box.x1 >= -1 and box.y1 >= -1 and box.x2 <= width + 1 and box.y2 <= height + 1
    return within and box.area < 0.95 * width * height


def _bare(text: str) -> str:
    return normalize(text, punctuation=True, articles=True)


def _read_box(value: Any) -> Box | None:
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 4 or not all(map(is_number, value)):
        raise ValueError(f"target_box {value!r:.60} is not four numbers")
    box = Box(*map(float, value))
    if not (box.x1 < box.x2 and box.y1 < box.y2):
        raise ValueError(f"empty or inverted target_box {value}")
    return box
