"""Modality adapters: reference -> decoded medium with its Frame. One file a modality."""

from __future__ import annotations

from typing import Protocol

from mmrl.types import Media, MediaRef

SHARED = (
    "child_environment",
    "containers",
    "decode_worker",
    "download",
    "options",
    "readers",
    "sound",
    "source",
)


class Decode(Protocol):
    """What a modality module exposes as `decode`; raises MediaError with the reason.

    It also exposes `Options`, the section of settings that a reference's `options` fill in.
    """

    def __call__(self, ref: MediaRef) -> Media: ...
