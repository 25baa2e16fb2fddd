"""What a model's processor makes of a medium, but for its pixels: a shape is processed once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from dataclasses import replace

import torch

from mmrl.types import EncodedMedium, Media

Process = Callable[[Media], EncodedMedium]

TRIED = 2
"""Media of a shape that are processed before others are taken to be like them."""
SMALL_BYTES = 4096
"""Tensors up to this size are kept: grids, counts, masks of a few tiles."""


class OncePerShape:
    """Gives media the tokens, text and frame that media of their shape got from the processor.

    Processors look at sizes and times, not at pixels, when they count tokens; that is tried on each
    shape's first two media, and a kind of medium for which it does not hold is always processed.
    Of what it gives, large tensors have their shape but nothing in them, and take no memory.
    """

    def __init__(self, process: Process) -> None:
        self._process = process
        self._known: dict[Hashable, list[EncodedMedium]] = {}
        self._by_content = set[str]()
        self._lock = threading.Lock()

    def __call__(self, media: Media) -> EncodedMedium:
        """A medium as the processor would make it, but for tensors; raises what that raises."""
        shape = _shape(media)
        with self._lock:
            like = list(self._known.get(shape, ()))
        if len(like) >= TRIED and media.kind not in self._by_content:
            return replace(like[0], hash=media.hash)
        made = self._process(media)
        made = replace(made, tensors={k: _hollow(tensor) for k, tensor in made.tensors.items()})
        with self._lock:
            known = self._known.setdefault(shape, [])
            known += [made] if len(known) < TRIED else []
            if like and not _alike(made, like[0]):
                self._by_content.add(media.kind)
        return made


def _shape(media: Media) -> Hashable:
    """All that is known of a medium but what is in it; of its frame, also what times it has."""
    track = None if media.track is None else media.track.shape
    return media.kind, media.array.shape, media.frame, track, media.rate


def _hollow(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor as it is if it is small, else zeros of its shape that share one element."""
    small = tensor.nbytes <= SMALL_BYTES
    return tensor if small else tensor.new_zeros(()).expand(tensor.shape)


def _alike(one: EncodedMedium, other: EncodedMedium) -> bool:
    """Whether two media have the same tokens, text, frame and shapes of tensors."""
    same = replace(one, hash="", tensors={}) == replace(other, hash="", tensors={})
    shapes = [{k: tensor.shape for k, tensor in each.tensors.items()} for each in (one, other)]
    return same and shapes[0] == shapes[1]
