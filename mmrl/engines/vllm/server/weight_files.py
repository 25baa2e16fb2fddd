"""Weights in the files of a folder, which servers read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from safetensors import safe_open
from torch import Tensor


def stored_weights(folder: str) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a folder's files by name, in their stored shapes, one at a time."""
    for file in sorted(Path(folder).glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            for name in opened.keys():  # noqa: SIM118
                yield name, opened.get_tensor(name)
