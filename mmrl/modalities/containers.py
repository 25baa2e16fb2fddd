"""What a video file says of itself: who numbers its frames rightly, and whether it is mirrored."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Literal

Source = Path | bytes
Flip = Literal["", "left and right", "top and bottom"]
Matrix = tuple[int, int, int, int]
"""(a, b, c, d): what lies at (x, y) is shown at (a x + c y, b x + d y), but for a shift."""

_STARTS = (
    (0, b"\x1aE\xdf\xa3"),
    (0, b"FLV"),
    (0, b"GIF8"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),
)
"""Matroska and WebM, Flash, GIF, Windows Media."""
_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot")
"""What an MP4 or QuickTime file may begin with."""


def is_indexed(source: Source) -> bool:
    """Whether a container's own times number its frames as they decode.

    Those of AVI, MPEG streams and raw video do not: such frames must be counted as they decode.
    """
    with _opened(source) as file:
        head = file.read(16)
    return head[4:8] in _BOXES or any(head[at:].startswith(mark) for at, mark in _STARTS)


def flip_of(a: int, b: int, c: int, d: int) -> Flip:
    """What a display matrix asks for besides the quarter turn that readers take from its (a, b)."""
    if a * d - b * c >= 0:
        return ""
    return "top and bottom" if abs(a) >= abs(b) else "left and right"


def display_matrix(source: Source) -> Matrix:
    """How the first video track of an MP4 or QuickTime file is to be shown; else as it is."""
    with _opened(source) as file:
        whole = 0, file.seek(0, io.SEEK_END)
        for track in _inside(file, whole, (b"moov", b"trak")):
            kinds = [_read(file, at, 12)[8:] for at in _inside(file, track, (b"mdia", b"hdlr"))]
            headers = list(_inside(file, track, (b"tkhd",)))
            if kinds == [b"vide"] and headers:
                header = _read(file, headers[0], 104)
                matrix = header[52:72] if header[:1] == b"\1" else header[40:60]
                if len(matrix) == 20:
                    a, b, _, c, d = struct.unpack(">5i", matrix)
                    return a, b, c, d
    return 1, 0, 0, 1


def _opened(source: Source) -> BinaryIO:
    return io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")


def _read(file: BinaryIO, span: tuple[int, int], count: int) -> bytes:
    file.seek(span[0])
    return file.read(min(count, span[1] - span[0]))


def _inside(
    file: BinaryIO, span: tuple[int, int], path: Sequence[bytes]
) -> Iterator[tuple[int, int]]:
    """Where the bodies of the boxes at a path of names begin and end."""
    if not path:
        yield span
        return
    at, end = span
    while at + 8 <= end:
        size, kind, large = struct.unpack(">I4sQ", _read(file, (at, end), 16).ljust(16, b"\0"))
        body = at + (16 if size == 1 else 8)
        stop = at + large if size == 1 else end if size == 0 else at + size
        if not body <= stop <= end:
            return
        if kind == path[0]:
            yield from _inside(file, (body, stop), path[1:])
        at = stop
