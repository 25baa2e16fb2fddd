"""Give back to the system what the C library keeps of freed memory."""

from __future__ import annotations

import ctypes


def give_back() -> None:
    """Ask the C library to return its free pages; nothing happens where it cannot.

    glibc keeps what small and middling tensors leave between others, a little more each time their
    sizes differ: a run of clips grew by 1.3 MiB in 100 steps without holding anything more.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
