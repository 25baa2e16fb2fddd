"""qwen-vl-utils' messages become parts; what a sample cannot hold is refused."""

from __future__ import annotations

import base64
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmrl.errors import MediaError
from mmrl.modalities import messages
from mmrl.modalities.options import Options
from mmrl.modalities.source import resolve
from mmrl.types import MediaRef, Text

ROOT = Path("/data")


def user(*content: dict[str, object]) -> list[dict[str, object]]:
    return [{"role": "user", "content": list(content)}]


def test_parts_in_order_with_settings() -> None:
    conversation = [
        {"role": "system", "content": "Be brief."},
        *user(
            {"type": "image", "image": "file:///data/a%20b.png", "max_pixels": 50176},
            {"type": "text", "text": "and"},
            {"type": "video", "video": "v/clip.mp4", "fps": 1.0, "video_start": 2.0, "nframes": 8},
            {"type": "audio", "audio": "https://example.org/x.wav"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAEC"}},
        ),
        {"role": "assistant", "content": [{"type": "text", "text": "Yes."}]},
    ]
    parts, system, target = messages.read(conversation, ROOT)
    assert (system, target) == ("Be brief.", "Yes.")
    assert parts == (
        MediaRef("image", Path("/data/a b.png"), {"max_pixels": 50176}),
        Text("and"),
        MediaRef("video", Path("/data/v/clip.mp4"), {"fps": 1.0, "start": 2.0, "frames": 8}),
        MediaRef("audio", "https://example.org/x.wav"),
        MediaRef("image", base64.b64decode("AAEC")),
    )


def test_plain_text_and_sizes() -> None:
    assert messages.read([{"role": "user", "content": "Hi"}], ROOT) == ((Text("Hi"),), None, None)
    (part,), _, _ = messages.read(
        user({"image": "a.png", "resized_height": 28, "resized_width": 56}), ROOT
    )
    assert isinstance(part, MediaRef) and part.options == {"size": (56, 28)}


@pytest.mark.parametrize(
    ("conversation", "reason"),
    [
        (user({"image": "../secret.png"}), "leaves the data folder"),
        (user({"image": "file:///etc/passwd"}), "leaves the data folder"),
        (user({"video": ["1.jpg", "2.jpg"]}), "frames in place of a video"),
        (user({"image": "a.png", "zoom": 2}), "'zoom' has no counterpart"),
        (user({"image": "data:image/png,zz"}), "must be base64"),
        (user({"type": "box"}), "neither text nor a medium"),
        (user() + user(), "'user' again"),
        ([{"role": "system", "content": "x"}], "no user turn"),
    ],
)
def test_what_a_sample_cannot_hold(conversation: list[dict[str, object]], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        messages.read(conversation, ROOT)


class Pages(http.server.BaseHTTPRequestHandler):
    """A page of 1000 bytes; /moved leads to a file."""

    def do_GET(self) -> None:
        moved = self.path == "/moved"
        self.send_response(302 if moved else 200)
        if moved:
            self.send_header("Location", "file:///etc/passwd")
        self.end_headers()
        self.wfile.write(b"x" * 1000)

    def log_message(self, *args: object) -> None:
        """Keep quiet."""


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "*")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_remote_media_where_allowed(site: str) -> None:
    allowed = Options(allow_remote=True)
    assert resolve(MediaRef("image", f"{site}/a"), allowed) == b"x" * 1000
    with pytest.raises(MediaError, match="over max_bytes=999"):
        resolve(MediaRef("image", f"{site}/a"), Options(allow_remote=True, max_bytes=999))
    with pytest.raises(MediaError, match="cannot fetch"):
        resolve(MediaRef("image", f"{site}/moved"), allowed)
    with pytest.raises(MediaError, match="refused"):
        resolve(MediaRef("image", f"{site}/a"), Options())
