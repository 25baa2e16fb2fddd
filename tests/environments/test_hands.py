"""What a browser is told for an action, in order: a browser of its own is in test_browser.py."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mmrl.environments.hands import carry_out


def told(action: dict[str, Any]) -> list[str]:
    """Kinds of mouse events and scripts, and where pictures under the mouse are waited for."""
    said: list[str] = []

    async def send(method: str, **more: Any) -> dict[str, Any]:
        said.append(more.get("type", "script"))
        return {}

    async def arrived() -> None:
        said.append("arrived")

    asyncio.run(carry_out(send, action, (0.0, 0.0), arrived=arrived))
    return said


@pytest.mark.parametrize("kind", ["click", "right_click"])
def test_a_button_is_seen_before_it_is_pressed(kind: str) -> None:
    assert told({"type": kind, "x": 1, "y": 2}) == [
        "mouseMoved", "arrived", "mousePressed", "mouseReleased",
    ]  # fmt: skip


def test_both_ends_of_a_drag_are_seen_before_it_begins_and_ends() -> None:
    """What stands at its end decides what it selects (`social-media`, a row lights up there)."""
    said = told({"type": "drag", "x": 1, "y": 2, "to_x": 30, "to_y": 40})
    assert said[:4] == ["script", "mouseMoved", "arrived", "mousePressed"]
    assert set(said[4:-4]) == {"mouseMoved"}
    assert said[-4:] == ["arrived", "script", "mouseReleased", "script"]
