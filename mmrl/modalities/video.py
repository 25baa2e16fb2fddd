"""Video -> frames within a budget, each with its number and time in the source, and its sound.

Decoding happens in a child process with a deadline. Frames are chosen by when they are shown,
evenly over the clip, first and last included: where the rate is constant that is evenly by number,
as the model families' own processors choose them.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image
from pydantic import Field

from mmrl.errors import MediaError
from mmrl.frame import Frame
from mmrl.modalities import decode_worker, image, readers, sound
from mmrl.modalities import options as opts
from mmrl.modalities.readers import Name, Pixels, Reader
from mmrl.modalities.sound import Samples
from mmrl.modalities.source import resolve
from mmrl.types import Media, MediaRef, MediaSource

SHORTEST_SECONDS = 1e-3
SAME_SECONDS = 1e-6
"""Times are rounded to the file's own clock."""


class Options(opts.Options):
    reader: Name | None = Field(None, description="default: the first that reads the file rightly")
    fps: float = Field(2.0, gt=0, description="frames a second of the clip")
    frames: int | None = Field(None, gt=0, description="number of frames, instead of fps")
    min_frames: int = Field(2, gt=0, description="frames of a short clip")
    max_frames: int = Field(128, gt=0, description="frames of a long clip")
    start: float = Field(0.0, ge=0, description="start of the clip in seconds")
    end: float | None = Field(None, gt=0, description="end of the clip; default: of the video")
    max_seconds: float = Field(3600.0, gt=0, description="length limit of the clip")
    max_frame_pixels: int = Field(602_112, gt=0, description="larger frames are scaled down")
    max_total_pixels: int = Field(90_316_800, gt=0, description="of all frames together")
    max_aspect_ratio: float = Field(
        200.0, ge=1, description="longer side of a frame over the shorter; above it is refused"
    )
    audio: Literal[False, True, "auto"] = Field(
        False, description="also take the video's own sound; `auto`: where it has one"
    )
    rate: int = Field(16_000, gt=0, description="samples a second of that sound")
    shuffle: int | None = Field(
        None, ge=0, description="show the frames in another order, drawn by this number"
    )


def decode(ref: MediaRef) -> Media:
    """Read a clip as uint8 [frames, H, W, 3], and its sound where asked for.

    The Frame says which frames these are in the source and when they are shown. Raises MediaError
    for a damaged or too long video, a decoder that hangs, a clip outside the video, and sound that
    is asked for and not there.
    """
    options = opts.of(ref, Options)
    if options.shuffle is not None:
        return _shuffled(decode(_in_order(ref)), options.shuffle)
    if isinstance(ref.source, tuple):
        return _of_stills(ref.source, options)
    source = resolve(ref, options)
    arguments = options.model_dump(mode="json")
    header, (array,) = decode_worker.run(
        f"{__name__}:read_clip", source, arguments, options.timeout_seconds
    )
    frame = Frame(
        source_size=tuple(header["size"]),
        seconds=tuple(header["seconds"]),
        indices=tuple(header["indices"]),
        fps=header["fps"],
        reader=header["reader"],
    )
    track = _track(source, options, header["clip"]) if options.audio else None
    if track is None and options.audio is True:
        raise MediaError("no audio stream in the file (media.video.audio=auto takes silent clips)")
    rate = 0 if track is None else options.rate
    return Media("video", array, frame, _hash(array, frame, track), track=track, rate=rate)


def _in_order(ref: MediaRef) -> MediaRef:
    kept = {name: value for name, value in ref.options.items() if name != "shuffle"}
    return replace(ref, options=kept)


def _shuffled(media: Media, seed: int) -> Media:
    """The clip with its frames in another order, shown at the times of those in order.

    A clip of one frame stays as it is.
    """
    rng, count = np.random.default_rng(seed), len(media.array)
    order = np.arange(count)
    while count > 1 and (order == np.arange(count)).all():
        order = rng.permutation(count)
    indices = tuple(media.frame.indices[int(i)] for i in order)
    frame = replace(media.frame, indices=indices)
    array = np.ascontiguousarray(media.array[order])
    return replace(media, array=array, frame=frame, hash=_hash(array, frame, media.track))


def _of_stills(sources: Sequence[MediaSource], options: Options) -> Media:
    """A clip given by its frames, `fps` of them a second: all are shown, up to the budget."""
    if options.audio is True:
        raise MediaError(
            "a clip given by its frames has no sound (media.video.audio=auto takes it)"
        )
    last = len(sources) / options.fps if options.end is None else options.end
    inside = [i for i in range(len(sources)) if options.start <= i / options.fps < last]
    if not inside:
        raise MediaError(
            f"none of {len(sources)} frames is in the clip {options.start:g} to {last:g} s"
        )
    count = min(options.frames or len(inside), options.max_frames, len(inside))
    indices = [inside[int(i)] for i in np.linspace(0, len(inside) - 1, count).round()]
    shared = {name: getattr(options, name) for name in opts.Options.model_fields}
    stills = [image.decode(MediaRef("image", sources[i], shared)) for i in indices]
    sizes = {still.array.shape for still in stills}
    if len(sizes) > 1:
        raise MediaError(f"frames of {len(sizes)} sizes in one clip")
    array = _scaled(np.stack([still.array for still in stills]), options)
    frame = Frame(
        source_size=stills[0].frame.source_size,
        seconds=tuple(i / options.fps for i in indices),
        indices=tuple(indices),
        fps=options.fps,
        reader="frames",
    )
    return Media("video", array, frame, _hash(array, frame, None))


