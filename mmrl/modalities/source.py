"""Where the bytes of a medium come from: a file, the record itself, or a URL where allowed."""

from __future__ import annotations

from pathlib import Path

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
    size = len(source) if isinstance(source, bytes) else _size(ref.kind, source)
    if size == 0:
        raise MediaError(f"empty {ref.kind} file")
    if size > options.max_bytes:
        raise MediaError(f"{ref.kind} of {size} bytes is over max_bytes={options.max_bytes}")
    return source


def fetch(url: str, options: Options) -> bytes:
    """Download within the size and time limits; only http and https, redirects included.

    Addresses that are not public are refused unless their host is named in `private_hosts`. It
    happens in a child process, so that the deadline holds for name lookup and headers too.
    """
    if not url.startswith(REMOTE):
        raise MediaError(f"not a path or an http(s) URL: {url[:60]}")
    if not options.allow_remote:
        raise MediaError(f"remote media are refused: set allow_remote for {url[:60]}")
    arguments = {
        "max_bytes": options.max_bytes,
        "timeout_seconds": options.timeout_seconds,
        "private_hosts": options.private_hosts,
    }
    job = "mmrl.modalities.download:download"
    try:
        _, (body,) = decode_worker.run(job, url.encode(), arguments, options.timeout_seconds)
    except MediaError as error:
        raise MediaError(f"cannot fetch {url[:60]}: {error}") from None
    return body.tobytes()


def _size(kind: str, path: Path) -> int:
    """Bytes of a file; a path that is none, too long or not readable raises MediaError."""
    try:
        if path.is_file():
            return path.stat().st_size
    except OSError as error:
        raise MediaError(f"cannot read the {kind}: {error.strerror}") from None
    raise MediaError(f"no {kind} at {path}")
