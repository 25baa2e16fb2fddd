"""TFRecord files of `tf.train.Example`, plain or gzipped, without TensorFlow.

Format: https://www.tensorflow.org/tutorials/load_data/tfrecord and example.proto, feature.proto.
"""

from __future__ import annotations

import gzip
import struct
from collections.abc import Iterator
from io import BufferedIOBase
from pathlib import Path
from typing import Any

from mmrl.errors import UserError

MAX_RECORD_BYTES = 1 << 30
_LENGTH, _VARINT, _FIXED64, _BYTES, _FIXED32 = 12, 0, 1, 2, 5
_STRINGS, _FLOATS, _INTEGERS = 1, 2, 3  # fields of a Feature
_POLYNOMIAL = 0x82F63B78  # CRC-32C, reflected


def examples(path: Path) -> Iterator[dict[str, list[Any]]]:
    """Examples of a file in order: feature name -> list of bytes, floats or integers.

    A file that is no TFRecord or ends in the middle of one raises UserError.
    """
    with path.open("rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
    with gzip.open(path) if zipped else path.open("rb") as file:
        try:
            for number, record in enumerate(_records(file), 1):
                try:
                    yield _example(record)
                except (ValueError, IndexError, struct.error) as error:
                    raise UserError(f"{path}: record {number} is no Example: {error}") from None
        except (EOFError, OSError, ValueError) as error:
            raise UserError(f"{path}: {error}") from None


def _records(file: BufferedIOBase) -> Iterator[bytes]:
    while head := file.read(_LENGTH):
        if len(head) < _LENGTH:
            raise ValueError("ends in the middle of a record")
        (size, check) = struct.unpack("<QI", head)
        if check != masked_crc(head[:8]) or size > MAX_RECORD_BYTES:
            raise ValueError("not a TFRecord file, or a damaged one")
        body = file.read(size + 4)  # the checksum of the data follows it; decoding finds damage
        if len(body) < size + 4:
            raise ValueError("ends in the middle of a record")
        yield body[:size]


def masked_crc(data: bytes) -> int:
    """The checksum TFRecord keeps of a record's length."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (_POLYNOMIAL if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _example(data: bytes) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for _, features in _fields(data):
        for _, entry in _fields(_bytes(features)):
            pair = dict(_fields(_bytes(entry)))
            name = _bytes(pair[1]).decode("utf-8")
            found[name] = _feature(_bytes(pair.get(2, b"")))
    return found


def _feature(data: bytes) -> list[Any]:
    for kind, content in _fields(data):
        values = [value for field, value in _fields(_bytes(content)) if field == 1]
        if kind == _STRINGS:
            return [_bytes(value) for value in values]
        if kind == _FLOATS:
            return [x for v in values for (x,) in struct.iter_unpack("<f", _bytes(v))]
        if kind == _INTEGERS:
            return [x for v in values for x in ([_signed(v)] if isinstance(v, int) else _ints(v))]
    return []


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Numbers and contents of a protocol buffer message's fields."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        size = {_FIXED64: 8, _FIXED32: 4}.get(key & 7, 0)
        if key & 7 == _VARINT:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if key & 7 == _BYTES:
            size, at = _varint(data, at)
        if not size and key & 7 != _BYTES:
            raise ValueError(f"wire type {key & 7}")
        if at + size > len(data):
            raise ValueError("a field is longer than its message")
        yield key >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
    raise ValueError("a number of more than 64 bits")


def _ints(data: bytes) -> Iterator[int]:
    at = 0
    while at < len(data):
        value, at = _varint(data, at)
        yield _signed(value)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _bytes(value: bytes | int) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number where a message is expected")
    return value
