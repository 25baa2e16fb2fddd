"""What a child process that meets untrusted data may know of this one's environment."""

from __future__ import annotations

import os
import re
from collections.abc import Collection

_SECRET = re.compile(
    r"(^|_)(api_?keys?|keys?|tokens?|secrets?|passw(or)?d|passphrase|credentials?|auth)(_|$)", re.I
)
_PASSWORD_IN_ADDRESS = re.compile(r"://[^/\s:@]*:[^/\s@]+@")


def without_secrets(shown: Collection[str] = ()) -> dict[str, str]:
    """This process's environment without what looks like a secret, but for the names in `shown`."""
    hidden = hidden_names(shown)
    return {name: value for name, value in os.environ.items() if name not in hidden}


def hidden_names(shown: Collection[str] = ()) -> set[str]:
    """Names of variables that look like secrets, without those in `shown`.

    A name with KEY, TOKEN, SECRET, PASSWORD, CREDENTIALS or AUTH as a word of its own is one, and
    so is a value with a password in an address, but for proxies, which a download needs.
    """
    return {n for n, value in os.environ.items() if n not in shown and _is_secret(n, value)}


def _is_secret(name: str, value: str) -> bool:
    if name.lower().endswith("_proxy"):
        return False
    return bool(_SECRET.search(name) or _PASSWORD_IN_ADDRESS.search(value))
