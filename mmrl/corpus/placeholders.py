"""Marks in a text that stand for a medium: plain, numbered, or a model family's own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from mmrl.corpus.media_values import looks_like_media

Kind = Literal["image", "video", "audio"]
KINDS: tuple[Kind, ...] = ("image", "video", "audio")

_WORD = r"image|video|audio|speech|sound"
_MARK = re.compile(
    r"<(?P<tag>img|image|video|audio)>(?P<path>[^<>\n]{3,1024})</(?P=tag)>"
    rf"|<(?P<plain>{_WORD})>"
    rf"|<(?P<of>{_WORD})[ _-]?(?P<number>\d{{1,3}})>"
    rf"|<\|(?P<bar>{_WORD})(?:_(?P<bar_number>\d{{1,3}}))?\|>"
    r"|(?:<\|vision_start\|>)?<\|(?P<pad>image|video)_pad\|>(?:<\|vision_end\|>)?"
    r"|(?:<\|audio_bos\|>)?<\|AUDIO\|>(?:<\|audio_eos\|>)?"
)


@dataclass(frozen=True, slots=True)
class Hole:
    """A place for a medium: the next of its kind, or the one with a number; `text` is the mark.

    A mark may also name its medium's file itself: `<img>a.png</img>`.
    """

    kind: Kind
    number: int | None = None
    text: str = ""
    path: str | None = None


def split(text: str) -> list[str | Hole]:
    """Cut a text at its marks; empty pieces are left out.

    A mark whose closing tag stands in the text too is markup of some page, not a place.
    """
    pieces: list[str | Hole] = []
    end = 0
    for hole, first, last in _holes(text):
        pieces += [text[end:first]] if first > end else []
        pieces.append(hole)
        end = last
    return [*pieces, text[end:]] if end < len(text) else pieces


def _holes(text: str) -> Iterator[tuple[Hole, int, int]]:
    for found in _MARK.finditer(text):
        if found["tag"]:
            if looks_like_media(found["path"]):
                named_kind = _kind_of(found["tag"])
                yield Hole(named_kind, None, found[0], found["path"].strip()), *found.span()
            continue
        named = found["plain"] or found["of"] or found["bar"] or found["pad"] or "audio"
        if found["plain"] and f"</{named}>" in text:
            continue
        number = found["number"] or found["bar_number"]
        yield Hole(_kind_of(named), int(number) if number else None, found[0]), *found.span()


def _kind_of(word: str) -> Kind:
    return "video" if word == "video" else "image" if word in ("image", "img") else "audio"
