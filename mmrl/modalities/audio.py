"""Audio files and the sound of containers -> one channel at the model's rate."""

from __future__ import annotations

import hashlib
from typing import Literal

from pydantic import Field

from mmrl.errors import MediaError
from mmrl.frame import Frame
from mmrl.modalities import decode_worker, sound
from mmrl.modalities import options as opts
from mmrl.modalities.sound import Samples
from mmrl.modalities.source import resolve
from mmrl.types import Media, MediaRef


class Options(opts.Options):
    rate: int = Field(16_000, gt=0, description="samples a second that the model takes")
    start: float = Field(0.0, ge=0, description="start of the segment in seconds")
    end: float | None = Field(None, gt=0, description="end of the segment; default: of the file")
    min_seconds: float = Field(0.02, ge=0, description="shorter sounds are refused")
    max_seconds: float = Field(600.0, gt=0, description="length limit of the segment")
    too_long: Literal["fail", "cut"] = Field("fail", description="beyond max_seconds")


def decode(ref: MediaRef) -> Media:
    """Read sound as float32 [samples] at the wanted rate, channels averaged.

    The Frame's `seconds` are the segment's start and end in the file. Raises MediaError for a
    missing, damaged, empty or too long file, or a segment outside it.
    """
    options = opts.of(ref, Options)
    end = _end(options)
    samples, rate, length, reader = _read(ref, options, end)
    if options.start >= length > 0:
        raise MediaError(f"segment starts at {options.start:g} s of {length:g} s")
    heard = sound.mono(samples)
    seconds = len(heard) / rate
    if seconds < options.min_seconds:
        raise MediaError(f"audio of {seconds:g} s is under min_seconds={options.min_seconds:g}")
    if seconds > options.max_seconds:
        if options.too_long == "fail":
            raise MediaError(
                f"audio of {max(length - options.start, seconds):g} s is over "
                f"max_seconds={options.max_seconds:g}: give a segment, or set too_long: cut"
            )
        heard = heard[: round(options.max_seconds * rate)]
    array = sound.resample(heard, rate, options.rate)
    frame = Frame(seconds=(options.start, options.start + len(heard) / rate), reader=reader)
    return Media("audio", array, frame, sample_hash(array), rate=options.rate)


def sample_hash(array: Samples) -> str:
    """A hash of the samples as the model takes them."""
    return hashlib.sha256(repr((array.shape, "audio")).encode() + array.tobytes()).hexdigest()


def _end(options: Options) -> float:
    """Where to stop reading: a little past the limit, so that what is too long is noticed."""
    limit = options.start + options.max_seconds + 1.0
    if options.end is None:
        return limit
    if options.end <= options.start:
        raise MediaError(f"segment ends at {options.end:g} s, before it starts")
    return min(options.end, limit)


def _read(ref: MediaRef, options: Options, end: float) -> tuple[Samples, int, float, str]:
    source = resolve(ref, options)
    found = sound.read_file(source, options.start, end)
    if found is not None:
        return found
    arguments = {"start": options.start, "end": end}
    header, arrays = decode_worker.run(
        "mmrl.modalities.sound:read_container", source, arguments, options.timeout_seconds
    )
    if not arrays:
        raise MediaError("no audio stream in the file")
    (samples,) = arrays
    length = header["length"] or options.start + len(samples) / header["rate"]
    return samples, header["rate"], length, header["reader"]
