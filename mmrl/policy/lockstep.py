"""Passes that all processes make alike, for sharded weights that are gathered by the module.

A process whose rows have no media runs the towers on blank ones, and one with fewer tokens calls
the head on none, so that every gather finds all processes at the same module. What they add to the
result is zero.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
from torch import Tensor, nn

from mmrl.frame import Frame
from mmrl.policy.family import Family
from mmrl.types import EncodedMedium, Media, MediaKind

RATE = 16_000
MARK = "#"


class Lockstep(Protocol):
    """What the processes agree on before a pass; all of them ask the same things in turn."""

    def calls(self, own: Sequence[str]) -> list[str]:
        """The towers' `calls` that any process is about to make, sorted."""
        ...

    def most(self, own: int) -> int:
        """The largest number that any process has."""
        ...


@contextmanager
def adding(embedding: nn.Module, spare: Tensor | None) -> Iterator[None]:
    """Add the scalar `spare`, a zero that depends on blank media, to the embeddings of a forward.

    It enters where features do: under adapters the embeddings learn nothing, and a first layer that
    had no gradient to pass on would not be gathered on this process alone.
    """
    if spare is None:
        yield
        return

    def add(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        return output + spare.to(output.device, output.dtype)

    handle = embedding.register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()


def kind_of(medium: EncodedMedium) -> str:
    """The medium's kind; a clip with its own sound, which takes two towers, is one by itself."""
    heard = medium.kind == "video" and any("feature" in key for key in medium.tensors)
    return "sounding clip" if heard else medium.kind


def calls(media: Sequence[EncodedMedium], apart: Collection[str]) -> set[str]:
    """What the towers are called for: all media of a kind, or each of those that they take `apart`.

    The n-th of a kind has the same name in every process.
    """
    counts = Counter(map(kind_of, media))
    each = {kind: count if kind in apart else 1 for kind, count in counts.items()}
    return {f"{kind}{MARK}{n}" for kind, count in each.items() for n in range(count)}


def kind_called(call: str) -> str:
    """The kind of the media that one of `calls` is for."""
    return call.partition(MARK)[0]


def blank(family: Family, kind: str) -> EncodedMedium:
    """A small medium of a kind with nothing in it."""
    silence = np.zeros(RATE, dtype=np.float32)
    if kind == "audio":
        media = Media("audio", silence, Frame(seconds=(0.0, 1.0)), "blank", rate=RATE)
    elif kind in ("video", "sounding clip"):
        frame = Frame(
            source_size=(84, 56),
            seconds=(0.0, 0.5),
            indices=(0, 10),
            fps=20.0,
            processed_size=(0, 0),
        )
        pixels = np.zeros((2, 56, 84, 3), dtype=np.uint8)
        track, rate = (silence, RATE) if kind == "sounding clip" else (None, 0)
        media = Media("video", pixels, frame, "blank", track, rate)
    else:
        pixels = np.zeros((84, 112, 3), dtype=np.uint8)
        shown: MediaKind = "screenshot" if kind == "screenshot" else "image"
        media = Media(shown, pixels, Frame(source_size=(112, 84)), "blank")
    return family.encode_medium(media)
