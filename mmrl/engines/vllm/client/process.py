"""`vllm serve` processes of a run's own: started with it, watched, and ended with it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from mmrl.engines.vllm.server import launch
from mmrl.errors import UserError
from mmrl.rollout_config import SERVER_KEY

ENVIRONMENT = {
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    # The logits processor is written for the first model runner.
    "VLLM_USE_V2_MODEL_RUNNER": "0",
}
OTHERS = ("VLLM_ENABLE_V1_MULTIPROCESSING", "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
"""Variables of this process that would mislead a server."""

STOP_SECONDS = 15.0
LAST_LINES = 4


class ServerProcess:
    """One `vllm serve` on this machine, at a port; it does not outlive this process.

    `key` is what it asks of whoever talks to it, `devices` are the CUDA devices it sees.
    """

    def __init__(
        self, arguments: Mapping[str, Any], port: int, key: str, devices: str | None, log: Path
    ) -> None:
        self.log = log
        environment = {k: v for k, v in os.environ.items() if k not in OTHERS}
        environment = {**ENVIRONMENT, **environment, SERVER_KEY: key, launch.WATCH: "1"}
        if devices is not None:
            environment["CUDA_VISIBLE_DEVICES"] = devices
        where = ["--host", "127.0.0.1", "--port", str(port)]
        command = [sys.executable, "-m", launch.__name__, *flags(arguments), *where]
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,  # its end tells the server that this process is gone
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # vLLM's own processes end with it, as one group
                env=environment,
            )

    @property
    def pid(self) -> int:
        """Of its first process; also the number of the group of all of them."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def last_words(self) -> str:
        """Why it ended, as far as its log tells."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        told = [line.strip() for line in lines if "Error" in line] or lines
        return f"{' | '.join(told[-LAST_LINES:])} (the whole log: {self.log})"

    def stop(self) -> None:
        """End the server and all of its processes."""
        deadline = time.monotonic() + STOP_SECONDS
        self._signal(signal.SIGTERM)
        while not self.ended and time.monotonic() < deadline:
            time.sleep(0.1)
        self._signal(signal.SIGKILL)
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)  # the group outlives a leader that died alone


def serve_in_place(arguments: Mapping[str, Any], host: str, port: int) -> NoReturn:
    """Replace this process by a `vllm serve`."""
    environment = {**ENVIRONMENT, **os.environ}
    command = ["-m", launch.__name__, *flags(arguments), "--host", host, "--port", str(port)]
    os.execve(sys.executable, [sys.executable, *command], environment)


def flags(arguments: Mapping[str, Any]) -> list[str]:
    """Engine arguments by name -> the command line of `vllm serve`; None is left out."""
    found: list[str] = []
    for name, value in arguments.items():
        flag = f"--{name.replace('_', '-')}"
        if name == "model":
            found.insert(0, str(value))
        elif isinstance(value, bool):
            found.append(flag if value else f"--no-{flag[2:]}")
        elif isinstance(value, Mapping):
            found += [flag, json.dumps(dict(value))]
        elif isinstance(value, Sequence) and not isinstance(value, str):
            found += [flag, *map(str, value)]
        elif value is not None:
            found += [flag, str(value)]
    return found


def free_port() -> int:
    """A TCP port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def devices_of_servers(count: int, each: int, visible: Sequence[str], trainers: int) -> list[str]:
    """CUDA devices of every server, `each` of them, after those of the trainer's processes."""
    spare = visible[trainers:]
    if len(spare) < count * each:
        raise UserError(
            f"rollout.servers.start={count} with {each} GPU(s) each needs {count * each} besides "
            f"the trainer's {trainers}, of {len(visible)}: start fewer servers, or name their GPUs "
            "in rollout.servers.devices"
        )
    return [",".join(spare[i * each : (i + 1) * each]) for i in range(count)]
