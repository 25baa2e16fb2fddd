"""A task's sample made whole: all that its record shows is in it, in its place, or it is refused.

A task asks the last user turn by its text and its media. What came before, media of kinds that the
task does not ask for, placeholders that it left in a text, settings of single media and the
record's own completion are put in here, alike for every task.
"""

from __future__ import annotations

import os.path
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmrl.corpus.cells import as_value
from mmrl.corpus.conversation import Conversation, Medium, Message, Places, medium
from mmrl.corpus.fields import Fields
from mmrl.corpus.media_columns import kind_of, media_items
from mmrl.corpus.media_values import media_within, source_of, unwrap
from mmrl.corpus.placeholders import KINDS, Hole, Kind, split
from mmrl.corpus.ranked import reference_of
from mmrl.types import MediaRef, MediaSource, Part, Record, Sample, Text

Source = MediaSource | tuple[MediaSource, ...]


def complete(sample: Sample, record: Record) -> Sample:
    """The sample with its record's history, media, system prompt and completion.

    Raises ValueError, with the name of a column or placeholder, where the record holds a medium
    that would not be shown or shows a place for one that it does not hold.
    """
    fields = record.fields
    assert isinstance(fields, Fields)
    talk = fields.conversation if fields.has_turns else None
    expected = _expected(fields, talk)
    parts = _with_missing(sample.parts, expected, record, fields)
    parts = _in_places(parts, record)
    parts = _with_settings(parts, expected, record)
    history: tuple[tuple[str, int], ...] = ()
    if talk is not None:
        earlier = [_turn(message, record) for message in talk.history]
        history = tuple((m.role, len(t)) for m, t in zip(talk.history, earlier, strict=True))
        parts = (*(part for turn in earlier for part in turn), *_less(parts, earlier, talk))
        _refuse_lost(parts, talk, record)
    _refuse_lists(parts)
    _refuse_unseen(parts, fields, record)
    return replace(
        sample,
        parts=parts,
        history=history,
        system=_system(sample.system, fields, talk),
        reference=reference_of(fields),
    )


def source(record: Record, value: Any) -> Source:
    """Resolve a medium of a record; a list of several is the frames of a video."""
    if isinstance(value, list | tuple):
        found = tuple(source_of(unwrap(v), record.root, record.roots) for v in value)
        return found[0] if len(found) == 1 else found
    held = unwrap(value)
    if isinstance(held, list | tuple):
        return source(record, held)
    return source_of(held, record.root, record.roots)


def _expected(fields: Fields, talk: Conversation | None) -> list[Medium]:
    if talk is not None:
        return talk.question.media
    return [medium(kind, value) for kind, values in fields.media.items() for value in values]


def _kind(ref: MediaRef) -> Kind:
    return "image" if ref.kind == "screenshot" else ref.kind


def _ref(medium: Medium, record: Record) -> MediaRef:
    return MediaRef(medium.kind, source(record, medium.value), medium.settings)


def _with_missing(
    parts: Sequence[Part], expected: Sequence[Medium], record: Record, fields: Fields
) -> tuple[Part, ...]:
    """The parts behind the media of kinds that the task showed none of and did not ask for."""
    shown = {_kind(part) for part in parts if isinstance(part, MediaRef)}
    asked = {kind for kind, names in fields.media_columns.items() if fields.taken & set(names)}
    missing = [m for m in expected if m.kind not in shown | asked]
    fields.taken |= {n for m in missing for n in fields.media_columns.get(m.kind, ())}
    return (*(_ref(each, record) for each in missing), *parts)


def _in_places(parts: Sequence[Part], record: Record) -> tuple[Part, ...]:
    """The parts with each medium where the texts still hold a place for it."""
    pieces = {i: split(part.text) for i, part in enumerate(parts) if isinstance(part, Text)}
    holes = [p for found in pieces.values() for p in found if isinstance(p, Hole)]
    if not holes:
        return tuple(parts)
    moved = {hole.kind for hole in holes if hole.path is None}
    refs = {k: [p for p in parts if isinstance(p, MediaRef) and _kind(p) == k] for k in KINDS}
    places = {kind: Places(kind, refs[kind], holes) for kind in moved}
    placed: list[Part] = []
    for i, part in enumerate(parts):
        if i in pieces:
            for piece in pieces[i]:
                if isinstance(piece, str):
                    placed.append(Text(piece))
                elif piece.path is not None:
                    placed.append(MediaRef(piece.kind, source(record, piece.path)))
                else:
                    placed.append(places[piece.kind].fill(piece))
        elif isinstance(part, MediaRef) and _kind(part) not in moved:
            placed.append(part)
    return (*(ref for kind in KINDS if kind in moved for ref in places[kind].left()), *placed)


