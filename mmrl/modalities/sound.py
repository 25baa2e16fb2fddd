"""Sound decoding: one channel of float32 samples, cut to a segment, at the wanted rate."""

from __future__ import annotations

import importlib
import importlib.util
import io
from collections.abc import Mapping
from math import ceil, floor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmrl.errors import MediaError
from mmrl.modalities import readers

Samples = npt.NDArray[np.float32]
Source = Path | bytes


def read_file(
    source: Source, start: float, end: float | None
) -> tuple[Samples, int, float, str] | None:
    """Read with soundfile; None where it does not know the format.

    Returns samples [n, channels] of [start, end) seconds, their rate, the whole length in seconds
    and the reader.
    """
    try:
        soundfile: Any = importlib.import_module("soundfile")
    except (ImportError, OSError):
        return None
    opened = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        file = soundfile.SoundFile(opened)
    except soundfile.LibsndfileError:
        return None
    with file:
        rate, total = int(file.samplerate), int(file.frames)
        first = min(round(start * rate), total)
        last = total if end is None else min(round(end * rate), total)
        try:
            file.seek(first)
            samples: Samples = file.read(max(last - first, 0), dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise MediaError(f"damaged audio: {error}") from None
    return samples, rate, total / rate, f"soundfile {soundfile.__version__}"


def read_container(
    source: Path | bytes, arguments: Mapping[str, Any]
) -> tuple[dict[str, Any], list[Samples]]:
    """Read a container's sound in a decoding child: samples [n, channels] of [start, end).

    torchcodec where it is installed, else PyAV. Seconds count from the first sample, or, with
    `of_video`, from the first frame of the container's video: sound may set in before or after it.
    The header has the rate, the whole length in seconds, when the first sample that is given is
    heard, and the reader. A container without sound gives no array.
    """
    start, end = float(arguments["start"]), arguments["end"]
    of_video = bool(arguments.get("of_video"))
    try:
        decoders = readers.load_torchcodec()
    except readers.LOAD_ERRORS:
        return _with_pyav(source, start, end, of_video)
    try:
        decoder = decoders.AudioDecoder(source)
        video = decoders.VideoDecoder(source) if of_video else None
    except Exception as error:
        # It says of a silent file only that it cannot decide on a stream: PyAV knows.
        if importlib.util.find_spec("av"):
            return _with_pyav(source, start, end, of_video)
        raise MediaError(f"not readable audio: {' '.join(str(error).split())[:200]}") from None
    found = decoder.metadata
    length = float(found.duration_seconds or 0.0)
    begin = float(found.begin_stream_seconds or 0.0)
    zero = float(video.metadata.begin_stream_seconds or 0.0) if video else begin
    if length and start + zero >= begin + length:
        if of_video:
            return _header(int(found.sample_rate), length, start, "torchcodec"), [_NO_SAMPLES]
        raise MediaError(f"segment starts at {start:g} s of {length:g} s")
    stop = None if end is None else zero + float(end)
    if stop is not None and stop <= begin:
        return _header(int(found.sample_rate), length, float(end), "torchcodec"), [_NO_SAMPLES]
    heard = decoder.get_samples_played_in_range(max(zero + start, begin), stop)
    header = _header(int(heard.sample_rate), length, heard.pts_seconds - zero, "torchcodec")
    return header, [heard.data.numpy().T]


_NO_SAMPLES: Samples = np.zeros((0, 1), dtype=np.float32)


def _header(rate: int, length: float, first: float, package: str) -> dict[str, Any]:
    from importlib.metadata import version

    reader = f"{package} {version(package)}"
    return {"rate": rate, "length": length, "first": max(first, 0.0), "reader": reader}


def _with_pyav(
    source: Path | bytes, start: float, end: float | None, of_video: bool
) -> tuple[dict[str, Any], list[Samples]]:
    try:
        av: Any = importlib.import_module("av")
    except ImportError:
        raise MediaError("no audio reader: pip install 'mmrl[audio]' or 'mmrl[video]'") from None
    opened = io.BytesIO(source) if isinstance(source, bytes) else str(source)
    try:
        with av.open(opened) as container:
            stream = container.streams.best("audio")
            if stream is None:
                return {}, []
            shown = container.streams.best("video") if of_video else None
            zero = None
            if shown is not None and shown.start_time is not None:
                zero = float(shown.start_time * shown.time_base)
            to_float = av.AudioResampler(format="fltp")
            frames = [out for f in container.decode(stream) for out in to_float.resample(f)]
    except av.FFmpegError as error:
        raise MediaError(f"not readable audio: {error}") from None
    if not frames:
        raise MediaError("no samples in the audio")
    samples: Samples = np.concatenate([f.to_ndarray().T for f in frames])
    rate = int(frames[0].sample_rate)
    # When the sound sets in, on the clock that seconds are asked by.
    begin = 0.0 if zero is None or frames[0].time is None else frames[0].time - zero
    first = max(floor((start - begin) * rate), 0)
    last = len(samples) if end is None else max(ceil((end - begin) * rate), 0)
    header = _header(rate, len(samples) / rate, max(start, begin), "av")
    return header, [samples[first:last]]


def mono(samples: Samples) -> Samples:
    """Mean of the channels of [n, channels]; raises MediaError on numbers that are no sound."""
    mixed: Samples = samples.mean(axis=1, dtype=np.float32)
    if not np.isfinite(mixed).all():
        raise MediaError("audio has samples that are not finite")
    return mixed


def resample(samples: Samples, rate: int, wanted: int) -> Samples:
    """Resample [n] with torchaudio's windowed-sinc filter."""
    if rate == wanted or not len(samples):
        return samples
    import torch
    from torchaudio import functional

    resampled: Samples = functional.resample(torch.from_numpy(samples.copy()), rate, wanted).numpy()
    return resampled