def _hash(array: Pixels, frame: Frame, track: Samples | None) -> str:
    digest = hashlib.sha256(repr((array.shape, "video", frame.seconds)).encode())
    digest.update(array.data)
    digest.update(b"" if track is None else track.tobytes())
    return digest.hexdigest()


def read_clip(source: Path | bytes, arguments: Mapping[str, Any]) -> decode_worker.Decoded:
    """Choose, decode and scale down a clip's frames; runs in a decoding child."""
    options = Options.model_validate(arguments)
    reader, label = readers.open_video(source, options.reader)
    first, last, clip = _clip(reader, options)
    indices = choose(reader.times[first : last + 1], first, clip[1] - clip[0], options)
    try:
        frames, seconds = reader.read(indices)
    except MediaError:
        raise
    except Exception as error:  # decoders raise anything on damaged files
        reason = " ".join(str(error).split())[:200]
        raise MediaError(f"damaged video: {reason}") from None
    _check_times(seconds, [reader.times[i] for i in indices], reader.times, label)
    height, width = frames.shape[1:3]
    if max(width, height) > options.max_aspect_ratio * min(width, height):
        raise MediaError(f"frames of {width} x {height} pixels are over max_aspect_ratio")
    header = {
        "size": (width, height),
        "fps": len(reader.times) / (reader.seconds or SHORTEST_SECONDS),
        "reader": label,
        "indices": indices,
        "seconds": seconds,
        "clip": clip,
    }
    return header, [_scaled(frames, options)]


def _check_times(
    shown: Sequence[float], asked: Sequence[float], times: Sequence[float], label: str
) -> None:
    """Raise MediaError where the frames' times do not rise, or are those of other frames."""
    if any(later <= sooner for sooner, later in itertools.pairwise(shown)):
        raise MediaError(f"the times of the frames do not rise ({label}): which they are is unsure")
    apart = min((b - a for a, b in itertools.pairwise(times)), default=math.inf)
    if any(abs(a - b) > apart / 2 for a, b in zip(shown, asked, strict=True)):
        raise MediaError(f"the frames have the times of others ({label}): which they are is unsure")


def choose(times: Sequence[float], first: int, seconds: float, options: Options) -> list[int]:
    """Frame numbers, counted from `first`, evenly in time over a clip of frames shown at `times`.

    The first and the last are included. Of two frames equally near to a time the earlier is taken;
    fewer than the budget allows where few frames are shown for long.
    """
    wanted = options.frames or round(seconds * options.fps)
    count = min(max(wanted, options.min_frames), options.max_frames, len(times))
    chosen = set()
    for wish in np.linspace(times[0], times[-1], count):
        later = bisect.bisect_left(times, wish)
        sooner = max(later - 1, 0)
        later = min(later, len(times) - 1)
        nearer = times[later] - wish < wish - times[sooner] - SAME_SECONDS
        chosen.add(first + (later if nearer else sooner))
    return sorted(chosen)


def _clip(reader: Reader, options: Options) -> tuple[int, int, tuple[float, float]]:
    """Numbers of the first and last frame of the clip, and its start and end in seconds."""
    # A file may not say how long its only frame is shown.
    length = reader.seconds or SHORTEST_SECONDS
    end = length if options.end is None else min(options.end, length)
    if options.start >= end:
        raise MediaError(
            f"clip {options.start:g} to {end:g} s is not inside a video of {length:g} s"
        )
    if end - options.start > options.max_seconds:
        raise MediaError(
            f"clip of {end - options.start:g} s is over max_seconds={options.max_seconds:g}: "
            "give a start and an end"
        )
    whole = len(reader.times)
    first = bisect.bisect_left(reader.times, options.start - SAME_SECONDS)
    last = (
        bisect.bisect_left(reader.times, end - SAME_SECONDS) if options.end is not None else whole
    )
    # A clip between two frames shows the one before it.
    first = min(first, whole - 1)
    return first, max(first, last - 1), (options.start, end)


def _scaled(frames: Pixels, options: Options) -> Pixels:
    """Scale frames [n, H, W, 3] down to the pixel budgets, sides kept in proportion."""
    count, height, width = frames.shape[:3]
    budget = min(options.max_frame_pixels, options.max_total_pixels // count)
    if height * width <= budget:
        return frames
    scale = math.sqrt(budget / (height * width))
    size = (max(1, math.floor(width * scale)), max(1, math.floor(height * scale)))
    small = [Image.fromarray(f).resize(size, Image.Resampling.BICUBIC) for f in frames]
    return np.stack([np.asarray(image) for image in small])


def _track(source: Path | bytes, options: Options, clip: tuple[float, float]) -> Samples | None:
    """The clip's sound from its start to its end; silence where the sound sets in later.

    None where the file has no sound at all.
    """
    header, found = decode_worker.run(
        "mmrl.modalities.sound:read_container",
        source,
        {"start": clip[0], "end": clip[1], "of_video": True},
        options.timeout_seconds,
    )
    if not found:
        return None
    heard = sound.resample(sound.mono(found[0]), header["rate"], options.rate)
    late = round(max(header["first"] - clip[0], 0.0) * options.rate)
    track = np.concatenate([np.zeros(late, dtype=np.float32), heard])
    return track[: math.ceil((clip[1] - clip[0]) * options.rate)]
