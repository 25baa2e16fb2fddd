"""`manifest.json`: where records come from, what became of every row, a hash of every file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mmrl.errors import UserError
from mmrl.recipes.store import sha256

MANIFEST = "manifest.json"


def clear(out: Path) -> None:
    """Remove what an earlier build wrote into `out`, by its manifest, and the manifest first."""
    path = out / MANIFEST
    if not path.is_file():
        return
    names = _hashes(path)
    path.unlink()
    for name in names:
        if ".." not in Path(name).parts:
            (out / name).unlink(missing_ok=True)


def write_manifest(
    out: Path, facts: Mapping[str, Any], files: Iterable[str], media: Mapping[str, str]
) -> None:
    """Write the manifest, last of all; `media` are the hashes already known."""
    lines = {name: sha256(out / name) for name in sorted(files)}
    manifest = {**facts, "sha256": {**lines, **dict(sorted(media.items()))}}
    text = json.dumps(manifest, indent=1, ensure_ascii=False)
    (out / MANIFEST).write_text(text + "\n", encoding="utf-8")


def write_made(out: Path, **facts: Any) -> None:
    """Write the manifest of data that a recipe made itself, of every file below `out`."""
    files = (path for path in out.rglob("*") if path.suffix != ".json" and path.is_file())
    names = [path.relative_to(out).as_posix() for path in files]
    write_manifest(out, facts, names, {})


def verify(out: Path) -> list[str]:
    """Say which files differ from the manifest or are gone; none is an empty list.

    A folder without a manifest raises UserError: its recipe did not finish.
    """
    path = out / MANIFEST
    if not path.is_file():
        raise UserError(f"no {MANIFEST} in {out}: run its recipe again")
    found = []
    for name, digest in _hashes(path).items():
        file = out / name
        if not file.is_file():
            found.append(f"{name} is gone")
        elif sha256(file) != digest:
            found.append(f"{name} has changed")
    return found


def _hashes(path: Path) -> dict[str, str]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))["sha256"])
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is no manifest of a recipe: give another folder") from None
