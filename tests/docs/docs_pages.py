"""The project's pages as tests read them: their links, anchors and code blocks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
BESIDE = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md")

_FENCE = re.compile(r"^(`{3,})([^`]*)$")
_NOTE = re.compile(r"^<!-- *(.*?) *-->$")
_FILE = re.compile(r"^`([\w./-]+)`:$")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the notes right above it.

    Notes are `slow` and `not run: REASON` in comments, and `file: NAME`, which readers see.
    """

    page: Path
    line: int
    language: str
    text: str
    notes: tuple[str, ...]

    def note(self, name: str) -> str | None:
        """What a note says; "" for one of a single word; None where it is not there."""
        for note in self.notes:
            word, _, said = note.partition(":")
            if word == name:
                return said.strip()
        return None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    """The pages of the site and those that stand beside it."""
    return [*(ROOT / name for name in BESIDE), *sorted(DOCS.rglob("*.md"))]


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    lines = page.read_text(encoding="utf-8").splitlines()
    at = 0
    while at < len(lines):
        fence = _FENCE.match(lines[at])
        if not fence:
            at += 1
            continue
        end = next(n for n in range(at + 1, len(lines)) if lines[n].rstrip() == fence[1])
        text = "\n".join(lines[at + 1 : end]) + "\n"
        yield Block(page, at + 1, fence[2].strip(), text, _notes_above(lines, at))
        at = end + 1


def _notes_above(lines: list[str], at: int) -> tuple[str, ...]:
    notes: list[str] = []
    while at:
        note, file = _NOTE.match(lines[at - 1]), _FILE.match(lines[at - 1])
        if not (note or file):
            break
        notes.insert(0, note[1] if note else f"file: {file[1]}")  # type: ignore[index]
        at -= 1
    return tuple(notes)


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    text = page.read_text(encoding="utf-8")
    return re.sub(r"^(`{3,})[^`]*\n.*?^\1\s*$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MyST make them."""
    found: set[str] = set()
    for title in re.findall(r"^#{1,4} (.+?)\s*$", prose(page), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).replace("`", "").lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        known, count = slug, 0
        while known in found:
            count += 1
            known = f"{slug}-{count}"
        found.add(known)
    return found


def links(page: Path) -> list[str]:
    """The targets of a page's links and pictures."""
    return re.findall(r"\]\(([^)\s]+)\)", prose(page))
