"""Clips whose pictures say their own numbers, in the containers and codecs that people have.

    python -m tests.modalities.clips READER

prints what the reader does with each: {"reader": label, form: "yes" | "refused" | what is wrong}.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from importlib import import_module
from importlib.metadata import files
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import numpy.typing as npt

from mmrl.errors import MediaError
from mmrl.modalities import readers, video
from mmrl.modalities.readers import Name

FRAMES, RATE = 60, 10
TICKS = 1000


class Form(NamedTuple):
    """A kind of file: `cut` drops its first packets, `hidden` seconds an edit list leaves out.

    The frames of a `varying` one are shown for 0.1 s each, then for half a second. A `mirrored` one
    is written with left and right exchanged, and says so.
    """

    container: str
    codec: str
    encoder: str
    options: dict[str, str]
    cut: int = 0
    hidden: float = 0.0
    varying: bool = False
    mirrored: bool = False

    @property
    def seconds(self) -> list[float]:
        """When each frame is shown."""
        if not self.varying:
            return [i / RATE for i in range(FRAMES)]
        return [i / RATE for i in range(20)] + [2.0 + i / 2 for i in range(FRAMES - 20)]


B_FRAMES = {"g": "20", "bf": "2"}
OPEN = {"x265-params": "keyint=20:log-level=none:open-gop=1"}
FORMS = {
    "mp4": Form("mp4", "H.264", "libx264", B_FRAMES),
    "mp4-hevc": Form("mp4", "HEVC, open groups", "libx265", OPEN),
    "mp4-av1": Form("mp4", "AV1", "libsvtav1", {"g": "20", "preset": "10"}),
    "mp4-mpeg4": Form("mp4", "MPEG-4", "mpeg4", B_FRAMES),
    "mp4-varying": Form("mp4", "H.264, varying rate", "libx264", B_FRAMES, varying=True),
    "mp4-mirrored": Form("mp4", "H.264, mirrored", "libx264", B_FRAMES, mirrored=True),
    "mp4-hidden": Form("mp4", "H.264, cut by an edit list", "libx264", B_FRAMES, hidden=0.55),
    "mp4-cut": Form("mp4", "H.264, cut between key frames", "libx264", B_FRAMES, cut=7),
    "mov": Form("mov", "H.264", "libx264", B_FRAMES),
    "mkv": Form("mkv", "H.264", "libx264", B_FRAMES),
    "mkv-hevc": Form("mkv", "HEVC, open groups", "libx265", OPEN),
    "mkv-cut": Form("mkv", "H.264, cut between key frames", "libx264", B_FRAMES, cut=7),
    "webm": Form("webm", "VP9", "libvpx-vp9", {"g": "20", "deadline": "realtime", "cpu-used": "8"}),
    "webm-vp8": Form("webm", "VP8", "libvpx", {"g": "20", "auto-alt-ref": "1", "b": "200k"}),
    "flv": Form("flv", "H.264", "libx264", B_FRAMES),
    "wmv": Form("wmv", "WMV 8", "wmv2", {"g": "20"}),
    "avi": Form("avi", "H.264", "libx264", B_FRAMES),
    "avi-mpeg4": Form("avi", "MPEG-4", "mpeg4", B_FRAMES),
    "ts": Form("ts", "H.264", "libx264", B_FRAMES),
    "ts-hevc": Form("ts", "HEVC, open groups", "libx265", OPEN),
    "ts-cut": Form("ts", "H.264, cut between key frames", "libx264", B_FRAMES, cut=7),
    "m2ts": Form("m2ts", "H.264", "libx264", B_FRAMES),
    "mpg": Form("mpg", "MPEG-2", "mpeg2video", B_FRAMES),
    "h264": Form("h264", "raw H.264", "libx264", B_FRAMES),
}
"""Key frames are 20 apart and two B-frames between others, where the codec has them."""
UNTIMED = ("h264",)
ASKED: tuple[dict[str, float], ...] = (
    {},
    {"start": 1.55, "end": 2.35},
    {"start": 2.0, "end": 2.3},
    {"start": 2.15, "end": 3.45},
)


def picture(number: int) -> npt.NDArray[np.uint8]:
    """A picture 48 x 64 that shows a number under 256 as bars, the least bit on the left."""
    pixels = np.full((48, 64, 3), 128, dtype=np.uint8)
    for bit in range(8):
        pixels[:24, bit * 8 : bit * 8 + 8] = 255 * (number >> bit & 1)
    return pixels


def number(pixels: npt.NDArray[np.uint8]) -> int:
    """The number that a picture shows."""
    bars = (pixels[4:20, bit * 8 + 2 : bit * 8 + 6].mean() > 128 for bit in range(8))
    return sum(int(bright) << bit for bit, bright in enumerate(bars))


@contextmanager
def ordinary_priority() -> Iterator[None]:
    """Undo what the AV1 encoder does to its caller: SVT-AV1 makes it a real-time process."""
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, *before)


@ordinary_priority()
def write(path: Path, form: Form, frames: int = FRAMES) -> Path:
    """Write a clip whose frames say their numbers."""
    whole = path.with_name(f"whole-{path.name}") if form.cut or form.hidden else path
    with av.open(str(whole), "w") as container:
        rate = TICKS if form.varying else RATE
        stream: Any = container.add_stream(form.encoder, rate=rate, options=form.options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i, second in enumerate(form.seconds[:frames]):
            pixels = picture(i)[:, ::-1] if form.mirrored else picture(i)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = round(second * rate), Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    if whole != path:
        _copied(whole, path, form)
        whole.unlink()
    if form.mirrored:
        path.write_bytes(displayed(path.read_bytes(), (-1, 0, 0, 1)))
    return path


def displayed(made: bytes, matrix: tuple[int, int, int, int]) -> bytes:
    """An MP4 or QuickTime file with (a, b, c, d) in its track's matrix of display.

    That shows (x, y) at (a x + c y, b x + d y), but for a shift.
    """
    straight, wanted = (
        b"".join((v << 16).to_bytes(4, "big", signed=True) for v in (a, b, 0, c, d))
        for a, b, c, d in ((1, 0, 0, 1), matrix)
    )
    at = made.index(straight, made.index(b"tkhd"))  # the movie's header has a matrix too, before
    return made[:at] + wanted + made[at + len(straight) :]


def _copied(whole: Path, path: Path, form: Form) -> None:
    """Copy packets as a cutting tool does that does not encode again."""
    with av.open(str(whole)) as source, av.open(str(path), "w") as cut:
        stream = source.streams.video[0]
        copied = cut.add_stream_from_template(stream)
        packets = (p for p in source.demux(stream) if p.dts is not None and p.pts is not None)
        for i, packet in enumerate(packets):
            if i >= form.cut:
                earlier = round(form.hidden / packet.time_base)
                packet.pts, packet.dts = (packet.pts or 0) - earlier, (packet.dts or 0) - earlier
                packet.stream = copied
                cut.mux(packet)


def straight(path: Path) -> list[int]:
    """The numbers of the frames as they decode straight through."""
    with av.open(str(path)) as container:
        return [number(f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]


def read(
    path: Path, reader: Name | None, **options: Any
) -> tuple[list[int], list[int], list[float]]:
    """Numbers of frames said, numbers that their pictures show, and their seconds."""
    arguments = video.Options(reader=reader, **options).model_dump(mode="json")
    header, (array,) = video.read_clip(path, arguments)
    return header["indices"], [number(frame) for frame in array], header["seconds"]


def judged(path: Path, reader: Name, form: Form) -> str:
    """Whether a reader shows the frames that it says: yes, refused, or which it shows instead."""
    there = list(range(FRAMES)) if form.mirrored else straight(path)
    for asked in ASKED:
        try:
            said, shown, seconds = read(path, reader, frames=5, **asked)
        except MediaError:
            return "refused"
        wanted = [there[i] for i in said]
        if shown != wanted:
            return f"said {wanted}, shown {shown}"
        late = [abs(s - form.seconds[i]) for s, i in zip(seconds, said, strict=True)]
        if form.container not in UNTIMED and max(late) > 0.02:
            return f"frames {said} at {seconds}"
    return "yes"


def judge(reader: Name) -> dict[str, str]:
    """What a reader does with every form."""
    own = ""
    if reader == "torchcodec":
        own = f", FFmpeg {import_module('torchcodec').ffmpeg_major_version}"
    with tempfile.TemporaryDirectory() as folder:
        found = {}
        for name, form in FORMS.items():
            path = write(Path(folder) / f"{name}.{form.container}", form)
            found[name] = judged(path, reader, form)
        label = readers.open_video(Path(folder) / "mp4.mp4", reader)[1]
    return {"reader": label + own, **found}


def with_ffmpeg(folder: Path) -> dict[str, str]:
    """An environment in which torchcodec finds the FFmpeg libraries that come with PyAV."""
    for file in files("av") or ():
        found = re.match(r"(lib\w+)-[0-9a-f]+(\.so\.\d+)", file.name)
        if found:
            for name in (file.name, found[1] + found[2]):
                (folder / name).symlink_to(file.locate())
    there = [str(folder), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    return {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(there)}


def judge_elsewhere(reader: Name) -> dict[str, str]:
    """`judge` in a process of its own; raises MediaError where that fails."""
    with tempfile.TemporaryDirectory() as folder:
        environment = with_ffmpeg(Path(folder)) if reader == "torchcodec" else dict(os.environ)
        words = [sys.executable, "-m", __name__, reader]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise MediaError((done.stderr.splitlines() or ["it said nothing"])[-1])
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


def table(results: Sequence[Mapping[str, str]]) -> str:
    """What each reader does with each form, as the table of docs/modalities.md."""
    lines = ["| container | codec | read by default with |"]
    lines[0] += "".join(f" {found['reader']} |" for found in results)
    lines.append("|---" * (3 + len(results)) + "|")
    shows = next(found for found in results if found["reader"].startswith("torchcodec"))
    for name, form in FORMS.items():
        default = "torchcodec, else PyAV" if shows[name] == "yes" else "PyAV"
        cells = [f"`.{form.container}`", form.codec, default, *(found[name] for found in results)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(json.dumps(judge(sys.argv[1])))  # type: ignore[arg-type]
