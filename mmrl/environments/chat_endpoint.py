"""Chat completions over HTTP on this machine: calls come in, whoever has a model answers them.

    POST /v1/chat/completions    messages with data: media, tools, stream
    GET  /v1/models

A call belongs to the session that its `model` names (`policy:SESSION`), else its header
`x-session-id`. It waits for its answer; nothing here knows a model.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from mmrl.rewards.chat_messages import told

LARGEST_BODY = 1 << 28
MODEL = "policy"
PATH = "/v1/chat/completions"


@dataclass(frozen=True)
class Completion:
    """An answer: the message, why it ended, and the tokens that it was asked and given with.

    `policy_version` counts the updates of the weights that sampled it.
    """

    message: Mapping[str, Any]
    finish: str
    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    policy_version: int = 0


@dataclass(frozen=True)
class Refusal:
    """A call that is not answered: the HTTP status, a code and the reason."""

    status: int
    code: str
    reason: str


@dataclass(eq=False)
class Call:
    """One request, until it is answered."""

    session: str
    body: Mapping[str, Any]
    answer: Completion | Refusal | None = None
    done: threading.Event = field(default_factory=threading.Event)

    def reply(self, answer: Completion | Refusal) -> None:
        """Let the request go."""
        self.answer = answer
        self.done.set()


class Endpoint:
    """A server on a free port of 127.0.0.1; `calls` are what it has been asked."""

    def __init__(self, calls: queue.Queue[Any], port: int = 0) -> None:
        self._calls = calls
        self._open: set[Call] = set()
        self._lock = threading.Lock()
        self._closed = False
        self._server = _Server(self, port)
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="mmrl-endpoint", daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        """What clients have as their base URL."""
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def ask(self, session: str, body: Mapping[str, Any]) -> Completion | Refusal:
        """Hand a call over and wait for its answer."""
        call = Call(session, body)
        with self._lock:
            if self._closed:
                return Refusal(503, "closed", "the endpoint is closed")
            self._open.add(call)
        self._calls.put(call)
        call.done.wait()
        with self._lock:
            self._open.discard(call)
        assert call.answer is not None, "an answered call"
        return call.answer

    def close(self) -> None:
        """Refuse what waits, and stop."""
        with self._lock:
            self._closed = True
            waiting = list(self._open)
        for call in waiting:
            call.reply(Refusal(503, "closed", "the endpoint is closed"))
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024  # a round's calls come all at once

    def __init__(self, endpoint: Endpoint, port: int) -> None:
        self.endpoint = endpoint
        super().__init__(("127.0.0.1", port), _Handler)


class _Handler(BaseHTTPRequestHandler):
    """The requests of one endpoint."""

    server: _Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None:
        """Requests are no news."""

    def do_GET(self) -> None:
        if self.path.rstrip("/") != "/v1/models":
            return self._refuse(Refusal(404, "not_found", self.path))
        model = {"id": MODEL, "object": "model", "owned_by": "mmrl", "created": 0}
        return self._send(200, {"object": "list", "data": [model]})

    def do_POST(self) -> None:
        size = int(self.headers.get("content-length") or 0)
        if size > LARGEST_BODY:
            self.close_connection = True
            return self._refuse(Refusal(413, "too_large", f"over {LARGEST_BODY} bytes"))
        raw = self.rfile.read(size)
        if self.path.partition("?")[0].rstrip("/") != PATH:
            return self._refuse(Refusal(404, "not_found", f"{self.path}: there is {PATH}"))
        try:
            body = json.loads(raw)
        except ValueError as error:
            return self._refuse(Refusal(400, "not_json", str(error)))
        if not isinstance(body, dict):
            return self._refuse(Refusal(400, "not_json", "an object is wanted"))
        session = told(body) or self.headers.get("x-session-id") or ""
        answer = self.server.endpoint.ask(session, body)
        if isinstance(answer, Refusal):
            return self._refuse(answer)
        if body.get("stream"):
            return self._stream(answer, body)
        return self._send(200, _completion(answer, body))

    def _refuse(self, refusal: Refusal) -> None:
        error = {"message": refusal.reason, "type": "invalid_request", "code": refusal.code}
        self._send(refusal.status, {"error": error})

    def _send(self, status: int, value: Mapping[str, Any]) -> None:
        self._write(status, "application/json", json.dumps(value).encode())

    def _stream(self, answer: Completion, body: Mapping[str, Any]) -> None:
        """The whole answer in one event: nothing is gained from pieces."""
        whole = _completion(answer, body)
        head = {**whole, "object": "chat.completion.chunk"}
        usage, (choice,) = head.pop("usage"), head.pop("choices")
        message = dict(choice.pop("message"))
        if "tool_calls" in message:
            calls = enumerate(message["tool_calls"])
            message["tool_calls"] = [{**call, "index": i} for i, call in calls]
        finish = choice.pop("finish_reason")
        first = {**choice, "delta": message, "finish_reason": None}
        events: list[Any] = [{**head, "choices": [first]}]
        events.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
        if (body.get("stream_options") or {}).get("include_usage"):
            events.append({**head, "choices": [], "usage": usage})
        lines = [f"data: {json.dumps(event)}\n\n" for event in events]
        self._write(200, "text/event-stream", "".join([*lines, "data: [DONE]\n\n"]).encode())

    def _write(self, status: int, kind: str, payload: bytes) -> None:
        try:
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # whoever asked has gone


def _completion(answer: Completion, body: Mapping[str, Any]) -> dict[str, Any]:
    """The answer as OpenAI's clients read it; token ids beside it where a call wants them."""
    choice: dict[str, Any] = {
        "index": 0,
        "message": dict(answer.message),
        "finish_reason": answer.finish,
    }
    found: dict[str, Any] = {
        "id": f"chatcmpl-{time.monotonic_ns():x}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": str(body.get("model", MODEL)),
        "choices": [choice],
        "usage": {
            "prompt_tokens": len(answer.prompt_ids),
            "completion_tokens": len(answer.ids),
            "total_tokens": len(answer.prompt_ids) + len(answer.ids),
        },
    }
    if body.get("logprobs"):
        pairs = zip(answer.ids, answer.logprobs, strict=True)
        listed = [{"token": f"token_id:{i}", "logprob": p, "top_logprobs": []} for i, p in pairs]
        choice["logprobs"] = {"content": listed}
    if body.get("return_token_ids"):
        choice["token_ids"] = list(answer.ids)
        found |= {
            "prompt_token_ids": list(answer.prompt_ids),
            "policy_version": answer.policy_version,
        }
    return found
