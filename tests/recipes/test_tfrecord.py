"""TFRecord files as another writer makes them, and damaged ones."""

from __future__ import annotations

import base64
import gzip
from pathlib import Path

import pytest

from mmrl.errors import UserError
from mmrl.recipes.tfrecord import examples, masked_crc

# Two Examples, written by the package `tfrecord` 1.14.6 with its crc32c.
WRITTEN = base64.b64decode(
    "cwAAAAAAAAANc3zICnEKEAoEZ29hbBIICgYKBGZpbmQKFQoHYWN0aW9ucxIKCggKAnt9CgL/AAoVCgVzaXplcxIMEgoK"
    "CAAAwD8AAADAChMKCmVwaXNvZGVfaWQSBRoDCgEHChoKBmRlbHRhcxIQGg4KDP///////////wGsAl90PqUQAAAAAAAA"
    "AJX7/hgKDgoMCgRnb2FsEgQKAgoAliObLA=="
)
FIRST = {
    "episode_id": [7],
    "goal": [b"find"],
    "actions": [b"{}", b"\xff\x00"],
    "sizes": [1.5, -2.0],
    "deltas": [-1, 300],
}


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_examples_of_another_writer(pack: type[bytes], tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(pack(WRITTEN))
    assert list(examples(tmp_path / "f")) == [FIRST, {"goal": [b""]}]


def test_the_checksum_is_crc32c() -> None:
    crc = 0xE3069283  # of b"123456789": RFC 3720's polynomial, the usual check value
    assert masked_crc(b"123456789") == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (WRITTEN[:50], "ends in the middle"),
        (WRITTEN[:5], "ends in the middle"),
        (b"{}" * 20, "not a TFRecord file"),
        (gzip.compress(WRITTEN)[:60], "f: "),
        (WRITTEN[:12] + b"\xff" * len(WRITTEN[12:]), "record 1 is no Example"),
        (WRITTEN[:14] + b"\x7f" + WRITTEN[15:], "record 1 is no Example"),
    ],
    # Not the bytes: a gzip header holds the time, and workers must collect the same names.
    ids=("body cut", "head cut", "text", "gzip cut", "body overwritten", "body damaged"),
)
def test_damaged_files_are_told(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(UserError, match=message):
        list(examples(tmp_path / "f"))
