"""A judge that is a model folder: the parent's end of its process, with a deadline a batch."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection, Pipe

from mmrl.errors import ConfigError
from mmrl.modalities.child_environment import without_secrets
from mmrl.scoring.judges.backend_of_judge import Outage, Usage
from mmrl.scoring.judges.judge_config import JudgeConfig
from mmrl.scoring.judges.question import Question, Verdict

START_SECONDS = 900.0


class LocalJudge:
    """Asks a model in a process of its own, which is started when it is asked first.

    A batch that overruns its deadline, or that the process dies of, is an outage; the process is
    started anew for the next.
    """

    def __init__(self, config: JudgeConfig) -> None:
        self._config = config
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None

    def ask(self, questions: Sequence[Question], usage: Usage) -> list[Verdict | Outage]:
        """A verdict or an outage for each question, in order."""
        found: list[Verdict | Outage] = []
        for start in range(0, len(questions), self._config.batch):
            batch = questions[start : start + self._config.batch]
            usage.count(requests=1)
            try:
                found += self._batch(batch)
            except (EOFError, OSError, TimeoutError) as error:
                self.close()
                found += [Outage(f"the judge's process: {type(error).__name__} {error}")] * len(
                    batch
                )
        return found

    def close(self) -> None:
        """End the process."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _batch(self, questions: Sequence[Question]) -> list[Verdict | Outage]:
        connection = self._connection or self._start()
        connection.send_bytes(pickle.dumps(list(questions)))
        if not connection.poll(self._config.timeout_seconds):
            raise TimeoutError(f"no reply within {self._config.timeout_seconds:g} s")
        reply = json.loads(connection.recv_bytes())
        return [Outage(v) if isinstance(v, str) else tuple(map(float, v)) for v in reply]

    def _start(self) -> Connection:
        """Start the process and wait for its model; raises ConfigError where it does not load."""
        self._connection, child = Pipe()
        with child:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mmrl.scoring.judges.judge_process", str(child.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=2,
                env={**without_secrets(), "PYTHONPATH": os.pathsep.join(sys.path)},
                pass_fds=[child.fileno()],
                start_new_session=True,
            )
        self._connection.send_bytes(self._config.model_dump_json().encode())
        if not self._connection.poll(START_SECONDS):
            self.close()
            raise ConfigError(f"judge {self._config.path} was not ready in {START_SECONDS:g} s")
        try:
            said = json.loads(self._connection.recv_bytes())
        except EOFError:
            said = {"failed": "its process died while the model was loaded"}
        if "failed" in said:
            self.close()
            raise ConfigError(f"judge {self._config.path}: {said['failed']}")
        return self._connection