def _with_settings(
    parts: Sequence[Part], expected: Sequence[Medium], record: Record
) -> tuple[Part, ...]:
    """The parts with what the record sets for single media; the task's own options stay."""
    given = {source(record, m.value): m.settings for m in expected if m.settings}
    return tuple(
        replace(part, options={**given.get(part.source, {}), **part.options})
        if isinstance(part, MediaRef) and given
        else part
        for part in parts
    )


def _turn(message: Message, record: Record) -> tuple[Part, ...]:
    return tuple(Text(p) if isinstance(p, str) else _ref(p, record) for p in message.pieces)


def _less(
    parts: Sequence[Part], earlier: Sequence[Sequence[Part]], talk: Conversation
) -> list[Part]:
    """The question's parts without the media that the turns before it show already."""
    if talk.question.media:
        return list(parts)
    seen = {p.source for turn in earlier for p in turn if isinstance(p, MediaRef)}
    return [p for p in parts if not (isinstance(p, MediaRef) and p.source in seen)]


def _system(own: str | None, fields: Fields, talk: Conversation | None) -> str | None:
    column = fields.own.get("system")
    given = talk.system if talk is not None else None
    if given is None and isinstance(column, str) and "system" not in fields.taken:
        given = column
    return own if given is None else given if not own else f"{given}\n\n{own}"


def _refuse_lost(parts: Sequence[Part], talk: Conversation, record: Record) -> None:
    shown = {part.source for part in parts if isinstance(part, MediaRef)}
    for each in talk.question.media:
        if source(record, each.value) not in shown:
            raise ValueError(f"the messages show a {each.kind} that the task does not take")


def _refuse_lists(parts: Iterable[Part]) -> None:
    for part in parts:
        if isinstance(part, MediaRef) and isinstance(part.source, tuple) and part.kind != "video":
            raise ValueError(f"the task takes one {part.kind}, the record gives {len(part.source)}")


def _refuse_unseen(parts: Sequence[Part], fields: Fields, record: Record) -> None:
    """Raise ValueError with the first column whose media are neither shown nor asked for."""
    refs = [part for part in parts if isinstance(part, MediaRef)]
    names = {_base(s) for ref in refs for s in _each(ref.source)} - {None}
    shown = {s for ref in refs for s in _each(ref.source)}
    kinds = {_kind(ref) for ref in refs}
    for name, value in fields.own.items():
        kind = kind_of(name)
        asked = name in fields.taken or name in ("id", fields.messages_column)
        if asked or fields.settled(kind):
            continue
        for item in _unseen(name, value, record):
            remote = isinstance(item, str) and kind in kinds
            if not remote and item not in shown and _base(item) not in names:
                what = f"a {kind}" if kind else "a medium"
                raise ValueError(
                    f"column '{name}' holds {what} that the task does not show: name it in "
                    "data.columns, or set it to null there to leave it out"
                )


def _unseen(name: str, value: Any, record: Record) -> Iterator[MediaSource]:
    """The media in a column that nobody asked for; a file of another name counts if it is there."""
    named = kind_of(name) is not None
    for item in media_items(name, value) if named else media_within(as_value(value)):
        try:
            found = _each(source(record, item))
        except ValueError:
            continue  # no reference to a medium, whatever its column is called
        for each in found:
            if kind_of(name) or not isinstance(each, Path) or each.is_file():
                yield each


def _each(held: Source) -> tuple[MediaSource, ...]:
    return held if isinstance(held, tuple) else (held,)


def _base(held: MediaSource) -> str | None:
    return os.path.basename(held) if isinstance(held, Path | str) else None
