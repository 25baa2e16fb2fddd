"""How a recipe is carried out; the same for all recipes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Drop = Literal["none", "question", "media"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """`copy` copies media instead of linking them.

    `difficulty` is a file of scored answers. `against` are folders that recipes wrote, to look for
    overlap with. `drop` leaves out training records that repeat a question, or share one
    (`media`: or a medium) with another split or with `against`.
    """

    copy: bool = False
    difficulty: Path | None = None
    against: tuple[Path, ...] = ()
    drop: Drop = "none"
