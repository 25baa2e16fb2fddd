"""Video readers behind one face: torchcodec, PyAV, decord. They run in a decoding child.

A reader is opened on a path or on encoded bytes and then asked for frames by number. Numbers
count the frames as they decode straight through, so that all readers mean the same frame by the
same number; a file whose frames a reader would number otherwise, it refuses.
"""

from __future__ import annotations

import importlib
import io
import itertools
import struct
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from mmrl.errors import MediaError
from mmrl.modalities import containers
from mmrl.modalities.containers import Flip, Matrix

Name = Literal["torchcodec", "pyav", "decord"]
ORDER: tuple[Name, ...] = ("torchcodec", "pyav", "decord")
T = TypeVar("T")
Source = Path | bytes
Pixels = npt.NDArray[np.uint8]


class Reader(Protocol):
    """An opened video: when its frames are shown, and frames by number."""

    times: Sequence[float]
    """When each frame is shown, in seconds from the first; rising."""
    seconds: float
    """Length from the start of the first frame to the end of the last."""

    def read(self, indices: Sequence[int]) -> tuple[Pixels, list[float]]:
        """Frames uint8 [n, H, W, 3], upright, in ascending order, and when each is shown."""
        ...


class Misread(MediaError):
    """A reader would show other frames of a file than asked for, or garble them; PyAV does not."""


def open_video(source: Source, name: Name | None) -> tuple[Reader, str]:
    """Open with the named reader, or the first that can; also its name and version.

    Raises MediaError if none is installed or the file is not a readable video, with what the first
    of the readers said.
    """
    refused: MediaError | None = None
    for candidate in (name,) if name else ORDER:
        try:
            module = load(candidate)
        except LOAD_ERRORS as error:
            if name:
                raise MediaError(f"video reader {name} cannot be loaded: {error}") from None
            continue
        label = f"{candidate} {version(_PACKAGES[candidate])}"
        try:
            return _READERS[candidate](source, module), label
        except Misread as error:
            hint = "leave media.video.reader out" if name else "pip install 'mmrl[video]'"
            said = f"{candidate} misreads {error}, PyAV does not: {hint}"
            refused = refused or MediaError(said)
        except MediaError as error:
            refused = refused or error
        except Exception as error:  # decoders raise anything on damaged files
            said = f"not a readable video ({candidate}): {_brief(error)}"
            refused = refused or MediaError(said)
    raise refused or MediaError("no video reader is installed: pip install 'mmrl[video]'")


def _matrix_if_indexed(source: Source) -> Matrix:
    """How the picture of a container is turned whose frames all readers number alike."""
    if not containers.is_indexed(source):
        raise Misread("AVI, MPEG streams and raw video")
    return containers.display_matrix(source)


LOAD_ERRORS = (ImportError, RuntimeError, OSError)
"""What a package raises that is not there, or that does not find its libraries."""


def load_torchcodec() -> Any:
    """torchcodec's decoders; raises one of LOAD_ERRORS where it is missing or finds no FFmpeg."""
    package: Any = importlib.import_module("torchcodec")
    # Releases since 0.17 load without FFmpeg's libraries and fail at the first file instead.
    if getattr(package, "ffmpeg_major_version", 0) is None:
        raise ImportError(
            "it does not find FFmpeg's shared libraries (4 to 9): apt install ffmpeg, or add their "
            "folder to LD_LIBRARY_PATH"
        )
    return package.decoders


def load(name: Name) -> Any:
    """A reader's package; raises one of LOAD_ERRORS where it cannot be used."""
    if name == "torchcodec":
        return load_torchcodec()
    return importlib.import_module({"pyav": "av", "decord": "decord"}[name])


_PACKAGES: dict[Name, str] = {"torchcodec": "torchcodec", "pyav": "av", "decord": "decord"}


class TorchCodec:
    """Seeks by an exact scan of the file.

    The scan's times are not told: they are those of a constant rate where some frames say so, else
    all frames are decoded for them.
    """

    def __init__(self, source: Source, module: Any) -> None:
        self._flip = containers.flip_of(*_matrix_if_indexed(source))
        self._decoder = module.VideoDecoder(source, dimension_order="NHWC", seek_mode="exact")
        found = self._decoder.metadata
        count = int(found.num_frames)
        self._begin = float(found.begin_stream_seconds)
        self.seconds = float(found.end_stream_seconds) - self._begin
        probed = np.unique(np.linspace(0, count - 1, PROBED).round().astype(int))
        told = self._shown(probed.tolist())
        if told[0] > EPSILON:
            raise Misread("clips that begin between key frames")
        even = np.interp(np.arange(count), [0, count - 1], [told[0], told[-1]])
        step = even[-1] / max(count - 1, 1)
        if np.abs(even[probed] - told).max() > step / 4:
            self.times: Sequence[float] = self._shown(range(count))
        else:
            self.times = even.tolist()

    def _shown(self, indices: Sequence[int]) -> list[float]:
        shown: list[float] = []
        for first in range(0, len(indices), PROBED):
            some = list(indices[first : first + PROBED])
            shown += self._decoder.get_frames_at(some).pts_seconds.tolist()
        return [t - self._begin for t in shown]

    def read(self, indices: Sequence[int]) -> tuple[Pixels, list[float]]:
        batch = self._decoder.get_frames_at(list(indices))
        return flipped(batch.data.numpy(), self._flip), [
            float(t) - self._begin for t in batch.pts_seconds
        ]


PROBED = 17
EPSILON = 1e-6  # seconds; timestamps are rounded to the file's own clock


