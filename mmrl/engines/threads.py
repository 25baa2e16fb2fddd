"""How many threads a decoding step is worth."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from mmrl.policy.attention import stands_apart

# What one core needs 20 microseconds for: a thread that still spins takes its share in less, and
# one that must be woken for every product gains nothing.
WORTH_A_THREAD_FLOP = 2e6


@contextmanager
def decoding_threads(model: nn.Module, rows: int) -> Iterator[None]:
    """Only as many threads as a matrix product of `rows` tokens, of average size, is shared by.

    How many follows from the model and `rows` alone, so that the same run gives the same numbers.
    Does nothing where the model is not on the CPU.
    """
    before = torch.get_num_threads()
    on_cpu = next(model.parameters()).device.type == "cpu"
    if not on_cpu or stands_apart():
        yield
        return
    torch.set_num_threads(min(before, worth(model, rows)))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def worth(model: nn.Module, rows: int) -> int:
    """Threads that `rows` tokens keep at work, at least one."""
    sizes = [p.numel() for p in model.parameters() if p.ndim == 2]
    work = 2 * rows * sum(sizes) / max(len(sizes), 1)
    return max(1, int(work // WORTH_A_THREAD_FLOP))
