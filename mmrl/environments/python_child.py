"""Runs one program of a model in a process that can compute and say something, and nothing else.

Started by `python_tool.py`; reads {"code", "pictures", "memory", "seconds"} and the pictures'
bytes, writes `LOCKED` and then what the program prints. What it may import is loaded first; then a
filter of system calls (seccomp) allows memory, reading and writing what is open, time, and the end:
no file is opened, no socket made, no process or thread started. Linux on x86-64 or arm64.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import platform
import resource
import struct
import sys
import traceback
from typing import Any

MODULES = (
    "math", "cmath", "statistics", "fractions", "decimal", "random", "itertools", "functools",
    "collections", "collections.abc", "re", "json", "string", "datetime", "time", "heapq", "bisect",
    "operator", "copy", "numpy", "numpy.linalg", "numpy.random", "numpy.fft",
)  # fmt: skip
# read write close fstat lseek mmap mprotect munmap brk rt_sigaction rt_sigprocmask rt_sigreturn
# madvise mremap sched_yield nanosleep getpid gettid exit exit_group futex clock_gettime
# clock_nanosleep getrandom sigaltstack gettimeofday getrusage times
ALLOWED = {
    "x86_64": (
        0xC000003E,
        (0, 1, 3, 5, 8, 9, 10, 11, 12, 13, 14, 15, 28, 25, 24, 35, 39, 186, 60, 231, 202, 228, 230,
         318, 131, 96, 98, 100),
    ),
    "aarch64": (
        0xC00000B7,
        (63, 64, 57, 80, 62, 222, 226, 215, 214, 134, 135, 139, 233, 216, 124, 101, 172, 178, 93,
         94, 98, 113, 115, 278, 132, 169, 165, 153),
    ),
}  # fmt: skip
REFUSED, ALLOW, KILL = 0x00050001, 0x7FFF0000, 0x80000000
NO_NEW_PRIVILEGES, SECCOMP, FILTER = 38, 22, 2
MOST = 1 << 16
LOCKED = b"locked\n"


def lock() -> None:
    """Let the kernel refuse all calls but those of `ALLOWED`; raises OSError where it cannot."""
    machine, allowed = ALLOWED[platform.machine()]
    load, equal, give = 0x20, 0x15, 0x06
    program = [(load, 0, 0, 4), (equal, 1, 0, machine), (give, 0, 0, KILL), (load, 0, 0, 0)]
    program += [(equal, len(allowed) - i, 0, number) for i, number in enumerate(allowed)]
    program += [(give, 0, 0, REFUSED), (give, 0, 0, ALLOW)]
    raw = b"".join(struct.pack("<HBBI", *step) for step in program)
    steps = ctypes.create_string_buffer(raw, len(raw))
    header = struct.pack("<HxxxxxxQ", len(program), ctypes.addressof(steps))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
    if libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "no_new_privs")
    filtered = ctypes.create_string_buffer(header, len(header))
    if libc.prctl(SECCOMP, FILTER, ctypes.addressof(filtered), 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp")


def limit(memory: int, seconds: int) -> None:
    """Bound memory, processor time and what is written; nothing is dumped."""
    for kind, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, 8 * MOST),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (most, most))


def run(code: str, given: dict[str, Any]) -> str:
    """What a program prints, and the last line of what it raises."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            exec(compile(code, "program", "exec"), given)
        except BaseException as error:
            said.write("".join(traceback.format_exception_only(error))[-1000:])
    return said.getvalue()


def main() -> None:
    """Read, lock, run, write."""
    order = json.loads(sys.stdin.buffer.readline())
    for name in MODULES:
        __import__(name)
    import numpy

    pictures = []
    for height, width in order["pictures"]:
        raw = sys.stdin.buffer.read(3 * height * width)
        pictures.append(numpy.frombuffer(raw, numpy.uint8).reshape(height, width, 3))
    out = sys.stdout.buffer
    limit(order["memory"], order["seconds"])
    lock()
    out.write(LOCKED)
    out.flush()
    given = {"__name__": "__main__", "pictures": pictures, "np": numpy, "numpy": numpy}
    out.write(run(order["code"], given)[:MOST].encode(errors="replace"))
    out.flush()


if __name__ == "__main__":
    main()
