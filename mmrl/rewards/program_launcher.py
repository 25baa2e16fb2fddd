"""Runs one untrusted Python file under limits and says what it used: a program by itself.

    python -I -S program_launcher.py FILE SECONDS MEGABYTES FILE_BYTES CHANNEL

Standard input, output and error are the program's. What it used goes to the descriptor CHANNEL as
`STATUS CPU_SECONDS PEAK_KIB`. Where the kernel allows it, the program has namespaces of its own:
no network, no hold on other processes, and whatever it started ends with it. Nothing of mmrl is
imported here.
"""

import ctypes
import os
import resource
import signal
import sys

NEW_USER, NEW_PID, NEW_NET, NEW_IPC = 0x10000000, 0x20000000, 0x40000000, 0x08000000
PR_SET_PDEATHSIG = 1
DESCRIPTORS = 32


def launch(path: str, seconds: float, megabytes: int, file_bytes: int, channel: int) -> None:
    """Run the file in a child and report what the child used."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.unshare(NEW_USER | NEW_PID | NEW_NET | NEW_IPC)  # refused by some kernels: then without
    child = os.fork()
    if child == 0:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        os.close(channel)
        _limit(seconds, megabytes, file_bytes)
        _run(path)
    _, status, used = os.wait4(child, 0)
    said = f"{os.waitstatus_to_exitcode(status)} {used.ru_utime + used.ru_stime} {used.ru_maxrss}"
    os.write(channel, said.encode())


def _limit(seconds: float, megabytes: int, file_bytes: int) -> None:
    cpu = int(seconds) + 1
    for kind, most in (
        (resource.RLIMIT_CPU, cpu),
        (resource.RLIMIT_AS, megabytes << 20),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_NOFILE, DESCRIPTORS),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (most, most))


def _run(path: str) -> None:
    """Become the program; the exit code is Python's own."""
    os.execv(sys.executable, [sys.executable, "-I", "-S", path])


if __name__ == "__main__":
    launch(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
