"""Frame numbers said are frames shown, in every container, before and after a seek."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from mmrl.errors import MediaError
from mmrl.modalities import readers, video
from mmrl.modalities.readers import PyAV

FRAMES, RATE = 60, 10
CONTAINERS = {
    "mp4": "libx264",
    "mkv": "libx264",
    "flv": "libx264",
    "avi": "libx264",
    "ts": "libx264",
    "m2ts": "libx264",
    "h264": "libx264",
    "mpg": "mpeg2video",
}
OPTIONS: dict[str, dict[str, Any]] = {"whole": {}, "after a seek": {"start": 1.55, "end": 2.35}}


def write(path: Path, codec: str) -> Path:
    """A clip with a key frame in 20, two B-frames between others, and each frame its own grey."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE, options={"g": "20", "bf": "2"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(FRAMES):
            pixels = np.full((48, 64, 3), 4 * i, dtype=np.uint8)
            pixels[:, :32, 1] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def shown(path: Path, **options: Any) -> tuple[list[int], list[int | None], list[float]]:
    """Numbers said, those of a decode straight through that have the same pixels, and times."""
    with av.open(str(path)) as container:
        straight = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    arguments = video.Options(frames=5, reader="pyav", **options).model_dump(mode="json")
    header, (array,) = video.read_clip(path, arguments)
    said = header["indices"]
    order = [[number, *range(len(straight))] for number in said]  # two frames may look alike
    found = [
        next((i for i in numbers if np.array_equal(straight[i], frame)), None)
        for numbers, frame in zip(order, array, strict=True)
    ]
    return said, found, header["seconds"]


@pytest.mark.parametrize("asked", OPTIONS)
@pytest.mark.parametrize("form", CONTAINERS)
def test_frames_said_are_frames_shown(tmp_path: Path, form: str, asked: str) -> None:
    said, found, seconds = shown(write(tmp_path / f"a.{form}", CONTAINERS[form]), **OPTIONS[asked])
    assert said == found
    assert all(a < b for a, b in itertools.pairwise(seconds))
    if form != "h264":  # which holds no times: 25 frames a second are supposed
        first, last = (0, FRAMES - 1) if asked == "whole" else (16, 23)
        assert (said[0], said[-1]) == (first, last)
        assert seconds == pytest.approx([i / RATE for i in said], abs=0.02)


def test_a_clip_cut_between_key_frames_begins_with_its_first_that_decodes(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.mp4", "libx264")
    with av.open(str(whole)) as source, av.open(str(tmp_path / "cut.mp4"), "w") as cut:
        stream = source.streams.video[0]
        copied = cut.add_stream_from_template(stream)
        for i, packet in enumerate(p for p in source.demux(stream) if p.dts is not None):
            if i >= 7:
                packet.stream = copied
                cut.mux(packet)
    said, found, _ = shown(tmp_path / "cut.mp4")
    assert said == found and said[0] == 0


def test_times_that_do_not_rise_are_refused(tmp_path: Path, monkeypatch: Any) -> None:
    path = write(tmp_path / "a.mp4", "libx264")
    plain = PyAV.read
    monkeypatch.setattr(
        PyAV, "read", lambda self, indices: (plain(self, indices)[0], [0.5] * len(indices))
    )
    with pytest.raises(MediaError, match="times of the frames do not rise"):
        video.read_clip(path, video.Options(frames=3, reader="pyav").model_dump(mode="json"))


@pytest.mark.parametrize("form", CONTAINERS)
def test_the_reader_that_numbers_a_container_rightly_comes_first(tmp_path: Path, form: str) -> None:
    first = "torchcodec" if form in ("mp4", "mkv", "flv") else "pyav"
    path = write(tmp_path / f"a.{form}", CONTAINERS[form])
    assert readers.order(path)[0] == readers.order(path.read_bytes())[0] == first


def test_the_table_in_the_documentation_is_this_one() -> None:
    page = (Path(__file__).parents[2] / "docs" / "modalities.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `\.(\w+)` \|", page, re.MULTILINE) == list(CONTAINERS)
