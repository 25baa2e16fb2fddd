"""VSI-Bench: spatial questions about a video of a room, letters and graded numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, ClassVar, Literal

from mmrl import task as contract
from mmrl.records import media_source
from mmrl.rewards.choices import Choice, choice_of, format_options
from mmrl.rewards.graded import ACCURACY_AND_FORMAT, Extractor, grade, official_text
from mmrl.rewards.grammar import Region, TagAnswer, Think
from mmrl.rewards.numbers import parse_number
from mmrl.rewards.parsed import Parsed
from mmrl.rewards.room_map import RoomMap, map_score, parse_map
from mmrl.rewards.tolerance import mean_relative_accuracy
from mmrl.task import RewardPart, mean_by
from mmrl.types import Answer, MediaRef, Record, Sample, Score, Text

NUMERIC = (
    "object_counting", "object_abs_distance", "object_size_estimation", "room_size_estimation",
)  # fmt: skip
DIRECTION = "object_rel_direction"
CHOICES = ("object_rel_distance", DIRECTION, "route_planning", "obj_appearance_order")


ENOUGH = 0.5
"""Accuracy above which a map is looked at."""
MAP = TagAnswer("none", "map")
MAP_HINT = (
    " Before the answer, draw the room from above on 10 x 10 cells between <map> </map> tags: JSON "
    'of every object\'s cells by its name, such as {"chair": [[1, 2], [7, 3]], "table": [[5, 5]]}.'
)


@dataclass(frozen=True, slots=True)
class Gold:
    """The right choice or number, and the map of the room, where one is asked for."""

    answer: Choice | str
    room: RoomMap


@dataclass(frozen=True)
class Task(contract.Task):
    """Letter equality, or mean relative accuracy of a number; the mean over the 8 tasks.

    With `map` the model first draws a map of the room, which is compared with the record's where
    the answer is right (or a number's MRA above 0.5). `code` computes MRA in floats as the
    published script does, where 4 for 5 scores 0.6 and not 0.7. `extractor` official reads the
    first word of an answer for the metric.
    """

    think: Think = "required"
    extractor: Extractor = "strict"
    variant: Literal["exact", "code"] = "exact"
    video_path: str = "{dataset}/{scene_name}.mp4"
    map: bool = False

    name: ClassVar[str] = "vsi_bench"
    summary: ClassVar[str] = "spatial questions about a video of a room, mean over 8 tasks"
    parts: ClassVar[Mapping[str, RewardPart]] = {
        **ACCURACY_AND_FORMAT,
        "map": RewardPart(0.0, 1.0, 0.0),
    }
    metric: ClassVar[str] = "macro accuracy"
    official: ClassVar[Mapping[str, Any]] = {"extractor": "official"}

    def sample(self, record: Record) -> Sample:
        """Ask a record: `question_type`, `question`, `options`, `ground_truth`, with `map` that.

        A map that does not parse raises ValueError.
        """
        fields = record.fields
        kind = str(fields["question_type"])
        gold = _gold(kind, fields)
        room = _map_of(fields.get("map")) if self.map else {}
        question, hint = str(fields["question"]), "The answer is a number."
        if isinstance(gold, Choice):
            question, hint = f"{question}\n{format_options(gold.options)}", gold.instruction
        grammar = TagAnswer(self.think)
        target = grammar.write(gold.letter if isinstance(gold, Choice) else gold)
        if self.map:
            hint += MAP_HINT
            head, tag, tail = target.rpartition("<answer>")
            target = f"{head}{MAP.write(json.dumps(room))}\n{tag}{tail}"
        name = fields.get("video") or self.video_path.format_map(fields)
        return Sample(
            id=record.id,
            task=self.name,
            parts=(
                MediaRef("video", media_source(record, name)),
                Text(f"{question}\n{grammar.instruction()} {hint}"),
            ),
            gold=Gold(gold, room) if self.map else gold,
            target=target,
            meta={"task": kind},
        )

    def score(self, gold: Any, answer: Answer) -> Score:
        """Grade the one answer region; the metric may follow the official script.

        Without maps the part `map` is the accuracy.
        """
        if not self.map:
            plain = self._graded(gold, answer)
            return replace(plain, parts={**plain.parts, "map": plain.parts["accuracy"]})
        said, without = _map_region(answer)
        graded = self._graded(gold.answer, without)
        found = said.answer.then(parse_map)
        earned = graded.parts["accuracy"] > ENOUGH and found.value is not None
        parts = {
            "accuracy": graded.parts["accuracy"],
            "format": graded.parts["format"] * (found.status == "ok"),
            "map": map_score(found.value or {}, gold.room) if earned else 0.0,
        }
        return replace(graded, parts=parts)

    def _graded(self, gold: Choice | str, answer: Answer) -> Score:
        region = TagAnswer(self.think).parse(answer)
        parsed: Parsed[Any] = region.answer.then(lambda text: self._read(text, gold))
        value = metric = self._value(parsed.value, gold)
        if self.extractor == "official":
            words = official_text(region, answer).split(maxsplit=1)
            first = words[0].strip(".") if words else ""
            spelled = first.upper() if isinstance(gold, Choice) else first
            metric = self._value(self._read(spelled, gold).value, gold)
        return grade(region, parsed, value, metric)

    def aggregate(self, values: Sequence[float], metas: Sequence[Mapping[str, Any]]) -> float:
        """Mean over tasks, the three levels of direction being one."""
        tasks = self.breakdown(values, metas)
        return sum(tasks.values()) / len(tasks)

    def breakdown(
        self, values: Sequence[float], metas: Sequence[Mapping[str, Any]]
    ) -> dict[str, float]:
        """Accuracy or MRA per task; direction is the mean of its levels."""
        tasks = mean_by("task", values, metas)
        levels = [tasks.pop(name) for name in list(tasks) if name.startswith(DIRECTION)]
        if levels:
            tasks[DIRECTION] = sum(levels) / len(levels)
        return tasks

    def _read(self, text: str, gold: Choice | str) -> Parsed[Any]:
        if isinstance(gold, Choice):
            return gold.read(text)
        return parse_number(text)

    def _value(self, said: Any, gold: Choice | str) -> float:
        if said is None:
            return 0.0
        if isinstance(gold, Choice):
            return float(said == gold.letter)
        return mean_relative_accuracy(said, Decimal(gold), variant=self.variant)


def _map_of(given: Any) -> RoomMap:
    found = parse_map(given if isinstance(given, str) else json.dumps(given))
    if found.value is None:
        raise ValueError(f"the record's map: {found.reason}")
    return found.value


def _map_region(answer: Answer) -> tuple[Region, Answer]:
    """The map, which stands right before the answer, and the answer without it."""
    head, tag, tail = answer.text.rpartition("<answer>")
    before, opened, drawn = head.rpartition("<map>")
    inside, closed, after = drawn.partition("</map>")
    if not (tag and opened and closed) or after.strip():
        missing: Parsed[str] = Parsed("missing", None, "no <map> right before the answer")
        return Region(missing, False), answer
    region = MAP.parse(Answer(f"<map>{inside}</map>"))
    return region, replace(answer, text=f"{before}{tag}{tail}")


def _gold(kind: str, fields: Mapping[str, Any]) -> Choice | str:
    truth = str(fields["ground_truth"]).strip()
    if kind in NUMERIC:
        number = parse_number(truth)
        if number.value is None or not number.value > 0:
            raise ValueError(f"ground truth {truth!r:.40} is not a number above 0")
        return str(number.value)
    if not kind.startswith(CHOICES):
        raise ValueError(f"unknown question_type {kind!r:.40}")
    return choice_of(fields["options"], truth)
