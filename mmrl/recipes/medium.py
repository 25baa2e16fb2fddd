"""A medium on its way from the source to the records."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath


@dataclass(frozen=True, slots=True)
class Medium:
    """A file of the source, or encoded bytes; a recipe puts it into a column.

    `place` is the path it gets beside the records; bytes without one are named by their hash.
    """

    content: Path | bytes
    place: PurePosixPath | None = None


class LeftOut(Exception):
    """A row that cannot become a record; the reason is written to `left_out.jsonl`."""
