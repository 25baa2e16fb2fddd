"""Threads that make media beside a model, and take none of its cores' attention."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import torch


def media_threads(workers: int) -> ThreadPoolExecutor:
    """Threads each of whose torch operations runs in itself; all have started.

    A second team of OpenMP threads would slow the first: once a process has more of them than there
    are cores, none spins while it waits for work, and each of the trainer's operations wakes its
    team anew (libgomp; 50 microseconds a time, on two cores a tenth of a step).
    """
    before, met = torch.get_num_threads(), threading.Barrier(workers + 1)

    def alone() -> None:
        torch.set_num_threads(1)
        torch.get_num_threads()  # or the first operation here takes over what others set meanwhile
        met.wait()

    pool = ThreadPoolExecutor(workers, thread_name_prefix="mmrl-media")
    try:
        for _ in range(workers):
            pool.submit(alone)
    except RuntimeError:  # no thread to be had: those that have started must not wait for it
        met.abort()
        raise
    met.wait()
    torch.set_num_threads(before)  # part of what a thread sets is everybody's
    return pool
