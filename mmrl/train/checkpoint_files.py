"""Where a run's checkpoints lie. Nothing here needs torch.

checkpoints/step_N/            loads with `from_pretrained`, processor included
checkpoints/step_N/trainer/    optimizer*.safetensors and state.json: what a resumed run needs,
                               and the SHA-256 of every file of step_N/
"""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from hashlib import file_digest
from pathlib import Path

STATE = "state.json"
SUMS = "checksums.json"
OPTIMIZER = "optimizer"
CRITIC = "critic"
"""Stems of what is kept in `trainer/`."""


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_full(error: Exception) -> bool:
    """True if the system takes no more: a full disk, a quota, a file over its limit.

    safetensors (0.8) hands the system's number on in its text alone.
    """
    if isinstance(error, OSError):
        return error.errno in FULL
    told = re.search(r"\(os error (\d+)\)", str(error))
    return told is not None and int(told[1]) in FULL


def folder_of(run: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return run / "checkpoints" / f"step_{step}"


def step_of(folder: Path) -> int:
    """The step that a checkpoint's folder is named after."""
    return int(folder.name.removeprefix("step_"))


def whole(run: Path) -> list[Path]:
    """The folders of a run's finished checkpoints, oldest first."""
    found = (run / "checkpoints").glob("step_*")
    return sorted((path for path in found if (path / "trainer" / STATE).is_file()), key=step_of)


def newest(run: Path) -> Path | None:
    """The folder of a run's newest finished checkpoint."""
    found = whole(run)
    return found[-1] if found else None


def checksums(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """The SHA-256 of files, by their paths in a checkpoint's folder."""
    listed = sorted(names)
    with ThreadPoolExecutor(max_workers=4) as pool:
        return dict(zip(listed, pool.map(lambda name: _sum(folder / name), listed), strict=True))


def files(folder: Path) -> set[str]:
    """The paths of a checkpoint's files in its folder, but for their checksums."""
    found = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    return found - {f"trainer/{SUMS}"}


def write_checksums(folder: Path, known: Mapping[str, str]) -> None:
    """Write the checksums of a folder's files; those `known` were computed where it was written."""
    sums = {**checksums(folder, files(folder) - known.keys()), **known}
    (folder / "trainer" / SUMS).write_text(json.dumps(sums, indent=1), encoding="utf-8")


def damage(folder: Path) -> str:
    """Say how a checkpoint is not what was written; "" if it is, or has no checksums to tell."""
    file = folder / "trainer" / SUMS
    if not file.is_file():
        return ""
    try:
        sums: dict[str, str] = json.loads(file.read_text(encoding="utf-8"))
        lost = sorted(sums.keys() - files(folder))
        if lost:
            return f"{lost[0]} is gone"
        found = checksums(folder, sums)
    except (OSError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    other = sorted(name for name in sums if found[name] != sums[name])
    return f"{other[0]} is not what was written" if other else ""


def _sum(file: Path) -> str:
    with file.open("rb") as opened:
        return file_digest(opened, "sha256").hexdigest()
