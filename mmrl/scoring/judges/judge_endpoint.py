"""A judge behind an OpenAI-compatible server: requests in flight, a deadline, tries, an outage."""

from __future__ import annotations

import http.client
import json
import os
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

from mmrl.errors import ConfigError, MediaError
from mmrl.scoring.judges.backend_of_judge import Outage, Usage
from mmrl.scoring.judges.judge_config import JudgeConfig
from mmrl.scoring.judges.question import Question, Verdict, read_reply, wanted
from mmrl.scoring.judges.shown_media import content_of

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.2, 5.0
MAX_REPLY_BYTES = 1 << 22


class Endpoint:
    """Asks a server; a question without a usable reply in time is an outage, never a verdict.

    Once twice as many questions as are in flight have failed one after the other, the rest of a
    call is not asked: a server that hangs must not cost a deadline for each answer.
    """

    def __init__(self, config: JudgeConfig) -> None:
        assert config.url is not None, "the configuration was checked"
        self._config = config
        self._url = urlsplit(config.url.rstrip("/") + "/chat/completions")
        if self._url.scheme not in ("http", "https") or not self._url.hostname:
            raise ConfigError(f"judge url '{config.url}': write it as http://host:port/v1")
        self._key = os.environ.get(config.key_variable, "") if config.key_variable else ""
        if config.key_variable and not self._key:
            raise ConfigError(f"a judge's key_variable: {config.key_variable} is not set")
        self._lock = threading.Lock()
        self._failed_in_a_row = 0

    def ask(self, questions: Sequence[Question], usage: Usage) -> list[Verdict | Outage]:
        """A verdict or an outage for each question, in order."""
        self._failed_in_a_row = 0
        with ThreadPoolExecutor(self._config.in_flight) as pool:
            return list(pool.map(lambda question: self._ask(question, usage), questions))

    def close(self) -> None:
        """Nothing is held between calls."""

    def _ask(self, question: Question, usage: Usage) -> Verdict | Outage:
        with self._lock:
            if self._failed_in_a_row >= 2 * self._config.in_flight:
                return Outage(f"not asked, {self._failed_in_a_row} before it failed in a row")
        try:
            body = self._body(question)
        except MediaError as error:
            return Outage(f"a medium cannot be shown: {error}")
        reason, pause = "", FIRST_PAUSE_SECONDS
        for attempt in range(1 + self._config.retries):
            if attempt:
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            usage.count(requests=1, retries=int(attempt > 0))
            try:
                verdict = self._verdict(question, self._post(body), usage)
            except Exception as error:  # a server's: whatever it says, or does not
                reason = f"{type(error).__name__}: {error}"[:200]
                continue
            with self._lock:
                self._failed_in_a_row = 0
            return verdict
        with self._lock:
            self._failed_in_a_row += 1
        return Outage(f"no usable reply in {1 + self._config.retries} tries: {reason}")

    def _body(self, question: Question) -> bytes:
        config = self._config
        before, answers = question.text()
        content: list[dict[str, Any]] = [{"type": "text", "text": before}]
        for part in question.parts:
            if isinstance(part, str):
                content.append({"type": "text", "text": part})
            else:
                content += content_of(part, config.max_side, config.frames)
        content.append({"type": "text", "text": answers + wanted(question, config.scale)})
        asked = {
            "model": config.model,
            "messages": [{"role": "user", "content": content}],
            "temperature": config.temperature,
            "max_tokens": config.max_tokens,
        }
        return json.dumps(asked).encode()

    def _post(self, body: bytes) -> Mapping[str, Any]:
        """One request within the deadline as a whole: a server that drips has no more time."""
        deadline = time.monotonic() + self._config.timeout_seconds
        secure = self._url.scheme == "https"
        connect = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = connect(
            self._url.hostname or "", self._url.port, timeout=self._config.timeout_seconds
        )
        try:
            headers = {"Content-Type": "application/json"}
            if self._key:
                headers["Authorization"] = f"Bearer {self._key}"
            connection.request("POST", self._url.path, body, headers)
            held = connection.sock  # which the connection gives up where a server closes it
            _within(held, deadline)
            response = connection.getresponse()
            read = bytearray()
            while chunk := response.read1(1 << 16):
                read += chunk
                if len(read) > MAX_REPLY_BYTES:
                    raise ValueError("the reply is too long")
                _within(held, deadline)
            if response.status != 200:
                raise ValueError(f"status {response.status}: {bytes(read[:120])!r}")
        finally:
            connection.close()
        return dict(json.loads(read))

    def _verdict(self, question: Question, reply: Mapping[str, Any], usage: Usage) -> Verdict:
        spent = reply.get("usage") or {}
        usage.count(
            tokens_in=int(spent.get("prompt_tokens") or 0),
            tokens_out=int(spent.get("completion_tokens") or 0),
        )
        said = reply["choices"][0]["message"]["content"]
        return read_reply(question, str(said), self._config.scale)


def _within(held: socket.socket, deadline: float) -> None:
    """Let the next read take no longer than is left; raises TimeoutError where nothing is."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the deadline is over")
    held.settimeout(left)