class PyAV:
    """Numbers frames by the packets' timestamps and decodes from the key frame before a request.

    Where a container's timestamps or seeks cannot be trusted with that (AVI, MPEG streams, raw
    video, clips cut between key frames), frames are numbered as they decode, from the start.
    """

    def __init__(self, source: Source, module: Any) -> None:
        self._source, self._module = source, module
        self._open()
        packets = [
            Packet(p.pts, p.duration or 0, p.is_keyframe, p.is_discard)
            for p in self._container.demux(self._stream)
            if p.size
        ]
        self._counted = not _seekable(self._container.format.name, packets)
        self._pts: Sequence[float]
        if self._counted:
            self._open()
            self._pts, length = self._decoded_times()
        else:
            shown = sorted(
                (p.pts, p.duration) for p in packets if p.pts is not None and not p.hidden
            )
            self._pts = [pts for pts, _ in shown]
            length = self._pts[-1] + shown[-1][1] - self._pts[0]
        self.seconds = float(length * self._base)
        self.times = [float((p - self._pts[0]) * self._base) for p in self._pts]

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

    def read(self, indices: Sequence[int]) -> tuple[Pixels, list[float]]:
        found = None if self._counted else self._sought([self._pts[i] for i in indices])
        if found is None:
            found = _numbered(self._frames(0), indices)
        if len(found) < len(indices):
            raise MediaError(f"{len(indices) - len(found)} of {len(indices)} frames do not decode")
        return np.stack(list(map(_upright, found))), [self.times[i] for i in indices]

    def _sought(self, wanted: Sequence[float]) -> list[Any] | None:
        """Frames by timestamp from the key frame before them; None where the seek went too far."""
        found: list[Any] = []
        for place, frame in enumerate(self._frames(wanted[0])):
            if not place and frame.pts > wanted[0]:
                return None
            if frame.pts == wanted[len(found)]:
                found.append(frame)
                if len(found) == len(wanted):
                    break
        return found

    def _frames(self, pts: float) -> Any:
        if pts == self._pts[0] or self._counted:
            self._open()
        else:
            self._container.seek(int(pts), stream=self._stream, backward=True)
        return self._container.decode(self._stream)


class Packet(NamedTuple):
    """What a frame's packet says of it; `hidden`: an edit list has it decoded and not shown."""

    pts: int | None
    duration: int
    key: bool
    hidden: bool


_SEEKABLE = ("mov", "matroska", "flv")


def _seekable(form: str, packets: Sequence[Packet]) -> bool:
    """Whether packets' timestamps number the frames of a container, and seeks go to key frames."""
    shown = [p.pts for p in packets if not p.hidden]
    if not form.startswith(_SEEKABLE) or not shown or len(set(shown)) < len(shown):
        return False
    pts = [p.pts for p in packets if p.pts is not None]
    # What is shown before the first key frame does not decode.
    keys = [p.pts for p in packets if p.key and p.pts is not None]
    return len(pts) == len(packets) and packets[0].key and min(pts) >= min(keys)


def _numbered(frames: Iterable[T], indices: Sequence[int]) -> list[T]:
    """The frames with some numbers, ascending; fewer where they end before."""
    wanted = set(indices)
    last = max(wanted)
    return [f for i, f in enumerate(itertools.islice(frames, last + 1)) if i in wanted]


def _upright(frame: Any) -> Pixels:
    pixels: Pixels = frame.to_ndarray(format="rgb24")
    matrix = next((bytes(s) for s in frame.side_data if s.type.name == "DISPLAYMATRIX"), b"")
    turned: Pixels = np.rot90(pixels, k=frame.rotation // 90) if frame.rotation else pixels
    if not matrix:
        return turned
    a, b, _, c, d = struct.unpack("=5i", matrix[:20])
    upright: Pixels = flipped(turned[None], containers.flip_of(a, b, c, d))[0]
    return upright


def flipped(frames: Pixels, flip: Flip) -> Pixels:
    """Frames [n, H, W, 3] flipped."""
    return {"": frames, "top and bottom": frames[:, ::-1], "left and right": frames[:, :, ::-1]}[
        flip
    ]


class Decord:
    """Decodes from the start: after a seek it loses frames, of open groups of HEVC for one."""

    def __init__(self, source: Source, module: Any) -> None:
        matrix = _matrix_if_indexed(source)
        if abs(matrix[1]) > abs(matrix[0]):
            raise Misread("clips that are turned by a quarter")  # it pads their rows
        self._flip = containers.flip_of(*matrix)
        opened = io.BytesIO(source) if isinstance(source, bytes) else str(source)
        self._reader = module.VideoReader(opened, num_threads=1)
        if not len(self._reader):
            raise MediaError("no frames in the video")
        shown = self._reader.get_frame_timestamp(range(len(self._reader)))
        begin = float(shown[0, 0])
        if begin < -EPSILON or self._reader.get_key_indices()[0]:
            raise Misread("clips that begin between key frames")
        self.times = [float(t) - begin for t in shown[:, 0]]
        self.seconds = float(shown[-1, 1]) - begin

    def read(self, indices: Sequence[int]) -> tuple[Pixels, list[float]]:
        self._reader.seek(0)
        coming = (self._reader.next() for _ in self.times)
        pixels: Pixels = np.stack([frame.asnumpy() for frame in _numbered(coming, indices)])
        return flipped(pixels, self._flip), [self.times[i] for i in indices]


_READERS: dict[Name, Any] = {"torchcodec": TorchCodec, "pyav": PyAV, "decord": Decord}


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
