"""How many threads a decoding step is worth."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from mmrl.policy.attention import stands_apart

# Waking a second thread costs about 50 microseconds, what one core needs for 8 MFLOP; half of a
# product is saved by it.
WORTH_SHARING_FLOP = 16e6


@contextmanager
def decoding_threads(model: nn.Module, rows: int) -> Iterator[None]:
    """One thread while the matrix products of `rows` tokens are too small to be shared by cores.

    Which products are depends on the model and on `rows` alone, so that the same run gives the
    same numbers. Does nothing where the model is not on the CPU.
    """
    sizes = [p.numel() for p in model.parameters() if p.ndim == 2]
    work = 2 * rows * sum(sizes) / max(len(sizes), 1)
    before = torch.get_num_threads()
    on_cpu = next(model.parameters()).device.type == "cpu"
    if not on_cpu or work >= WORTH_SHARING_FLOP or stands_apart():
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
