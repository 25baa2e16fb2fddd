"""Images of any mode arrive upright in RGB; bad ones are refused with the reason."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmrl.errors import MediaError
from mmrl.modalities import decode_worker
from mmrl.modalities.image import decode
from mmrl.rewards.masks import read_mask
from mmrl.types import MediaRef
from tests.modalities.test_video import real


def png(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


def read(source: bytes | Path | str) -> np.ndarray:
    return decode(MediaRef("image", source)).array


def test_rotation_flag_is_applied() -> None:
    image = Image.new("RGB", (40, 20), "white")
    image.putpixel((0, 0), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn 90 degrees clockwise to see it upright
    media = decode(MediaRef("image", png(image, exif=exif)))
    assert media.array.shape == (40, 20, 3)
    assert media.frame.source_size == (20, 40)
    assert tuple(media.array[0, 19]) == (255, 0, 0)


def test_transparency_lies_over_white() -> None:
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 255, 255))
    assert read(png(image)).tolist() == [[[255, 255, 255], [0, 0, 255]]]


def test_palette_with_transparency() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    assert read(png(image, transparency=0)).tolist() == [[[255, 255, 255], [40, 50, 60]]]


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    grey = np.array([[0, 257 * 100, 65535]], dtype=np.uint16)
    assert read(png(Image.fromarray(grey)))[0, :, 0].tolist() == [0, 100, 255]


def test_cmyk_jpeg() -> None:
    buffer = io.BytesIO()
    Image.new("CMYK", (4, 4), (0, 255, 255, 0)).save(buffer, "JPEG")
    red, green, blue = read(buffer.getvalue())[0, 0].tolist()
    assert red > 200 and green < 60 and blue < 60


def test_same_pixels_have_the_same_hash_and_others_do_not() -> None:
    image = Image.new("RGB", (4, 2), "white")
    wide, tall = png(image), png(image.transpose(Image.Transpose.ROTATE_90))
    small = png(image, compress_level=0)
    hashes = [decode(MediaRef("image", data)).hash for data in (wide, small, tall)]
    assert hashes[0] == hashes[1] != hashes[2]


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header promises far more pixels than the file holds."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (b"", "empty image file"),
        (b"not an image", "not a readable image"),
        (png(Image.effect_noise((64, 64), 50))[:600], "damaged image"),
        (bomb(60_000, 60_000), "3600000000|over"),
        (bomb(9_000, 9_000), "over 64000000"),
        (Path("/nonexistent/a.png"), "no image at"),
        (png(Image.new("RGB", (10_000, 10))), "max_aspect_ratio"),
        ("https://example.org/a.png", "remote media are refused"),
        ("ftp://example.org/a.png", "not a path or"),
    ],
    ids=["empty", "text", "truncated", "bomb", "large", "missing", "thread", "remote", "ftp"],
)
def test_bad_images_are_refused_with_the_reason(source: bytes | Path | str, reason: str) -> None:
    with pytest.raises(MediaError, match=reason):
        read(source)


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n0 0 9 9 rectfill\n%%EOF\n"


def test_a_format_that_another_program_draws_is_refused_whatever_its_name(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(POSTSCRIPT)
    for source in (tmp_path / "a.png", POSTSCRIPT):
        with pytest.raises(MediaError, match="not a readable image: it is in none of AVIF"):
            read(source)
        with pytest.raises(ValueError, match="not a readable picture"):
            read_mask(source)


@pytest.mark.parametrize("name", ["a" * 5000 + ".png", "a\0b.png"])
def test_a_path_that_no_file_can_have_is_the_mediums_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(MediaError, match="image"):
        read(tmp_path / name)


@pytest.mark.parametrize("format_name", ["AVIF", "BMP", "GIF", "JPEG2000", "PCX", "TGA", "TIFF"])
@pytest.mark.parametrize("kept", [0.2, 0.6, 0.9])
def test_whatever_a_decoder_raises_is_the_mediums_error(format_name: str, kept: float) -> None:
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 50).convert("RGB").save(buffer, format_name)
    cut = buffer.getvalue()[: int(len(buffer.getvalue()) * kept)]
    with pytest.raises(MediaError):
        read(cut)


def test_a_picture_that_takes_for_ever_is_stopped_at_its_deadline(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "never.png")
    source = tmp_path / "never.png"
    with pytest.raises(MediaError, match=r"took over 0\.5 s and was stopped"):
        decode_worker.run("mmrl.modalities.image:read_picture", source, {}, 0.5)


INTERRUPTED = """
import os, signal, sys, time
from pathlib import Path
from mmrl.modalities import image
from mmrl.types import MediaRef
signal.signal(signal.SIGINT, lambda number, frame: None)
ref = MediaRef("image", Path(sys.argv[1]))
image.decode(ref)
os.killpg(0, signal.SIGINT)
time.sleep(0.5)
image.decode(ref)
"""


def test_a_decoder_does_not_hear_a_terminals_interrupt(tmp_path: Path) -> None:
    """Ctrl-C goes to all processes of a group; a run then finishes its step, decoding included."""
    (tmp_path / "a.png").write_bytes(png(Image.new("RGB", (8, 8))))
    command = [sys.executable, "-c", INTERRUPTED, str(tmp_path / "a.png")]
    done = subprocess.run(command, capture_output=True, text=True, start_new_session=True)
    assert done.returncode == 0, done.stderr


def test_a_folder_is_not_an_image(tmp_path: Path) -> None:
    with pytest.raises(MediaError):
        read(tmp_path)


# Real files, where MMRL_TEST_DATA names the folder that holds them.


@pytest.mark.parametrize("name", ["cmyk.jpg", "gradient.jpg"])
def test_real_jpegs_of_one_picture_look_the_same(name: str) -> None:
    """Inks in CMYK, inverted as Adobe writes them, are the colours of the lossless file."""
    found, wanted = read(real(name)).astype(int), read(real("gradient.png")).astype(int)
    assert found.shape == wanted.shape == (720, 1280, 3)
    assert np.abs(found - wanted).mean() < 2
    assert found[0, 0].max() < 10 and found[-1, -1].min() > 245


def test_a_real_grey_picture_has_three_equal_channels() -> None:
    found = read(real("grayscale.png"))
    assert (found == found[..., :1]).all() and found.std() > 10


def test_a_real_jpeg_that_is_corrupt_is_refused() -> None:
    with pytest.raises(MediaError, match="damaged image"):
        read(real("corrupt.jpg"))


@pytest.mark.parametrize(
    ("values", "expected", "said"),
    [
        (np.array([[0, 4095]], np.uint16), [0, 255], "greys from 0 to 4095"),
        (np.array([[0, 1023]], np.uint16), [0, 255], "greys from 0 to 1023"),
        (np.array([[0, 65535]], np.uint16), [0, 255], "greys from 0 to 65535"),
        (np.array([[0, 255]], np.uint16), [0, 255], "greys from 0 to 255"),
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255], "greys from 0 to 1"),
        (np.array([[-1.0, 0.0, 1.0]], np.float32), [0, 128, 255], "greys from -1 to 1"),
        (np.array([[-0.02, 0.0, 1.0, 1.02]], np.float32), [0, 0, 255, 255], "greys from 0 to 1"),
        (np.array([[0.0, 1.0 + 1e-6]], np.float32), [0, 255], "greys from 0 to 1"),
        (np.array([[-0.2, 0.2]], np.float32), [102, 153], "greys from -1 to 1"),
        (np.array([[-1.1, 1.1]], np.float32), [0, 255], "greys from -1 to 1"),
        (np.array([[0.0, 1.3]], np.float32), [0, 1], "greys from 0 to 255"),
        (np.array([[0.0, 255.0]], np.float32), [0, 255], "greys from 0 to 255"),
        (np.array([[-1000, 0, 3000]], np.int32), [0, 64, 255], "greys from -1000 to 3000"),
    ],
)
def test_greys_are_read_in_the_least_range_that_holds_them(
    tmp_path: Path, values: Any, expected: list[int], said: str
) -> None:
    Image.fromarray(values).save(tmp_path / "a.tif")
    media = decode(MediaRef("image", tmp_path / "a.tif"))
    assert media.array[0, :, 0].tolist() == expected
    assert media.frame.reader == said
