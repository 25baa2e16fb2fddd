"""Plays environments of `gymnasium` as a chat: what is seen is said, a reply is an action.

    {"id": "CartPole-v1", "kwargs": {}, "import": "package.that.registers",
     "goal": "Balance the pole.", "actions": ["left", "right"], "steps": 50, "show": "auto"}

An observation that is a picture (uint8, [H, W, 3]) is shown as one, others are written out; with
`show: render` the environment's own picture is shown instead. An action is a name of `actions` or a
number, of other spaces a JSON list. A reply that is none takes a turn. The reward is the sum of the
steps', times `scale`.
"""

from __future__ import annotations

import asyncio
import base64
import importlib
import json
import re
import struct
import sys
import urllib.request
import zlib
from typing import Any

from host_lines import Tell, fail, own_output, serve

SECONDS = 3600.0


def png(pixels: Any) -> bytes:
    """A picture [H, W, 3] of uint8 as a PNG, without another package."""
    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + pixels[y, :, :3].tobytes() for y in range(height))

    def chunk(name: bytes, data: bytes) -> bytes:
        checked = name + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(*part) for part in ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    )


def said(observation: Any, text: str) -> dict[str, Any]:
    """A user's message that says a text and shows an observation."""
    if getattr(observation, "dtype", None) == "uint8" and getattr(observation, "ndim", 0) == 3:
        url = "data:image/png;base64," + base64.b64encode(png(observation)).decode()
        parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": url}}]
    else:
        plain = observation.tolist() if hasattr(observation, "tolist") else observation
        parts = [{"type": "text", "text": json.dumps(plain, default=str)}]
    before = [{"type": "text", "text": f"{text}\n"}] if text else []
    return {"role": "user", "content": [*before, *parts]}


def action_of(reply: str, space: Any, names: list[str]) -> Any:
    """The action that a reply is; None where it is none."""
    import numpy as np

    text = reply.strip()
    words = re.findall(r"[a-z_]+", text.lower())
    named = [i for i, name in enumerate(names) if name.lower() in words]
    if len(named) == 1:
        value: Any = named[0]
    else:
        found = re.findall(r"-?\d+(?:\.\d+)?", text)
        try:
            value = json.loads(text) if text.startswith("[") else int(found[0])
        except (ValueError, IndexError):
            return None
    start = int(getattr(space, "start", 0))
    if hasattr(space, "n"):
        ok = isinstance(value, int)
        return start + value if ok and space.contains(np.int64(start + value)) else None
    try:
        action = np.asarray(value, dtype=space.dtype).reshape(space.shape)
    except (ValueError, TypeError, OverflowError):
        return None
    return action if space.contains(action) else None


def ask(order: dict[str, Any], messages: list[dict[str, Any]]) -> str:
    """The model's reply."""
    body = json.dumps({"model": order["model"], "messages": messages}).encode()
    request = urllib.request.Request(
        f"{order['url']}/chat/completions", body, {"content-type": "application/json"}
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=SECONDS) as answer:
        message = json.load(answer)["choices"][0]["message"]
    return str(message["content"] or "")


def played(settings: dict[str, Any], order: dict[str, Any]) -> float:
    """One episode from its seed; returns what its steps earned."""
    import gymnasium

    render = settings.get("show") == "render"
    kwargs = dict(settings.get("kwargs") or {})
    if render:
        kwargs["render_mode"] = "rgb_array"
    world = gymnasium.make(settings["id"], **kwargs)
    names = list(settings.get("actions") or [])
    try:
        seen, _ = world.reset(seed=int(order["index"]))
        total = 0.0
        goal = str(settings.get("goal", ""))
        messages = [said(world.render() if render else seen, goal)]
        for _ in range(int(settings.get("steps", 100))):
            reply = ask(order, messages)
            messages.append({"role": "assistant", "content": reply})
            action = action_of(reply, world.action_space, names)
            if action is None:
                messages.append({"role": "user", "content": "That is no action."})
                continue
            seen, reward, terminated, truncated, _ = world.step(action)
            total += float(reward)
            if terminated or truncated:
                break
            messages.append(said(world.render() if render else seen, ""))
        return total * float(settings.get("scale", 1.0))
    finally:
        world.close()


async def main(stream: Any, settings: dict[str, Any]) -> None:
    if settings.get("import"):
        importlib.import_module(settings["import"])
    import gymnasium

    gymnasium.spec(settings["id"])
    limit = asyncio.Semaphore(64)

    async def play(order: dict[str, Any], tell: Tell) -> float:
        async with limit:
            return await asyncio.to_thread(played, settings, order)

    await serve(stream, play, None)


if __name__ == "__main__":
    output = own_output()
    try:
        asyncio.run(main(output, json.loads(sys.argv[1])))
    except Exception as error:
        fail(output, error)
