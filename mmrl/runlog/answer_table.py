"""A step's answers as a table: what was asked, shown, said and earned, for trackers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

HEIGHT = 160  # pixels of a row's pictures, side by side
GAP = 4
LONGEST_TEXT = 2000
FIXED = ("step", "id", "prompt", "picture", "answer", "reward")


@dataclass(frozen=True)
class AnswerTable:
    """Columns, rows in their order, and where each row's picture stands: None for no picture."""

    columns: tuple[str, ...]
    rows: Sequence[Sequence[Any]]

    @property
    def picture(self) -> int:
        """The place of the column that holds pictures."""
        return self.columns.index("picture")


def answer_table(
    step: int, lines: Iterable[Mapping[str, Any]], folder: Path, most: int
) -> AnswerTable:
    """The first `most` answers of a step, out of the lines of its transcript.

    `folder` holds the thumbnails; a row has those of its prompt in one picture. Parts that an
    answer does not have are None.
    """
    answers = list(islice(((line, r) for line in lines for r in line["responses"]), most))
    parts = list(dict.fromkeys(name for _, each in answers for name in each["parts"]))
    pictures: dict[str, Image.Image | None] = {}
    rows = []
    for line, each in answers:
        name = f"{line['id']} {line['variant']}"
        if name not in pictures:
            pictures[name] = _pictures(folder, line["media"])
        earned = [each["parts"].get(part) for part in parts]
        said = [line["prompt"][:LONGEST_TEXT], pictures[name], each["text"][:LONGEST_TEXT]]
        rows.append([step, line["id"], *said, each["reward"], *earned])
    return AnswerTable((*FIXED, *(f"part {part}" for part in parts)), rows)


def _pictures(folder: Path, media: Sequence[Mapping[str, Any]]) -> Image.Image | None:
    """The thumbnails of a prompt's media side by side; sounds have none."""
    files = [folder / m["thumbnail"] for m in media if m["thumbnail"] and m["kind"] != "audio"]
    shown = [Image.open(file).convert("RGB") for file in files]
    if not shown:
        return None
    sized = [p.resize((max(1, round(p.width * HEIGHT / p.height)), HEIGHT)) for p in shown]
    width = sum(p.width for p in sized) + GAP * (len(sized) - 1)
    sheet = Image.new("RGB", (width, HEIGHT), "white")
    left = 0
    for picture in sized:
        sheet.paste(picture, (left, 0))
        left += picture.width + GAP
    return sheet
