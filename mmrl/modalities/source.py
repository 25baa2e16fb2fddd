"""Where the bytes of a medium come from: a file, the record itself, or a URL where allowed."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from pathlib import Path

from mmrl.errors import MediaError
from mmrl.modalities.options import Options
from mmrl.types import MediaRef

REMOTE = ("http://", "https://")
CHUNK_BYTES = 1 << 16


def resolve(ref: MediaRef, options: Options) -> Path | bytes:
    """The file or the bytes of a medium.

    Raises MediaError for a missing or oversized file, and for a URL that is not allowed, too
    large, too slow or unreachable.
    """
    source = ref.source
    if isinstance(source, str):
        return fetch(source, options)
    if isinstance(source, bytes):
        size = len(source)
    elif source.is_file():
        size = source.stat().st_size
    else:
        raise MediaError(f"no {ref.kind} at {source}")
    if size == 0:
        raise MediaError(f"empty {ref.kind} file")
    if size > options.max_bytes:
        raise MediaError(f"{ref.kind} of {size} bytes is over max_bytes={options.max_bytes}")
    return source


def fetch(url: str, options: Options) -> bytes:
    """Download within the size and time limits; only http and https, redirects included."""
    if not url.startswith(REMOTE):
        raise MediaError(f"not a path or an http(s) URL: {url[:60]}")
    if not options.allow_remote:
        raise MediaError(f"remote media are refused: set allow_remote for {url[:60]}")
    deadline = time.monotonic() + options.timeout_seconds
    try:
        with _OPENER.open(url, timeout=options.timeout_seconds) as response:
            return _read(response, deadline, options)
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise MediaError(f"cannot fetch {url[:60]}: {error}") from None


def _read(response: object, deadline: float, options: Options) -> bytes:
    pieces: list[bytes] = []
    size = 0
    # read1 returns what has arrived, so that a server that trickles cannot outlast the deadline.
    while piece := response.read1(CHUNK_BYTES):  # type: ignore[attr-defined]
        size += len(piece)
        if size > options.max_bytes:
            raise MediaError(f"download is over max_bytes={options.max_bytes}")
        if time.monotonic() > deadline:
            raise MediaError(f"download took over {options.timeout_seconds:g} s")
        pieces.append(piece)
    return b"".join(pieces)


class _WebOnly(urllib.request.HTTPRedirectHandler):
    """Refuses redirects that leave the web, such as to file: or ftp:."""

    def redirect_request(  # type: ignore[no-untyped-def]
        self, req, fp, code, msg, headers, newurl: str
    ) -> urllib.request.Request | None:
        if not newurl.startswith(REMOTE):
            raise urllib.error.URLError(f"redirect to {newurl[:60]}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


_OPENER = urllib.request.build_opener(_WebOnly)
