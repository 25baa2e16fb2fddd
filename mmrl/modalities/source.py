"""Where the bytes of a medium come from: a file, the record itself, or a URL where allowed."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any

import numpy as np

from mmrl.errors import MediaError
from mmrl.modalities import decode_worker
from mmrl.modalities.options import Options
from mmrl.types import MediaRef

REMOTE = ("http://", "https://")


def resolve(ref: MediaRef, options: Options) -> Path | bytes:
    """The file or the bytes of a medium.

    Raises MediaError for a missing or oversized file, and for a URL that is not allowed, too
    large, too slow or unreachable.
    """
    source = ref.source
    if isinstance(source, tuple):
        raise MediaError(f"{len(source)} sources for one {ref.kind}")
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
    """Download within the size and time limits; only http and https, redirects included.

    It happens in a child process, so that the deadline holds for name lookup and headers too.
    """
    if not url.startswith(REMOTE):
        raise MediaError(f"not a path or an http(s) URL: {url[:60]}")
    if not options.allow_remote:
        raise MediaError(f"remote media are refused: set allow_remote for {url[:60]}")
    arguments = {"max_bytes": options.max_bytes, "timeout_seconds": options.timeout_seconds}
    job = f"{__name__}:download"
    try:
        _, (body,) = decode_worker.run(job, url.encode(), arguments, options.timeout_seconds)
    except MediaError as error:
        raise MediaError(f"cannot fetch {url[:60]}: {error}") from None
    return body.tobytes()


def download(url: Path | bytes, arguments: Mapping[str, Any]) -> decode_worker.Decoded:
    """The whole body of a page as one array of bytes; runs in a decoding child."""
    assert isinstance(url, bytes)
    try:
        with _OPENER.open(url.decode(), timeout=arguments["timeout_seconds"]) as response:
            return {}, [np.frombuffer(_read(response, arguments["max_bytes"]), dtype=np.uint8)]
    except (urllib.error.URLError, HTTPException, OSError, ValueError) as error:
        raise MediaError(" ".join(str(error).split())[:200] or type(error).__name__) from None


def _read(response: HTTPResponse, max_bytes: int) -> bytes:
    body = response.read(max_bytes + 1)
    if len(body) > max_bytes:
        raise MediaError(f"it is over max_bytes={max_bytes}")
    # A connection that closes early is no error to `read` with a size.
    if response.length:
        raise MediaError(f"it ended {response.length} bytes early")
    if not body:
        raise MediaError("it is empty")
    return body


class _WebOnly(urllib.request.HTTPRedirectHandler):
    """Refuses redirects that leave the web, such as to file: or ftp:."""

    def redirect_request(  # type: ignore[no-untyped-def]
        self, req, fp, code, msg, headers, newurl: str
    ) -> urllib.request.Request | None:
        if not newurl.startswith(REMOTE):
            raise urllib.error.URLError(f"redirect to {newurl[:60]}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


_OPENER = urllib.request.build_opener(_WebOnly)
