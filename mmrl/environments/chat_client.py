"""One chat completion of a server in OpenAI's form, within a deadline as a whole."""

from __future__ import annotations

import http.client
import json
import os
import socket
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from mmrl.errors import ConfigError

MAX_REPLY_BYTES = 1 << 22


class ChatClient:
    """Posts to `url`/chat/completions; `key_variable` names the environment variable of its key.

    Raises ConfigError at an address that is none, and where the variable is not set.
    """

    def __init__(self, url: str, seconds: float, key_variable: str | None = None) -> None:
        self._url, self._seconds = urlsplit(url.rstrip("/") + "/chat/completions"), seconds
        if self._url.scheme not in ("http", "https") or not self._url.hostname:
            raise ConfigError(f"url '{url}': write it as http://host:port/v1")
        self._key = os.environ.get(key_variable, "") if key_variable else ""
        if key_variable and not self._key:
            raise ConfigError(f"key_variable: {key_variable} is not set")

    def complete(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """The reply to a request; a server that drips has no more time than another.

        Raises what its sockets raise, and ValueError at a status or a body that is no reply.
        """
        deadline = time.monotonic() + self._seconds
        secure = self._url.scheme == "https"
        connect = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = connect(self._url.hostname or "", self._url.port, timeout=self._seconds)
        try:
            headers = {"Content-Type": "application/json"}
            if self._key:
                headers["Authorization"] = f"Bearer {self._key}"
            connection.request("POST", self._url.path, json.dumps(dict(body)).encode(), headers)
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


def said_in(reply: Mapping[str, Any]) -> str:
    """What the model says in a reply; raises where that is not there."""
    return str(reply["choices"][0]["message"]["content"])


def _within(held: socket.socket, deadline: float) -> None:
    """Let the next read take no longer than is left; raises TimeoutError where nothing is."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the deadline is over")
    held.settimeout(left)
