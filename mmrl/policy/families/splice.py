"""Feature rows in the place of placeholder embeddings: the same for every family.

A hook on the input embedding puts them there, so that no model repeats its own scatter, checks or
tower call, and kinds that a model takes no precomputed outputs for (audio) work like the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def splice(embedding: nn.Module, places: Tensor, rows: Tensor) -> Iterator[None]:
    """Replace the embeddings of flat tokens `places` [M] of a batch of one by `rows` [M, H]."""

    def replace(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        replaced = output[0].index_copy(0, places, rows.to(output.device, output.dtype))
        return replaced.unsqueeze(0)

    handle = embedding.register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()
