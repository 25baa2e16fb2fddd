"""A server in OpenAI's form for tests of judges: real sockets, and faults on request."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = Callable[[str, int], str]
"""The text of a question and its number -> what the judge says, or a fault by its name."""


class JudgeServer:
    """Answers by `reply`; `slow`, `drip`, `500`, `garbage`, `empty` and `hangup` are faults."""

    def __init__(self, reply: Reply) -> None:
        self.reply, self.asked, self.bodies = reply, 0, list[dict[str, Any]]()
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with server._lock:
                    number, server.asked = server.asked, server.asked + 1
                    server.bodies.append(body)
                content = body["messages"][0]["content"]
                text = "".join(part.get("text", "") for part in content)
                self._answer(server.reply(text, number))

            def _answer(self, said: str) -> None:
                if said == "hangup":
                    self.close_connection = True
                    return
                if said == "slow":
                    time.sleep(1.5)
                # What comes too late, or with an error, is a verdict all the same.
                late = said in ("slow", "drip", "500")
                content = "<score>5</score>" if late else said
                message = {"choices": [{"message": {"content": content}}]}
                spent = {"prompt_tokens": 100, "completion_tokens": 10}
                whole = json.dumps({**message, "usage": spent})
                sent = {"garbage": "{]"}.get(said, said if said[:1] in "[{" else whole).encode()
                self.send_response(500 if said == "500" else 200)
                if said != "drip":
                    self.send_header("content-length", str(len(sent)))
                self.end_headers()
                for at in range(0, len(sent), 1 if said == "drip" else len(sent)):
                    try:
                        self.wfile.write(sent[at : at + 1] if said == "drip" else sent)
                    except OSError:
                        return
                    time.sleep(0.1 if said == "drip" else 0.0)

            def log_message(self, *args: object) -> None:
                """Nothing is said on the terminal."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        """Stop listening: from now on connections are refused."""
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> JudgeServer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
