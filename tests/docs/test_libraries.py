"""What docs/libraries.md says mmrl does about other libraries: the tests that it names exist."""

from __future__ import annotations

import io
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from mmrl.modalities import readers
from mmrl.modalities.video import decode
from mmrl.records import media_source
from mmrl.types import MediaRef, Record

ROOT = Path(__file__).resolve().parents[2]


def test_every_test_that_the_page_names_exists() -> None:
    page = (ROOT / "docs" / "libraries.md").read_text("utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page)
    assert len(named) == page.count("::") > 25
    for file, test in named:
        assert f"def {test}(" in (ROOT / file).read_text("utf-8"), f"{file}::{test}"
    for entry in page.split("\n### ")[1:]:
        nothing = re.search(r"\*\*Here:\*\* (Nothing|No |The dependency|There is no)", entry)
        assert "Held by" in entry or nothing or "not concerned" in entry, entry.splitlines()[0]


def test_the_bytes_of_a_row_win_over_a_file_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "0.png").write_bytes(b"another picture")
    monkeypatch.chdir(tmp_path)
    row = {"bytes": b"the row's own", "path": "0.png"}
    assert media_source(Record("1", {}, tmp_path), row) == b"the row's own"


def varying_clip() -> bytes:
    """Twenty frames of grey 10 i: ten of them 0.1 s apart, then ten 1 s apart."""
    av = pytest.importorskip("av")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(20):
            pixels = np.full((48, 64, 3), 10 * i, dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            seconds = Fraction(i, 10) if i < 10 else Fraction(9, 10) + (i - 9)
            frame.pts, frame.time_base = round(seconds * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


@pytest.mark.parametrize("reader", readers.ORDER)
def test_a_clip_of_varying_rate_is_the_same_through_every_reader(reader: readers.Name) -> None:
    """By hand: the frames that are nearest to 0, 3.63, 7.27 and 10.9 s, and when each is shown."""
    try:
        readers.load(reader)
    except readers.LOAD_ERRORS as error:
        pytest.skip(f"{reader}: {error}")
    media = decode(MediaRef("video", varying_clip(), {"reader": reader, "frames": 4}))
    assert media.frame.indices == (0, 12, 15, 19)
    assert media.frame.seconds == pytest.approx((0.0, 3.9, 6.9, 10.9), abs=2e-3)
    assert media.array[:, 20, 20, 0].tolist() == pytest.approx([0, 120, 150, 190], abs=4)
