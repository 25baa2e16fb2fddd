"""Media as a processor's arguments, whatever the processor, and small ones to try it with."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mmrl.errors import MediaError
from mmrl.frame import Frame
from mmrl.modalities import sound
from mmrl.policy.families import composed
from mmrl.types import EncodedMedium, Media, MediaKind, MediaRef, Sample, Text

RAW = "raw"
"""The one tensor of a medium that has not been through the processor yet."""
RATE = 16_000
PARTS: Mapping[MediaKind, tuple[str, ...]] = {
    "image": ("image_processor",),
    "video": ("video_processor",),
    "audio": ("feature_extractor", "audio_processor"),
}
"""What a processor has one of, where it takes a kind of media."""
TROUBLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What a processor or model that nobody here has looked at may raise on a trial input."""


def arguments(
    processor: Any, media: Sequence[Media], nested: bool, copies: int = 1
) -> dict[str, Any]:
    """Keyword arguments for all media of a prompt, for so many copies of it."""
    found: dict[str, Any] = {}
    pictures = [Image.fromarray(m.array) for m in media if m.kind in ("image", "screenshot")]
    if pictures:
        found["images"] = [pictures] * copies if nested else pictures * copies
    clips = [composed.videos(m) for m in media if m.kind == "video"]
    if clips:
        taken = inspect.signature(processor.__call__).parameters
        name = "images" if "images" in taken and "videos" not in taken else "videos"
        settings = dict(clips[0]["videos_kwargs"])
        metadata = [clip["videos_kwargs"]["video_metadata"][0] for clip in clips]
        found[name] = [clip["videos"][0] for clip in clips] * copies
        if name == "videos":
            found["videos_kwargs"] = settings | {"video_metadata": metadata * copies}
    heard = [m for m in media if m.kind == "audio"]
    if heard:
        rate = rate_of(processor)
        taken = inspect.signature(processor.__call__).parameters
        found["audios" if "audios" in taken else "audio"] = [
            sound.resample(m.array, m.rate, rate) for m in heard
        ] * copies
    return found


def processed(
    processor: Any, text: str, media: Sequence[Media], nested: bool, copies: int = 1
) -> dict[str, Any]:
    """What a processor makes of copies of a chat and its media; `input_ids` [copies, L] are of it.

    Those that write behind an encoder of pictures may name them otherwise, or take no text.
    """
    given = arguments(processor, media, nested, copies)
    words = {"text": [text] * copies, "add_special_tokens": False}
    takes_text = "text" in inspect.signature(processor.__call__).parameters
    out = dict(processor(return_tensors="pt", **(words if takes_text else {}), **given))
    if "input_ids" not in out:
        ids = out.pop("decoder_input_ids", None)
        out["input_ids"] = processor.tokenizer(**words)["input_ids"] if ids is None else ids
    out["input_ids"] = torch.as_tensor(out["input_ids"])
    return out


def rate_of(processor: Any) -> int:
    """Samples a second that the processor's feature extractor hears."""
    for part in ("feature_extractor", "audio_processor"):
        rate = getattr(getattr(processor, part, None), "sampling_rate", None)
        if rate:
            return int(rate)
    return RATE


def trial(kind: MediaKind, number: int, size: int | None = None) -> Media:
    """A small medium of noise; each number has a size of its own, unless it is given another's."""
    rng, name = np.random.default_rng(number), f"trial {kind} {number}"
    number = number if size is None else size
    if kind == "audio":
        count = RATE * (4 + number) // 4
        samples = rng.normal(scale=0.1, size=count).astype(np.float32)
        heard = Frame(seconds=(0.0, count / RATE))
        return Media(kind, samples, heard, name, rate=RATE)
    width, height = 84 + 28 * number, 84
    if kind == "video":
        frames = 4 + 2 * number
        pixels = rng.integers(0, 256, (frames, height, width, 3), dtype=np.uint8)
        indices = tuple(range(0, 10 * frames, 10))
        seconds = tuple(i / 20 for i in indices)
        frame = Frame((width, height), seconds=seconds, indices=indices, fps=20.0)
        return Media(kind, pixels, frame, name)
    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Media(kind, pixels, Frame((width, height)), name)


def trials(takes: Sequence[MediaKind]) -> list[tuple[Media, ...]]:
    """Media of prompts of every shape, with one of a kind or none twice."""
    kinds = [kind for kind in takes if kind != "screenshot"]
    found: list[tuple[Media, ...]] = []
    found += [(trial(kind, 0),) for kind in kinds] * 2
    found += [(trial(kind, 1), trial(kind, 2)) for kind in kinds]
    if len(kinds) > 1:
        found.append(tuple(trial(kind, 3) for kind in kinds))
    return [*found, (), ()]


def asking(media: Sequence[Media], words: str = "b") -> Sample:
    """A trial question about some media, in a few words."""
    refs = [MediaRef(m.kind, b"") for m in media]
    return Sample("s", "trial", (Text("A"), *refs, Text(words)), gold=None)


def decoded(medium: EncodedMedium) -> Media:
    """A kept medium again, for the processor."""
    rate = int(medium.tensors["rate"])
    return Media(medium.kind, medium.tensors[RAW].numpy(), medium.frame, medium.hash, rate=rate)


def placed(
    media: Sequence[EncodedMedium],
    tensors: dict[str, Tensor],
    total: int,
    unmarked: Collection[MediaKind],
) -> Iterator[EncodedMedium]:
    """Media of a prompt with their tokens in it; the first has the `tensors` of all, of any shapes.

    They have as many as alone, or their shares of the `total` where that is another number: some
    processors cut a picture finer where it is alone. Kinds that are `unmarked` need have none.
    """
    alone = np.cumsum([0, *(m.num_tokens for m in media)])
    if any(medium.kind not in unmarked for medium in media) and not total:
        raise MediaError(f"{len(media)} media without a placeholder in the chat template")
    ends = alone if alone[-1] in (total, 0) else alone * total // alone[-1]
    for number, medium in enumerate(media):
        count = int(ends[number + 1] - ends[number])
        carried = {} if number else tensors
        yield dataclasses.replace(medium, tensors=carried, num_tokens=count)
