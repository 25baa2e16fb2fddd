"""Rewards that misbehave: a module of their own, since scoring workers import it."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

SECONDS = 600.0


def _fair(completions: list[str]) -> list[float]:
    return [float(len(text) % 3) for text in completions]


def _now_and_then(columns: dict[str, Any]) -> bool:
    """Whether this call misbehaves: for every fourth prompt it does."""
    return columns["number"][0] % 4 == 0


def hangs(prompts: list[Any], completions: list[str], **columns: Any) -> list[float]:
    if _now_and_then(columns):
        time.sleep(SECONDS)
    return _fair(completions)


def crashes(prompts: list[Any], completions: list[str], **columns: Any) -> list[float]:
    if _now_and_then(columns):
        os._exit(11)
    return _fair(completions)


def leaks(prompts: list[Any], completions: list[str], **columns: Any) -> list[float]:
    if _now_and_then(columns):
        leaked.extend(bytearray(64 << 20) for _ in range(1000))
    return _fair(completions)


def forks(prompts: list[Any], completions: list[str], **columns: Any) -> list[float]:
    if _now_and_then(columns):
        os.fork()
    return _fair(completions)


def prints(prompts: list[Any], completions: list[str], **columns: Any) -> list[float]:
    print("x" * 100, flush=True)
    sys.stderr.write("y" * 100 + "\n")
    return _fair(completions)


def says_nonsense(prompts: list[Any], completions: list[str], **columns: Any) -> Any:
    """NaN, a text, infinity, nothing, no list: one kind a call."""
    kinds = ([float("nan")], ["good"], [float("inf")], [], {"a": 1})
    if _now_and_then(columns):
        return kinds[columns["number"][0] // 4 % len(kinds)]
    return _fair(completions)


def raises(prompts: list[Any], completions: list[str], **columns: Any) -> list[float]:
    if _now_and_then(columns):
        raise RuntimeError("no verdict")
    return _fair(completions)


leaked: list[bytearray] = []
