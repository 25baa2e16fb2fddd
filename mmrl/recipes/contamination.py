"""Repeated questions, and media or questions that two splits or data sets share.

Media are compared by the hash of their file, texts after Unicode, case and spacing are folded and
placeholders of media are out.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from mmrl.errors import UserError
from mmrl.recipes.store import HASH_CHARACTERS
from mmrl.rewards.text import normalize

Kind = Literal["question", "media", "text"]
"""What is shared, the most telling first: the text with all its media, a medium, or the text with
other media."""

FINGERPRINTS = "fingerprints.jsonl"
_PLACEHOLDER = re.compile(r"<(?:image|video|audio)\s*\d*>")


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a record asks about: hashes of its media and of its question's text."""

    id: str
    split: str
    media: tuple[str, ...]
    text: str

    def traits(self) -> Iterator[tuple[Kind, str]]:
        """What can be shared, the most telling first."""
        if self.text:
            yield "question", _digest("\n".join((self.text, *self.media)))
        for medium in self.media:
            yield "media", medium
        if self.text and self.media:
            yield "text", self.text

    def in_split(self, split: str) -> Fingerprint:
        """The same record under another split's name."""
        return replace(self, split=split)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Match:
    """A record, and the first one of a split that it matches."""

    id: str
    split: str
    kind: Kind
    of: str
    of_split: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class OverlapIndex:
    """The first record of every split for each thing that can be shared; enter all, then ask.

    Within a split only a repeated question is a match: pictures are shared by design.
    """

    def __init__(self) -> None:
        self._first: dict[tuple[Kind, str], dict[str, str]] = {}

    def enter(self, seen: Fingerprint) -> None:
        for key in seen.traits():
            self._first.setdefault(key, {}).setdefault(seen.split, seen.id)

    def matches(self, record: Fingerprint) -> list[Match]:
        """The record's matches, at most one a split, of the most telling kind."""
        found: dict[str, Match] = {}
        for kind, value in record.traits():
            for split, first in self._first.get((kind, value), {}).items():
                other = split != record.split or (kind == "question" and first != record.id)
                if other and split not in found:
                    found[split] = Match(record.id, record.split, kind, first, split)
        return list(found.values())


def fingerprint(
    id: str, split: str, fields: Mapping[str, Any], columns: Sequence[str], media: Iterable[str]
) -> Fingerprint:
    """Describe a record; `columns` hold its question, `media` are the sha256 of its files."""
    values = [fields[column] for column in columns if fields.get(column)]
    texts = [v if isinstance(v, str) else json.dumps(v, sort_keys=True) for v in values]
    text = normalize(_PLACEHOLDER.sub(" ", "\n".join(texts)))
    hashes = tuple(sorted({m[:HASH_CHARACTERS] for m in media}))
    return Fingerprint(id, split, hashes, _digest(text) if text else "")


def read_fingerprints(folder: Path) -> Iterator[Fingerprint]:
    """What a folder that a recipe wrote holds; one without fingerprints raises UserError."""
    path = folder / FINGERPRINTS
    if not path.is_file():
        raise UserError(f"no {FINGERPRINTS} in {folder}: make it with `mmrl data` first")
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            yield Fingerprint(row["id"], row["split"], tuple(row["media"]), row["text"])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:HASH_CHARACTERS]
