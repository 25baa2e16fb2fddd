"""A judge behind an OpenAI-compatible server: requests in flight, a deadline, tries, an outage."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mmrl.environments.chat_client import ChatClient, said_in
from mmrl.errors import MediaError
from mmrl.scoring.judges.backend_of_judge import Outage, Usage
from mmrl.scoring.judges.judge_config import JudgeConfig
from mmrl.scoring.judges.question import Question, Verdict, read_reply, wanted
from mmrl.scoring.judges.shown_media import content_of

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.2, 5.0


class Endpoint:
    """Asks a server; a question without a usable reply in time is an outage, never a verdict.

    Once twice as many questions as are in flight have failed one after the other, the rest of a
    call is not asked: a server that hangs must not cost a deadline for each answer.
    """

    def __init__(self, config: JudgeConfig) -> None:
        assert config.url is not None, "the configuration was checked"
        self._config = config
        self._client = ChatClient(config.url, config.timeout_seconds, config.key_variable)
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
                verdict = self._verdict(question, self._client.complete(body), usage)
            except Exception as error:  # a server's: whatever it says, or does not
                reason = f"{type(error).__name__}: {error}"[:200]
                continue
            with self._lock:
                self._failed_in_a_row = 0
            return verdict
        with self._lock:
            self._failed_in_a_row += 1
        return Outage(f"no usable reply in {1 + self._config.retries} tries: {reason}")

    def _body(self, question: Question) -> dict[str, Any]:
        config = self._config
        before, answers = question.text()
        content: list[dict[str, Any]] = [{"type": "text", "text": before}]
        for part in question.parts:
            if isinstance(part, str):
                content.append({"type": "text", "text": part})
            else:
                content += content_of(part, config.max_side, config.frames)
        content.append({"type": "text", "text": answers + wanted(question, config.scale)})
        return {
            "model": config.model,
            "messages": [{"role": "user", "content": content}],
            "temperature": config.temperature,
            "max_tokens": config.max_tokens,
        }

    def _verdict(self, question: Question, reply: Mapping[str, Any], usage: Usage) -> Verdict:
        spent = reply.get("usage") or {}
        usage.count(
            tokens_in=int(spent.get("prompt_tokens") or 0),
            tokens_out=int(spent.get("completion_tokens") or 0),
        )
        return read_reply(question, said_in(reply), self._config.scale)
