"""The pages of MiniWoB in a real browser, operated one action a turn, at their raw rewards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from mmrl.records import media_source
from mmrl.task import FIRST_STATE, RewardPart
from mmrl.tasks.web_page.task import Task as WebPage
from mmrl.types import Answer, MediaRef, Observation, Record, Sample, Score, Text


@dataclass(frozen=True)
class Task(WebPage):
    """Reads a `page` with its `seed`, its `goal` and the first `screenshot`, at a `pixel_ratio`.

    A `path` that solves it may be there, for supervised phases and self-checks. All else is as with
    `web_page`; screens are shown at `pixel_ratio` pixels a point, of which there are 160 x 210.
    """

    turns: int = 8
    pixel_ratio: float = 2.0

    name: ClassVar[str] = "miniwob"
    summary: ClassVar[str] = "operate the pages of MiniWoB in a real browser, one action a turn"
    parts: ClassVar[dict[str, RewardPart]] = {
        "raw": RewardPart(-1.0, 1.0),
        "format": RewardPart(0.0, 1.0, 0.1),
    }
    world: ClassVar[str] = "mmrl.environments.miniwob:miniwob_of"

    def sample(self, record: Record) -> Sample:
        """Ask with the page's first screen; the episode begins there."""
        fields = record.fields
        ratio = float(fields.get("pixel_ratio") or 1.0)
        if ratio != self.pixel_ratio:
            raise ValueError(f"the screenshot has pixel ratio {ratio:g}, not {self.pixel_ratio:g}")
        screen = MediaRef(
            "screenshot", media_source(record, fields["screenshot"]), {"pixel_ratio": ratio}
        )
        start = {"page": f"miniwob/{fields['page']}.html", "seed": int(fields["seed"])}
        return Sample(
            id=record.id,
            task=self.name,
            parts=(screen, Text(f"{fields['goal']} {self._grammar.instruction()}")),
            gold={"path": [dict(step) for step in fields.get("path") or ()]},
            meta={"page": str(fields["page"])},
            start=Observation({"start": start, "actions": []}, key=FIRST_STATE, outcome=0.0),
            turns=self.turns,
        )

    def score(self, gold: Mapping[str, object], answer: Answer) -> Score:
        """Take the page's raw reward, -1 where it never ended; over 0 is success."""
        found = super().score(gold, answer)
        raw = 2 * found.parts["done"] - 1
        return replace(
            found, parts={"raw": raw, "format": found.parts["format"]}, metric=float(raw > 0)
        )

    def target(self, sample: Sample, answer: Answer) -> str | None:
        """The next action of the path, where there is one."""
        return super().target(sample, answer) if sample.gold["path"] else None
