"""What every host's program does: read orders from stdin, carry them out, say how they ended.

Standard output is kept for that; what else is printed goes to standard error. Needs Python alone.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Any

Tell = Callable[[dict[str, Any]], None]
Play = Callable[[dict[str, Any], Tell], Awaitable[float]]
"""Plays the episode of an order, tells what it is about, and returns its reward, or raises."""


def own_output() -> Any:
    """The stream that the other side reads; prints of libraries go elsewhere from now on."""
    stream = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return stream


async def serve(stream: Any, play: Play, count: int | None) -> None:
    """Carry orders out until there are no more; episodes run side by side."""
    loop = asyncio.get_running_loop()
    orders: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    def read() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(orders.put_nowait, json.loads(line))
        loop.call_soon_threadsafe(orders.put_nowait, None)

    def say(value: dict[str, Any]) -> None:
        stream.write(json.dumps(value) + "\n")
        stream.flush()

    def began(name: str, about: dict[str, Any]) -> None:
        say({"began": name, "about": about})

    async def one(order: dict[str, Any]) -> None:
        try:
            about = functools.partial(began, order["play"])
            reward = await play(order, about)
        except asyncio.CancelledError:
            return
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            say({"ended": order["play"], "reward": None, "error": reason[:500]})
        else:
            say({"ended": order["play"], "reward": reward, "error": ""})

    def forget(name: str, task: asyncio.Task[None]) -> None:
        running.pop(name, None)

    threading.Thread(target=read, daemon=True).start()
    say({"ready": True, "count": count})
    running: dict[str, asyncio.Task[None]] = {}
    while (order := await orders.get()) is not None:
        if "stop" in order:
            if task := running.pop(order["stop"], None):
                task.cancel()
            continue
        task = asyncio.create_task(one(order))
        running[order["play"]] = task
        task.add_done_callback(functools.partial(forget, order["play"]))


def fail(stream: Any, error: BaseException) -> None:
    """Say why there is nothing to play."""
    reason = f"{type(error).__name__}: {error}"
    stream.write(json.dumps({"error": reason[:500]}) + "\n")
    stream.flush()
    raise SystemExit(1)
