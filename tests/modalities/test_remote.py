"""Media at URLs: fetched only where allowed, within limits of size and time."""

from __future__ import annotations

import contextlib
import http.server
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from mmrl.errors import MediaError
from mmrl.modalities import decode_worker
from mmrl.modalities.options import Options
from mmrl.modalities.source import resolve
from mmrl.types import MediaRef


class Pages(http.server.BaseHTTPRequestHandler):
    """A page of 1000 bytes, and servers that misbehave, by the page's name."""

    def do_GET(self) -> None:
        getattr(self, f"{self.path[1:]}_page")()

    def whole_page(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"x" * 1000)

    def moved_page(self) -> None:
        self.send_response(302)
        self.send_header("Location", "file:///etc/passwd")
        self.end_headers()

    def inward_page(self) -> None:
        self.send_response(302)
        self.send_header("Location", f"http://localhost:{self.server.server_port}/whole")
        self.end_headers()

    def endless_page(self) -> None:
        self.send_response(200)
        self.end_headers()
        with contextlib.suppress(OSError):  # until the other side has had enough
            while True:
                self.wfile.write(b"x" * 1000)

    def early_page(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"x" * 400)

    def empty_page(self) -> None:
        self.send_response(200)
        self.end_headers()

    def silent_page(self) -> None:
        CLOSING.wait(60)

    def stalled_page(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"x")
        self.wfile.flush()
        CLOSING.wait(60)

    def trickle_page(self) -> None:
        """A header that grows by a byte before every pause is over."""
        with contextlib.suppress(OSError):
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
            while not CLOSING.wait(0.2):
                self.wfile.write(b"x")
                self.wfile.flush()

    def garbage_page(self) -> None:
        self.wfile.write(b"\0\1\2 no status\r\n\r\n")

    def missing_page(self) -> None:
        self.send_error(404)

    def log_message(self, *args: object) -> None:
        """Keep quiet."""


CLOSING = threading.Event()


def allowed(**options: Any) -> Options:
    """Options under which the tests' own site may be asked, which is on this machine."""
    return Options(allow_remote=True, private_hosts=("127.0.0.1",), **options)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "*")
    decode_worker.close()  # children keep the environment that they were born into
    CLOSING.clear()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    CLOSING.set()
    server.shutdown()


def test_remote_media_where_allowed(site: str) -> None:
    ref = MediaRef("image", f"{site}/whole")
    assert resolve(ref, allowed(max_bytes=1000)) == b"x" * 1000
    with pytest.raises(MediaError, match="refused"):
        resolve(ref, Options())


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        ("whole", "over max_bytes=999"),
        ("endless", "over max_bytes=999"),
        ("early", "ended 600 bytes early"),
        ("empty", "empty"),
        ("inward", "localhost is not public: name it in private_hosts"),
        ("moved", "'file:///etc/passwd' is not allowed"),
        ("missing", "404"),
        ("garbage", "no status"),
    ],
)
def test_pages_that_are_refused(site: str, page: str, reason: str) -> None:
    with pytest.raises(MediaError, match=f"cannot fetch .*{page}: .*({reason})"):
        resolve(MediaRef("image", f"{site}/{page}"), allowed(max_bytes=999))


@pytest.mark.parametrize("page", ["silent", "stalled", "trickle"])
def test_a_server_that_stalls_is_left_at_the_deadline(site: str, page: str) -> None:
    resolve(MediaRef("image", f"{site}/whole"), allowed())  # a child is up
    started = time.monotonic()
    with pytest.raises(MediaError, match=r"cannot fetch .*(timed out|took over 1 s)"):
        resolve(MediaRef("image", f"{site}/{page}"), allowed(timeout_seconds=1.0))
    assert time.monotonic() - started < 30


def test_an_address_that_is_none_is_refused() -> None:
    for url in ("http://", "http://[::1", "http://a b/c", "http://host:port/"):
        with pytest.raises(MediaError, match="cannot fetch"):
            resolve(MediaRef("image", url), Options(allow_remote=True, timeout_seconds=5.0))


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "10.1.2.3",
        "192.168.0.9",
        "169.254.169.254",
        "[fe80::1]",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",
        "224.0.0.1",
    ],
)
def test_addresses_that_are_not_public_are_refused(site: str, host: str) -> None:
    url = f"http://{host}:{site.rpartition(':')[2]}/whole"
    with pytest.raises(MediaError, match="is not public: name it in private_hosts"):
        resolve(MediaRef("image", url), Options(allow_remote=True, timeout_seconds=30.0))


def test_a_deadline_begins_when_the_child_is_up(site: str) -> None:
    decode_worker.close()
    begun = time.monotonic()
    with pytest.raises(MediaError, match=r"took over 1 s|timed out"):
        resolve(MediaRef("image", f"{site}/silent"), allowed(timeout_seconds=1.0))
    # A new child takes seconds at most; that much was once added to the deadline of each.
    assert time.monotonic() - begun < decode_worker.STARTUP_SECONDS / 2
