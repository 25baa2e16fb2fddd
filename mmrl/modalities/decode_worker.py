"""Decoding in child processes: a decoder that hangs or crashes takes no run with it.

The parent sends a job (JSON, then the encoded bytes where there is no file) over a socket and gets
back a JSON header, then the bytes of its arrays: nothing that a broken decoder could send is ever
unpickled.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmrl.errors import MediaError
from mmrl.modalities.child_environment import without_secrets

Array = npt.NDArray[Any]
Decoded = tuple[Mapping[str, Any], Sequence[Array]]
Job = Callable[[Path | bytes, Mapping[str, Any]], Decoded]

STARTUP_SECONDS = 120.0
MAX_HEADER_BYTES = 1 << 24
MAX_ARRAY_BYTES = 1 << 34
MOST_AT_ONCE = 1 << 30
MAX_IDLE = 8

_idle: list[_Child] = []
_lock = threading.Lock()


def run(
    job: str, source: Path | bytes, arguments: Mapping[str, Any], timeout_seconds: float
) -> tuple[dict[str, Any], list[Array]]:
    """Run `module:function` on a source in a child; raises MediaError, also at the deadline.

    The function takes the source and its arguments, and returns a JSON header and arrays.
    """
    with _lock:
        child = _idle.pop() if _idle else None
    child = child or _Child()
    try:
        header, arrays = child.ask(job, source, arguments, timeout_seconds)
    except TimeoutError:
        child.kill()
        raise MediaError(f"reading took over {timeout_seconds:g} s and was stopped") from None
    except (EOFError, OSError) as error:
        child.kill()
        raise MediaError(f"the decoder crashed ({type(error).__name__})") from None
    except BaseException:
        child.kill()
        raise
    with _lock:
        if len(_idle) < MAX_IDLE:
            _idle.append(child)
            child = None
    if child is not None:
        child.kill()
    if "error" in header:
        raise MediaError(str(header["error"]))
    return header, arrays


@atexit.register
def close() -> None:
    """End the idle children."""
    with _lock:
        while _idle:
            _idle.pop().kill()


class _Child:
    """One child process and the parent's end of its socket."""

    def __init__(self) -> None:
        self._connection, theirs = Pipe()
        self._raw = socket.socket(fileno=os.dup(self._connection.fileno()))
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                # Decoders write to stderr what also arrives as their error.
                stderr=subprocess.DEVNULL,
                env=without_secrets(),
                # Ctrl-C reaches all of a terminal's group; a run then finishes its step with it.
                start_new_session=True,
            )
        self._started = False

    def ask(
        self, job: str, source: Path | bytes, arguments: Mapping[str, Any], seconds: float
    ) -> tuple[dict[str, Any], list[Array]]:
        """Have a job done within `seconds` from when the child is up; else TimeoutError."""
        if not self._started:
            if not self._connection.poll(STARTUP_SECONDS):
                raise EOFError(f"not up within {STARTUP_SECONDS:g} s")
            self._connection.recv_bytes(MAX_HEADER_BYTES)
            self._started = True
        in_memory = isinstance(source, bytes)
        request = {"job": job, "arguments": dict(arguments), "in_memory": in_memory}
        if not isinstance(source, bytes):
            request["path"] = os.fspath(source)
        self._connection.send_bytes(json.dumps(request).encode())
        if isinstance(source, bytes):
            self._connection.send_bytes(source)
        if not self._connection.poll(seconds):
            raise TimeoutError
        header: dict[str, Any] = json.loads(self._connection.recv_bytes(MAX_HEADER_BYTES))
        return header, [self._array(*described) for described in header.pop("arrays")]

    def _array(self, dtype: str, shape: list[int]) -> Array:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if size > MAX_ARRAY_BYTES:
            raise EOFError(f"array of {size} bytes")
        array: Array = np.empty(shape, dtype=np.dtype(dtype))
        left = array.data.cast("B") if size else memoryview(b"")
        while left:
            # Straight into the array: a connection collects what comes, and copies it then.
            got = self._raw.recv_into(left, min(len(left), MOST_AT_ONCE), socket.MSG_WAITALL)
            if not got:
                raise EOFError("its socket closed")
            left = left[got:]
        return array

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._raw.close()
        self._connection.close()


def main() -> None:
    """Serve the parent until its end of the socket closes."""
    connection = Connection(int(sys.argv[1]))
    try:
        connection.send_bytes(b"up")
        while True:
            serve(connection)
    except (EOFError, OSError):
        pass
    finally:
        os._exit(0)  # threads of a decoder must not keep the process alive


def serve(connection: Connection) -> None:
    """Answer one job; whatever a decoder raises becomes the error of the medium."""
    request = json.loads(connection.recv_bytes())
    source = connection.recv_bytes() if request["in_memory"] else Path(request["path"])
    module, _, name = request["job"].partition(":")
    arrays: Sequence[Array] = ()
    header: dict[str, Any]
    try:
        job: Job = getattr(importlib.import_module(module), name)
        found, arrays = job(source, request["arguments"])
        header = dict(found)
    except MediaError as error:
        header = {"error": str(error)}
    except Exception as error:  # decoders face untrusted data
        header = {"error": f"{type(error).__name__}: {error}"[:500]}
    header["arrays"] = [(array.dtype.str, array.shape) for array in arrays]
    connection.send_bytes(json.dumps(header).encode())
    with socket.socket(fileno=os.dup(connection.fileno())) as raw:
        for array in arrays:
            if array.size:
                raw.sendall(np.ascontiguousarray(array).data.cast("B"))


if __name__ == "__main__":
    main()
