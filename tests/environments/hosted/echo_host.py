"""Somebody else's environments, in Python alone: squares are shown, a number is paid.

An episode shows a square a turn, of `turns` turns. `settings["how"]`: `appends` says all again and
more; `forgets` says the first message anew from the second turn on; `asks_twice` asks the second
turn two times; `dies`, `raises` and `otherwise` (another question than the record's) fail.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

HOSTS = Path(__file__).parents[3] / "mmrl" / "environments" / "hosts"
sys.path.insert(0, str(HOSTS))
from gymnasium_host import png  # noqa: E402
from host_lines import Tell, own_output, serve  # noqa: E402


class Square:
    """The picture that `png` takes, without numpy."""

    def __init__(self, colour: tuple[int, int, int], side: int) -> None:
        self.shape = (side, side)
        self._row = bytes(colour) * side

    def __getitem__(self, place: Any) -> Square:
        return self

    def tobytes(self) -> bytes:
        return self._row


def square(turn: int, index: int) -> dict[str, Any]:
    data = png(Square((40 * turn % 256, 60 * index % 256, 90), 56))
    url = "data:image/png;base64," + base64.b64encode(data).decode()
    shown = {"type": "image_url", "image_url": {"url": url}}
    return {"role": "user", "content": [shown, {"type": "text", "text": f"Square {turn}?"}]}


def ask(order: dict[str, Any], messages: list[dict[str, Any]]) -> dict[str, Any]:
    body = {"model": order["model"], "messages": messages, "return_token_ids": True}
    request = urllib.request.Request(
        f"{order['url']}/chat/completions",
        json.dumps(body).encode(),
        {"content-type": "application/json"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=600) as answer:
            return json.load(answer)["choices"][0]["message"]
    except urllib.error.HTTPError as error:
        raise RuntimeError(error.read().decode()) from None


def played(settings: dict[str, Any], order: dict[str, Any]) -> float:
    how, index = settings["how"], order["index"]
    first = (
        {"role": "user", "content": "Something else?"} if how == "otherwise" else square(0, index)
    )
    messages = [first, ask(order, [first])]
    for turn in range(1, settings.get("turns", 3)):
        if how == "raises":
            raise ValueError("the world has ended")
        if how == "dies":
            os._exit(7)
        messages.append(square(turn, index))
        if how == "forgets":
            messages[0] = {"role": "user", "content": "A square was here."}
        if how == "asks_twice" and turn == 1:
            ask(order, messages)
        messages.append(ask(order, messages))
    return float(index)


async def main(stream: Any, settings: dict[str, Any]) -> None:
    async def play(order: dict[str, Any], tell: Tell) -> float:
        tell({"index": order["index"]})
        return await asyncio.to_thread(played, settings, order)

    await serve(stream, play, 100)


if __name__ == "__main__":
    asyncio.run(main(own_output(), json.loads(sys.argv[1])))
