"""Folders of JPEG frames -> one video file, its pictures as they are."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from mmrl.errors import UserError
from mmrl.recipes.medium import LeftOut


def motion_jpeg(frames: Sequence[Path], fps: int) -> bytes:
    """Put JPEG files into an AVI file without decoding them; the same files give the same bytes.

    A frame that is missing, no JPEG or of another size than the first is LeftOut.
    """
    try:
        import av
    except ImportError:
        raise UserError("frames become videos with PyAV: pip install 'mmrl[video]'") from None
    for frame in frames:
        if not frame.is_file():
            raise LeftOut("a frame is missing")
    size = _size(frames[0])
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="avi", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("mjpeg", rate=Fraction(fps))
        stream.width, stream.height = size
        stream.pix_fmt = "yuvj420p"
        for number, frame in enumerate(frames):
            if _size(frame) != size:
                raise LeftOut("frames differ in size")
            packet = av.Packet(frame.read_bytes())
            packet.stream = stream
            packet.time_base = Fraction(1, fps)
            packet.pts = packet.dts = number
            packet.is_keyframe = True
            container.mux(packet)
    return buffer.getvalue()


def _size(path: Path) -> tuple[int, int]:
    try:
        with Image.open(path, formats=("JPEG",)) as image:
            return image.size
    except UnidentifiedImageError:
        raise LeftOut("a frame is no JPEG") from None
    except OSError:
        raise LeftOut("a frame is unreadable") from None
