"""Where on the screen: one point, right if it hits the target's box or polygon."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from mmrl import task as contract
from mmrl.frame import Frame, Mark
from mmrl.records import media_source
from mmrl.rewards.boxes import Box
from mmrl.rewards.grammar import TagAnswer, Think
from mmrl.rewards.marks import region_marks
from mmrl.rewards.native_forms import (
    Form,
    hint_of,
    parse_native_box,
    parse_native_point,
    space_of,
    write_form,
)
from mmrl.rewards.parsed import Parsed, ok
from mmrl.rewards.points import (
    Edges,
    Point,
    from_source,
    in_box,
    in_polygon,
    interior_point,
    to_source,
)
from mmrl.task import RewardPart, mean_by
from mmrl.tasks.gui_grounding.records import Region, Screen, read_screen
from mmrl.types import Answer, MediaRef, Record, Sample, Score, Status, Text

Layout = Literal["by_columns", "screenspot", "screenspot_hf", "screenspot_pro", "osworld_g"]


@dataclass(frozen=True)
class Task(contract.Task):
    """Reads ScreenSpot (SeeClick json, v2, HF mirror), ScreenSpot-Pro and OSWorld-G records.

    `answer` box takes a box's centre for the point. `edges` last_pixel is VLMEvalKit's rule.
    `offer_refusal` lets the model refuse on layouts other than OSWorld-G too. `average` cells
    takes the mean over groups x kinds of element instead of the mean over records. `form` is how
    the point or box is written (`rewards/native_forms.py`): `own` takes whatever counts in the
    model's own space.
    """

    layout: Layout = "by_columns"
    answer: Literal["point", "box", "point_or_box"] = "point"
    think: Think = "required"
    edges: Edges = "closed"
    offer_refusal: bool = False
    average: Literal["records", "cells"] = "records"
    form: Form = "own"

    name: ClassVar[str] = "gui_grounding"
    summary: ClassVar[str] = "point at the screen element an instruction names, or refuse"
    parts: ClassVar[dict[str, RewardPart]] = {
        "accuracy": RewardPart(0.0, 1.0),
        "format": RewardPart(0.0, 1.0, 0.1),
    }
    metric: ClassVar[str] = "accuracy"
    keeps: ClassVar[contract.Keeps] = "noise"

    def sample(self, record: Record) -> Sample:
        """Ask a record; the gold is its region in the space its layout declares."""
        screen = read_screen(record, self.layout)
        if self.offer_refusal:
            screen = screen.with_refusal()
        elif screen.region.kind == "refusal" and not screen.region.may_refuse:
            raise ValueError("the element is not on the screen: set offer_refusal")
        grammar = self._grammar(screen.region.may_refuse)
        return Sample(
            id=record.id,
            task=self.name,
            parts=(
                MediaRef("screenshot", media_source(record, screen.image)),
                Text(f"{self._question(screen)}\n{grammar.instruction()}"),
            ),
            gold=screen.region,
            meta={**screen.meta, "cell": f"{screen.meta['group']}/{screen.meta['ui_type']}"},
        )

    def score(self, gold: Any, answer: Answer) -> Score:
        """Map the one point to the source and look whether it is in the region."""
        region = self._grammar(gold.may_refuse).parse(answer)
        refused = region.answer.status == "refusal"
        parsed = region.answer.then(self._read)
        right = refused if gold.kind == "refusal" else self._hits(gold, parsed.value, answer)
        formed = region.well_formed and (refused or parsed.value is not None)
        parts = {"accuracy": float(right), "format": float(formed)}
        status: Status = "ok" if refused and right else parsed.status
        return Score(
            parts,
            float(right),
            status,
            parsed.reason,
            marks=self._marks(gold, parsed.value, answer),
        )

    def aggregate(self, values: Sequence[float], metas: Sequence[Mapping[str, Any]]) -> float:
        """Mean over records, or over cells where `average` says so."""
        cells = mean_by("cell", values, metas)
        if self.average == "cells":
            return sum(cells.values()) / len(cells)
        return contract.mean(values, metas)

    def breakdown(
        self, values: Sequence[float], metas: Sequence[Mapping[str, Any]]
    ) -> Mapping[str, float]:
        """Accuracy of each group and kind of element, `group/ui_type`."""
        return mean_by("cell", values, metas)

    def target(self, sample: Sample, answer: Answer) -> str | None:
        """A point well inside the region, in the model's own space."""
        gold: Region = sample.gold
        grammar = self._grammar(gold.may_refuse)
        if gold.kind == "refusal":
            return grammar.write(grammar.refusal)
        frame = answer.frames[0]
        space = space_of(self.form, answer.space)
        x, y = from_source(_some_point(gold, frame), space, frame)
        if self.answer == "box":
            # Half the box may be no smaller than a step of the form's numbers.
            half = 0.002 if space == "unit" else 1.0
            corners = (x - half, y - half, x + half, y + half)
            return grammar.write(write_form(corners, self.form, space))
        return grammar.write(write_form((x, y), self.form, space))

    def _grammar(self, may_refuse: bool) -> TagAnswer:
        return TagAnswer(self.think, refusal="unachievable" if may_refuse else "")

    def _question(self, screen: Screen) -> str:
        hint = hint_of(self.form, "box" if self.answer == "box" else "point")
        form = "the box [x1, y1, x2, y2]" if self.answer == "box" else "one point (x, y)"
        return (
            f"Instruction: {screen.instruction}\n"
            f"Where on the screen is the element to act on? The answer is {form}. {hint}".rstrip()
        )

    def _read(self, text: str) -> Parsed[Point]:
        point = parse_native_point(text, self.form) if self.answer != "box" else None
        if point is not None and (point.value is not None or self.answer == "point"):
            return point
        return parse_native_box(text, self.form).then(lambda box: ok(Point(*box.center)))

    def _marks(self, gold: Region, point: Point | None, answer: Answer) -> tuple[Mark, ...]:
        frame = answer.frames[0]
        space = space_of(self.form, answer.space)
        found = [] if point is None else [to_source(point, space, frame)]
        return region_marks([] if gold.kind == "refusal" else gold.in_source(frame), found)

    def _hits(self, gold: Region, point: Point | None, answer: Answer) -> bool:
        if point is None:
            return False
        frame = answer.frames[0]
        seen = to_source(point, space_of(self.form, answer.space), frame)
        corners = gold.in_source(frame)
        if gold.kind == "polygon":
            return in_polygon(seen, corners)
        return in_box(seen, Box(*corners[0], *corners[1]), self.edges)


def _some_point(gold: Region, frame: Frame) -> Point:
    corners = gold.in_source(frame)
    return (
        interior_point(corners)
        if gold.kind == "polygon"
        else Point(*Box(*corners[0], *corners[1]).center)
    )
