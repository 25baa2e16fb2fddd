"""A download in a decoding child: http and https only, and no address that is not public."""

from __future__ import annotations

import ipaddress
import socket
import urllib.error
import urllib.request
from collections.abc import Collection, Mapping
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from mmrl.errors import MediaError, one_line
from mmrl.modalities import decode_worker
from mmrl.modalities.source import REMOTE


def download(url: Path | bytes, arguments: Mapping[str, Any]) -> decode_worker.Decoded:
    """The whole body of a page as one array of bytes [size]; raises MediaError.

    `arguments` are max_bytes, timeout_seconds and private_hosts, the hosts whose addresses need
    not be public.
    """
    assert isinstance(url, bytes)
    opener = _opener(frozenset(arguments["private_hosts"]))
    try:
        with opener.open(url.decode(), timeout=arguments["timeout_seconds"]) as response:
            return {}, [np.frombuffer(_read(response, arguments["max_bytes"]), dtype=np.uint8)]
    except (urllib.error.URLError, HTTPException, OSError, ValueError) as error:
        raise MediaError(one_line(error) or type(error).__name__) from None


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


def _opener(private_hosts: Collection[str]) -> urllib.request.OpenerDirector:
    """What opens addresses, each connection of a redirect included."""
    proxies = {urlsplit(address).hostname for address in urllib.request.getproxies().values()}
    allowed = frozenset(private_hosts) | proxies

    class Http(HTTPConnection):
        def connect(self) -> None:
            _look_up(self.host, self.port, allowed)
            super().connect()
            _look_at(self.host, self.sock, allowed)

    class Https(HTTPSConnection):
        def connect(self) -> None:
            _look_up(self.host, self.port, allowed)
            super().connect()
            _look_at(self.host, self.sock, allowed)

    class OpenHttp(urllib.request.HTTPHandler):
        def http_open(self, req: urllib.request.Request) -> HTTPResponse:
            return self.do_open(Http, req)

    class OpenHttps(urllib.request.HTTPSHandler):
        def https_open(self, req: urllib.request.Request) -> HTTPResponse:
            return self.do_open(Https, req)

    return urllib.request.build_opener(OpenHttp, OpenHttps, _WebOnly)


def _look_up(host: str, port: int, allowed: Collection[str | None]) -> None:
    """Refuse a host with an address that is not public, before it is reached."""
    if host not in allowed:
        for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            _refuse_private(host, str(found[4][0]))


def _look_at(host: str, reached: socket.socket, allowed: Collection[str | None]) -> None:
    """Refuse the address that was reached: since `_look_up` the name may have got another."""
    if host not in allowed:
        _refuse_private(host, str(reached.getpeername()[0]))


def _refuse_private(host: str, address: str) -> None:
    """Raise where an address is that of this machine, of a local network or of no host at all."""
    found = ipaddress.ip_address(address.partition("%")[0])
    found = getattr(found, "ipv4_mapped", None) or found
    if not found.is_global or found.is_multicast:
        raise urllib.error.URLError(f"{host} is not public: name it in private_hosts to allow it")


class _WebOnly(urllib.request.HTTPRedirectHandler):
    """Refuses redirects that leave the web, such as to file: or ftp:."""

    def redirect_request(  # type: ignore[no-untyped-def]
        self, req, fp, code, msg, headers, newurl: str
    ) -> urllib.request.Request | None:
        if not newurl.startswith(REMOTE):
            raise urllib.error.URLError(f"redirect to {newurl[:60]}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)
