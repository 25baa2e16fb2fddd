"""Video readers behind one face: torchcodec, PyAV, decord. They run in a decoding child.

A reader is opened on a path or on encoded bytes and then asked for frames by number. Numbers
count in presentation order, so that all readers mean the same frame by the same number.
"""

from __future__ import annotations

import bisect
import importlib
import io
import itertools
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from mmrl.errors import MediaError

Name = Literal["torchcodec", "pyav", "decord"]
ORDER: tuple[Name, ...] = ("torchcodec", "pyav", "decord")
Source = Path | bytes
Pixels = npt.NDArray[np.uint8]


class Reader(Protocol):
    """An opened video: its shape, and frames by number."""

    num_frames: int
    fps: float
    """Mean frames a second."""
    seconds: float
    """Length from the start of the first frame to the end of the last."""
    size: tuple[int, int]
    """Width and height of the upright picture."""

    def index_at(self, seconds: float) -> int:
        """The number of the first frame shown at or after a time from the start."""
        ...

    def read(self, indices: Sequence[int]) -> tuple[Pixels, list[float]]:
        """Frames uint8 [n, H, W, 3] in ascending order, and when each is shown, in seconds."""
        ...


def open_video(source: Source, name: Name | None) -> tuple[Reader, str]:
    """Open with the named reader, or the first that is installed; also its name and version.

    Raises MediaError if none is installed or the file is not a readable video.
    """
    for candidate in (name,) if name else order(source):
        try:
            module = load(candidate)
        except LOAD_ERRORS as error:
            if name:
                raise MediaError(f"video reader {name} cannot be loaded: {error}") from None
            continue
        label = f"{candidate} {version(_PACKAGES[candidate])}"
        try:
            return _READERS[candidate](source, module), label
        except MediaError:
            raise
        except Exception as error:  # decoders raise anything on damaged files
            raise MediaError(f"not a readable video ({candidate}): {_brief(error)}") from None
    raise MediaError("no video reader is installed: pip install 'mmrl[video]'")


def order(source: Source) -> tuple[Name, ...]:
    """The readers to try; PyAV first for what the others seek wrongly in or cannot number."""
    if isinstance(source, bytes):
        head = source[:400]
    else:
        with source.open("rb") as file:
            head = file.read(400)
    avi = head[:4] == b"RIFF" and head[8:12] == b"AVI "
    transport = any(head[at : at + 1] == b"G" == head[at + n : at + n + 1] for at, n in _PACKETS)
    stream = head[:4] in (b"\0\0\1\xba", b"\0\0\1\xb3", b"\0\0\0\1") or head[:3] == b"\0\0\1"
    return ("pyav", "torchcodec", "decord") if avi or transport or stream else ORDER


_PACKETS = ((0, 188), (4, 192))
"""Where a transport stream's first mark stands, and how far the next is from it."""

LOAD_ERRORS = (ImportError, RuntimeError, OSError)
"""What a package raises that is not there, or that does not find its libraries."""


def load_torchcodec() -> Any:
    """torchcodec's decoders; raises one of LOAD_ERRORS where it is missing or finds no FFmpeg."""
    package: Any = importlib.import_module("torchcodec")
    # Releases since 0.17 load without FFmpeg's libraries and fail at the first file instead.
    if getattr(package, "ffmpeg_major_version", 0) is None:
        raise ImportError("torchcodec does not find FFmpeg's libraries")
    return package.decoders


def load(name: Name) -> Any:
    """A reader's package; raises one of LOAD_ERRORS where it cannot be used."""
    if name == "torchcodec":
        return load_torchcodec()
    return importlib.import_module({"pyav": "av", "decord": "decord"}[name])


_PACKAGES: dict[Name, str] = {"torchcodec": "torchcodec", "pyav": "av", "decord": "decord"}


class TorchCodec:
    """Seeks by an exact scan of the file."""

    def __init__(self, source: Source, module: Any) -> None:
        self._decoder = module.VideoDecoder(source, dimension_order="NHWC", seek_mode="exact")
        found = self._decoder.metadata
        self.num_frames, self.fps = int(found.num_frames), float(found.average_fps or 0)
        self._begin = float(found.begin_stream_seconds)
        self.seconds = float(found.end_stream_seconds) - self._begin
        frame = self._decoder.get_frame_at(0).data
        self.size = (int(frame.shape[1]), int(frame.shape[0]))

    def index_at(self, seconds: float) -> int:
        low, high = 0, self.num_frames
        while low < high:
            middle = (low + high) // 2
            shown = self._decoder.get_frame_at(middle).pts_seconds - self._begin
            low, high = (middle + 1, high) if shown < seconds - EPSILON else (low, middle)
        return low

    def read(self, indices: Sequence[int]) -> tuple[Pixels, list[float]]:
        batch = self._decoder.get_frames_at(list(indices))
        return batch.data.numpy(), [float(t) - self._begin for t in batch.pts_seconds]


EPSILON = 1e-6  # seconds; timestamps are rounded to the file's own clock


