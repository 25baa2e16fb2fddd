"""One vLLM server as its trainer sees it: three calls, each with a deadline."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from mmrl.engines.vllm import wire
from mmrl.errors import UserError

STATE_SECONDS = 20.0


class Unusable(Exception):
    """The server did not do what was asked: dead, late, failing, or with other weights."""


class Late(Unusable):
    """It did not answer in time; it may be well."""


class Client:
    """Talks to the server at `url`; safe to use from many threads."""

    def __init__(self, url: str, key: str) -> None:
        self.url, self._key = url.rstrip("/"), key
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(f"rollout.servers.urls: '{url}' is no http:// or https:// URL")
        secure = parts.scheme == "https"
        self._connect = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        self._host, self._port = parts.hostname, parts.port
        self._sent: tuple[str, set[str]] = ("", set())  # media, since weights of that version

    def state(self, seconds: float = STATE_SECONDS) -> dict[str, Any]:
        """The server's version, longest sequence, model and its fingerprint."""
        return self._call("GET", wire.STATE, None, seconds)

    def generate(self, ask: wire.Ask, seconds: float) -> list[wire.Drawn]:
        """Responses to a request; raises Unusable unless its version sampled them all.

        Media that the server was sent before go by their hash alone, unless it has let go of them.
        """
        version, sent = self._sent
        if version != ask.version:
            version, sent = self._sent = ask.version, set()
        try:
            answer = self._call("POST", wire.GENERATE, wire.pack(ask, frozenset(sent)), seconds)
        except wire.Lacking:
            sent.difference_update(medium.hash for medium in ask.media)
            answer = self._call("POST", wire.GENERATE, wire.pack(ask), seconds)
        sent.update(medium.hash for medium in ask.media)
        if answer["version"] != version:
            raise Unusable(f"{self.url} answered with weights {answer['version']}, not {version}")
        return wire.unpack_answer(answer)

    def take_weights(self, push: Mapping[str, Any], version: str, seconds: float) -> None:
        """Let the server load pushed weights; raises UserError where they do not fit its model."""
        body = json.dumps({"push": dict(push), "version": version}).encode()
        self._call("POST", wire.WEIGHTS, body, seconds)

    def _call(self, method: str, path: str, body: bytes | None, seconds: float) -> dict[str, Any]:
        # Nothing is sent back before the whole answer, so the socket's limit is the deadline.
        connection = self._connect(self._host, self._port, timeout=seconds)
        try:
            connection.request(method, path, body, {"x-mmrl-key": self._key})
            response = connection.getresponse()
            text, status = response.read(), response.status
        except TimeoutError:
            raise Late(f"{self.url} did not answer within {seconds:g} s") from None
        except (OSError, http.client.HTTPException) as error:
            raise Unusable(f"{self.url}: {type(error).__name__} {error}") from None
        finally:
            connection.close()
        return self._read(status, text)

    def _read(self, status: int, text: bytes) -> dict[str, Any]:
        try:
            answer = json.loads(text)
        except ValueError:
            answer = {"error": f"HTTP {status}: {text[:200].decode(errors='replace')}"}
        if status == http.client.OK and isinstance(answer, dict):
            return answer
        reason = (
            f"{self.url}: {answer.get('error', answer) if isinstance(answer, dict) else answer}"
        )
        if status == wire.LACKING:
            raise wire.Lacking(reason)
        if status == http.client.NOT_FOUND:
            raise UserError(
                f"{self.url} is no server of mmrl: start it with `mmrl serve CONFIG.yaml`"
            )
        if status in (wire.REFUSED, http.client.UNAUTHORIZED):
            raise UserError(reason)
        raise Unusable(reason)
