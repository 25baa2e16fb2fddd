"""A question that no first look can answer: which way do the stripes in the red frame run?

One of the nine fields of a picture of 672 pixels has the frame. Its stripes repeat every seven
pixels and fade out towards it. A model that sees the whole at 84 pixels has one for each eight by
eight: the four kinds are then the same picture, but for the last bit of a few values
(tests/tools/test_learn_zoom.py). Of the field alone it sees 2.6 pixels to a stripe and its gap.

Three tasks ask it: `Glance` at once, `Look` after one look with the tool `zoom`, and `Uncropped`
after the same call, which then shows the whole picture again.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from mmrl.environments.tooled import with_tools
from mmrl.rewards.boxes import Box, from_source
from mmrl.rewards.exact import Asked, Exact
from mmrl.rewards.grammar import Think
from mmrl.types import Answer, MediaRef, Observation, Record, Sample, Text

SIDE, SEEN = 672, 84
"""Pixels of a picture's side, and of what the model sees of it at first."""
FIELDS, FRAME, PERIOD, CONTRAST = 3, 16, 7, 100
FIELD = SIDE // FIELDS
RED = (220, 30, 30)
WAYS = ("across", "down", "rising", "falling")
TURNS = 2


def picture(way: str, corner: tuple[int, int], grey: int) -> Image.Image:
    """The picture whose framed field has its upper left corner (x, y) there."""
    pixels = np.full((SIDE, SIDE, 3), grey, np.uint8)
    x0, y0 = corner
    pixels[y0 : y0 + FIELD, x0 : x0 + FIELD] = RED
    inner = FIELD - 2 * FRAME
    y, x = np.mgrid[0:inner, 0:inner] + 0.5
    along = {"across": y, "down": x, "rising": (x + y) / 2**0.5, "falling": (x - y) / 2**0.5}[way]
    fading = (np.sin(np.pi * x / inner) * np.sin(np.pi * y / inner)) ** 2
    stripes = grey + CONTRAST * fading * np.sin(2 * np.pi * along / PERIOD)
    x1, y1 = x0 + FRAME, y0 + FRAME
    pixels[y1 : y1 + inner, x1 : x1 + inner] = np.round(stripes)[..., None]
    return Image.fromarray(pixels)


def write(path: Path, count: int, seed: int) -> None:
    """Write so many records and their pictures, every kind equally often."""
    drawn = random.Random(seed)
    pictures = path.with_suffix("")
    pictures.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(count):
        way = WAYS[number % len(WAYS)]
        x, y = (FIELD * drawn.randrange(FIELDS) for _ in range(2))
        file = pictures / f"{number}.png"
        picture(way, (x, y), drawn.randrange(112, 145)).save(file)
        box = [x, y, x + FIELD, y + FIELD]
        image = f"{pictures.name}/{file.name}"
        rows.append({"id": f"{seed}-{number}", "image": image, "way": way, "box": box})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@dataclass(frozen=True)
class Glance(Exact):
    """Asks a record's `image` for its `way`, to be answered at first sight."""

    think: Think = "none"

    name: ClassVar[str] = "small_detail"
    summary: ClassVar[str] = "say which way the stripes in the red frame run"

    @staticmethod
    def ask_row(row: Mapping[str, Any]) -> Asked:
        """The picture, the question and the way."""
        return row["image"], "Which way do the stripes in the red frame run?", row["way"]


@dataclass(frozen=True)
class Look(Glance):
    """Asks for a zoom first, in few words: a small model reads them in every call."""

    own_tools: ClassVar[Mapping[str, str]] = {"zoom": "zoom"}

    def sample(self, record: Record) -> Sample:
        """Ask; where the field is, the target alone knows."""
        asked = super().sample(record)
        offer = Text(" First zoom in on it.")
        return replace(asked, parts=(*asked.parts, offer), meta={"box": record.fields["box"]})

    def score(self, gold: Any, answer: Answer) -> Any:
        """Score the last turn."""
        return super().score(gold, replace(answer, text=[answer.text, *answer.turns][-1]))

    def target(self, sample: Sample, answer: Answer) -> str | None:
        """A zoom at the field, then the way."""
        box = from_source(Box(*sample.meta["box"]), answer.space, answer.frames[0])
        call = json.dumps({"name": "zoom", "arguments": {"bbox_2d": [round(v) for v in box]}})
        return f"<tool_call>{call}</tool_call>\n{super().target(sample, answer)}"


class Uncropped(with_tools(Look, ("zoom",), TURNS)):
    """The control: every zoom shows the whole picture."""

    def step(self, gold: Any, state: Any, answer: Answer) -> Observation:
        """Carry the call out, and show the question's picture in place of what it gave."""
        seen = super().step(gold, state, answer)
        whole = answer.shown[0]
        return replace(
            seen, parts=tuple(whole if isinstance(p, MediaRef) else p for p in seen.parts)
        )