class PyAV:
    """Numbers frames by the packets' timestamps and decodes from the key frame before a request.

    Where a container's timestamps or seeks cannot be trusted with that (AVI, MPEG streams, raw
    video, clips cut between key frames), frames are numbered as they decode, from the start.
    """

    def __init__(self, source: Source, module: Any) -> None:
        self._source, self._module = source, module
        self._open()
        packets = [p for p in self._container.demux(self._stream) if p.size]
        timed = [p for p in packets if p.pts is not None]
        self._counted = not _seekable(self._container.format.name, packets)
        self._pts: Sequence[float]
        if self._counted:
            self._open()
            self._pts, length = self._decoded_times()
        elif timed:
            self._pts = sorted(p.pts for p in timed)
            last = max(timed, key=lambda p: p.pts)
            length = last.pts + (last.duration or 0) - self._pts[0]
        else:
            raise MediaError("no frames in the video")
        self.num_frames = len(self._pts)
        self.seconds = float(length * self._base)
        self.fps = self.num_frames / self.seconds if self.seconds > 0 else 0.0
        first = next(iter(self._frames(0)))
        self.size = (first.width, first.height)
        if first.rotation % 180:
            self.size = self.size[::-1]

    def _open(self) -> None:
        """Begin at the start of the file, for the first time or again."""
        held = self._source
        opened = io.BytesIO(held) if isinstance(held, bytes) else str(held)
        self._container = self._module.open(opened)
        self._stream = self._container.streams.best("video")
        if self._stream is None:
            raise MediaError("no video stream in the file")
        self._base = float(self._stream.time_base)

    def _decoded_times(self) -> tuple[list[float], float]:
        """Timestamps of the frames as they decode, and the length, in the stream's clock.

        Those that do not rise are none: then the frames are as far apart as their rate says.
        """
        pts = [frame.pts for frame in self._container.decode(self._stream)]
        if not pts:
            raise MediaError("no frames in the video")
        rate = float(self._stream.average_rate or self._stream.guessed_rate or 25)
        step = 1.0 / (rate * self._base)
        rising = None not in pts and all(a < b for a, b in itertools.pairwise(pts))
        times = [float(p) for p in pts] if rising else [i * step for i in range(len(pts))]
        return times, times[-1] - times[0] + step

    def index_at(self, seconds: float) -> int:
        return bisect.bisect_left(self._pts, (seconds - EPSILON) / self._base + self._pts[0])

    def _read_counted(self, indices: Sequence[int]) -> tuple[Pixels, list[float]]:
        wanted = set(indices)
        found: dict[int, Pixels] = {}
        for number, frame in enumerate(self._frames(0)):
            if number in wanted:
                found[number] = _upright(frame)
                if len(found) == len(wanted):
                    break
        if len(found) < len(wanted):
            raise MediaError(f"{len(wanted) - len(found)} of {len(wanted)} frames do not decode")
        times = [float((self._pts[i] - self._pts[0]) * self._base) for i in indices]
        return np.stack([found[i] for i in indices]), times

    def read(self, indices: Sequence[int]) -> tuple[Pixels, list[float]]:
        if self._counted:
            return self._read_counted(indices)
        wanted = {self._pts[i] for i in indices}
        found: dict[float, Pixels] = {}
        for place, frame in enumerate(self._frames(min(indices))):
            if not place and frame.pts > min(wanted):  # the seek went too far
                return self._read_counted(indices)
            if frame.pts in wanted:
                found[frame.pts] = _upright(frame)
                if len(found) == len(wanted):
                    break
        if len(found) < len(wanted):
            raise MediaError(f"{len(wanted) - len(found)} of {len(wanted)} frames do not decode")
        shown = [self._pts[i] for i in indices]
        return np.stack([found[p] for p in shown]), [
            float((p - self._pts[0]) * self._base) for p in shown
        ]

    def _frames(self, index: int) -> Any:
        if not index:
            self._open()
            return self._container.decode(self._stream)
        self._container.seek(self._pts[index], stream=self._stream, backward=True)
        return self._container.decode(self._stream)


_SEEKABLE = ("mov", "matroska", "flv")


def _seekable(form: str, packets: Sequence[Any]) -> bool:
    """Whether packets' timestamps number the frames of a container, and seeks go to key frames."""
    timed = [p for p in packets if p.pts is not None]
    if not form.startswith(_SEEKABLE) or len({p.pts for p in timed}) < len(packets):
        return False
    # What is shown before the first key frame does not decode.
    keys = [p.pts for p in timed if p.is_keyframe]
    return bool(keys) and timed[0].is_keyframe and min(p.pts for p in timed) >= min(keys)


def _upright(frame: Any) -> Pixels:
    pixels: Pixels = frame.to_ndarray(format="rgb24")
    return np.rot90(pixels, k=frame.rotation // 90) if frame.rotation else pixels


class Decord:
    """Indexes the file when it is opened.

    It fails at a clip turned by a quarter whose rows it pads: such a clip is refused, not sideways.
    """

    def __init__(self, source: Source, module: Any) -> None:
        opened = io.BytesIO(source) if isinstance(source, bytes) else str(source)
        self._reader = module.VideoReader(opened, num_threads=1)
        self.num_frames = len(self._reader)
        if not self.num_frames:
            raise MediaError("no frames in the video")
        self._times = self._reader.get_frame_timestamp(range(self.num_frames))
        self._begin = float(self._times[0, 0])
        self.seconds = float(self._times[-1, 1]) - self._begin
        self.fps = self.num_frames / self.seconds if self.seconds > 0 else 0.0
        height, width = self._reader[0].shape[:2]
        self.size = (int(width), int(height))

    def index_at(self, seconds: float) -> int:
        return int(np.searchsorted(self._times[:, 0] - self._begin, seconds - EPSILON))

    def read(self, indices: Sequence[int]) -> tuple[Pixels, list[float]]:
        pixels: Pixels = self._reader.get_batch(list(indices)).asnumpy()
        return pixels, [float(self._times[i, 0]) - self._begin for i in indices]


_READERS: dict[Name, Any] = {"torchcodec": TorchCodec, "pyav": PyAV, "decord": Decord}


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
