"""Frames said are frames shown: every container, codec and reader, before and after a seek."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from mmrl.errors import MediaError
from mmrl.modalities import containers, readers, video
from mmrl.modalities.readers import Decord, Name, PyAV
from tests.modalities import clips
from tests.modalities.clips import FORMS

PAGE = Path(__file__).parents[2] / "docs" / "modalities.md"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("clips")
    return {
        name: clips.write(folder / f"{name}.{form.container}", form) for name, form in FORMS.items()
    }


def test_a_written_clip_leaves_the_process_as_it_was(tmp_path: Path) -> None:
    """As root, SVT-AV1 would make it a real-time process, with all that it starts."""
    before = os.sched_getscheduler(0), os.sched_getparam(0).sched_priority
    clips.write(tmp_path / "a.mp4", FORMS["mp4-av1"])
    assert (os.sched_getscheduler(0), os.sched_getparam(0).sched_priority) == before


@pytest.mark.parametrize("form", FORMS)
def test_frames_said_are_frames_shown(written: dict[str, Path], form: str) -> None:
    assert clips.judged(written[form], "pyav", FORMS[form]) == "yes"
    assert clips.judged(written[form], "decord", FORMS[form]) in ("yes", "refused")


@pytest.mark.parametrize("reader", readers.ORDER)
def test_the_table_in_the_documentation_is_what_the_readers_do(reader: Name) -> None:
    """`python tools/readers_table.py` writes it."""
    found = clips.judge_elsewhere(reader)
    rows = [
        line.strip("| ").split(" | ") for line in PAGE.read_text().splitlines() if " | " in line
    ]
    head = next(row for row in rows if row[:2] == ["container", "codec"])
    said = {(row[0], row[1]): row for row in rows}
    if found["reader"] not in head:
        pytest.skip(f"the table has other versions than {found['reader']}")
    for name, form in FORMS.items():
        row = said[f"`.{form.container}`", form.codec]
        assert row[head.index(found["reader"])] == found[name], name
        # A clip is read by the first reader that does not refuse it.
        if reader == "torchcodec":
            assert row[2].startswith("torchcodec") == (found[name] == "yes")
    assert len(re.findall(r"^\| `\.", PAGE.read_text(), re.MULTILINE)) == len(FORMS)


@pytest.mark.parametrize("form", ["avi", "ts", "mpg", "h264", "mp4-hidden", "mkv-cut"])
def test_a_reader_that_would_show_other_frames_gives_way_or_says_who_does_not(
    written: dict[str, Path], form: str
) -> None:
    with pytest.raises(MediaError, match=r"decord misreads .*, PyAV does not: leave media.video"):
        readers.open_video(written[form], "decord")
    assert readers.open_video(written[form], None)[1].startswith("pyav")
    assert readers.open_video(written[form].read_bytes(), None)[1].startswith("pyav")


def test_without_pyav_a_clip_is_refused_rather_than_misread(
    written: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def only_decord(name: Name) -> Any:
        if name != "decord":
            raise ImportError("not here")
        return __import__("decord")

    monkeypatch.setattr(readers, "load", only_decord)
    with pytest.raises(MediaError, match=r"decord misreads AVI.*pip install 'mmrl\[video\]'"):
        readers.open_video(written["avi"], None)


@pytest.mark.parametrize("form", FORMS)
def test_a_container_is_known_by_how_it_begins(written: dict[str, Path], form: str) -> None:
    counted = FORMS[form].container in ("avi", "ts", "m2ts", "mpg", "h264")
    assert containers.is_indexed(written[form]) is not counted
    assert containers.is_indexed(written[form].read_bytes()) is not counted
    # A stream that was cut anywhere begins with no mark at all.
    assert not containers.is_indexed(written["ts"].read_bytes()[77:])


READ: dict[str, Any] = {
    "equal": lambda times: [times[0]] * len(times),
    "falling": lambda times: times[::-1],
    "of the frame before": lambda times: [t - 1 / clips.RATE for t in times],
}


@pytest.mark.parametrize("case", READ)
@pytest.mark.parametrize("reader", [PyAV, Decord])
def test_frames_whose_times_are_not_theirs_are_refused(
    written: dict[str, Path], monkeypatch: pytest.MonkeyPatch, reader: Any, case: str
) -> None:
    """Whatever the reader: what it hands over is compared with what was asked of it."""
    plain = reader.read

    def other(self: Any, indices: Sequence[int]) -> tuple[Any, list[float]]:
        frames, times = plain(self, indices)
        return frames, READ[case](times)

    monkeypatch.setattr(reader, "read", other)
    name = reader.__name__.lower()
    arguments = video.Options(frames=3, reader=name).model_dump(mode="json")
    with pytest.raises(MediaError, match=r"do not rise|have the times of others"):
        video.read_clip(written["mp4"], arguments)


def turned(form: str, matrix: tuple[int, int, int, int], folder: Path) -> Path:
    """A clip of a bright corner whose track header has a matrix of display."""
    path = folder / f"m.{form}"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=10, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        pixels = np.full((48, 64, 3), 40, dtype=np.uint8)
        pixels[:16, :16], pixels[:16, 16:32] = 230, 130
        for _ in range(4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    path.write_bytes(clips.displayed(path.read_bytes(), matrix))
    return path


CORNERS = {
    (1, 0, 0, 1): ("top left", "across"),
    (-1, 0, 0, 1): ("top right", "across"),
    (1, 0, 0, -1): ("bottom left", "across"),
    (-1, 0, 0, -1): ("bottom right", "across"),
    (0, 1, 1, 0): ("top left", "down"),
    (0, 1, -1, 0): ("top right", "down"),
    (0, -1, 1, 0): ("bottom left", "down"),
    (0, -1, -1, 0): ("bottom right", "down"),
}
"""Where (x, y) -> (a x + c y, b x + d y) takes the file's top left corner, the brightest, and in
which direction from it the less bright patch beside it lies then."""


@pytest.mark.parametrize("matrix", CORNERS)
@pytest.mark.parametrize("form", ["mp4", "mov"])
@pytest.mark.parametrize("reader", readers.ORDER)
def test_turned_and_mirrored_clips_are_upright(
    tmp_path: Path, reader: Name, form: str, matrix: tuple[int, int, int, int]
) -> None:
    path = turned(form, matrix, tmp_path)
    try:
        readers.load(reader)
    except readers.LOAD_ERRORS as error:
        pytest.skip(str(error))
    arguments = video.Options(frames=2, reader=reader).model_dump(mode="json")
    if reader == "decord" and not matrix[0]:
        with pytest.raises(MediaError, match="misreads clips that are turned by a quarter"):
            video.read_clip(path, arguments)
        return
    header, (frames,) = video.read_clip(path, arguments)
    corner, along = CORNERS[matrix]
    assert header["size"] == ((64, 48) if along == "across" else (48, 64))
    grey = frames[1, :, :, 0]
    grey = grey[::-1] if corner.startswith("bottom") else grey
    grey = grey[:, ::-1] if corner.endswith("right") else grey
    assert grey[8, 8] > 200
    assert 100 < (grey[8, 24] if along == "across" else grey[24, 8]) < 160


def test_a_broken_track_header_is_no_matrix() -> None:
    for held in (b"", b"\0\0\0\x08moov", b"\0\0\0\x01moov", b"\0\0\0\0moov\0\0\0\x02trak"):
        assert containers.display_matrix(held) == (1, 0, 0, 1)
