"""Decoders that misbehave, for the child process of the tests to import."""

from __future__ import annotations

import os
import time


def hang(source: object, arguments: object) -> None:
    """Never return."""
    time.sleep(1000)


def crash(source: object, arguments: object) -> None:
    """Take the process down."""
    os._exit(11)
