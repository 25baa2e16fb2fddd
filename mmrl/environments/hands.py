"""What an action does to a page: the browser's own events of mouse and keyboard.

    {"type": "click", "x": 40, "y": 60}             also double_click, right_click, move_to,
                                                    long_press
    {"type": "drag", "x": 40, "y": 60, "to_x": 90, "to_y": 60}
    {"type": "scroll", "text": "down"}
    {"type": "type", "text": "abc"}                 a newline is Enter
    {"type": "hotkey", "text": "ctrl a"}            keys that are held together; also `enter`, `tab`

Places are in points of the screen; without x and y it is where the mouse is, at first the middle. A
type or key that pages have no use for does nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

Send = Callable[..., Awaitable[Any]]
"""Carries out a method of the browser, as `send(method, **arguments)`."""

Arrived = Callable[[], Awaitable[None]]

LONGEST_TEXT = 512
SCROLL = 120
DRAG_STEPS = 6
DIRECTIONS = {"down": (0, 1), "up": (0, -1), "right": (1, 0), "left": (-1, 0)}
MODIFIERS = {"alt": 1, "ctrl": 2, "control": 2, "meta": 4, "shift": 8}
KEYS = {
    "enter": ("Enter", 13, "\r"), "return": ("Enter", 13, "\r"), "tab": ("Tab", 9, ""),
    "escape": ("Escape", 27, ""), "esc": ("Escape", 27, ""), "backspace": ("Backspace", 8, ""),
    "delete": ("Delete", 46, ""), "space": (" ", 32, " "), "up": ("ArrowUp", 38, ""),
    "down": ("ArrowDown", 40, ""), "left": ("ArrowLeft", 37, ""), "right": ("ArrowRight", 39, ""),
    "home": ("Home", 36, ""), "end": ("End", 35, ""), "pageup": ("PageUp", 33, ""),
    "pagedown": ("PageDown", 34, ""),
}  # fmt: skip
COMMANDS = {"a": "selectAll", "c": "copy", "x": "cut", "v": "paste", "z": "undo"}
"""What a headless browser does at Ctrl with a letter only where it is told so."""


async def carry_out(
    send: Send,
    action: Mapping[str, Any],
    mouse: tuple[float, float],
    *,
    arrived: Arrived,
    key_by_key: bool = False,
) -> tuple[float, float]:
    """Carry one action out, the mouse being at a place; returns where it then is.

    `arrived` waits until the page shows that the mouse is over something: a picture that is another
    then must be there to be pressed. `key_by_key`: text is typed with a key down and up for each
    character, not put in as a whole.
    """
    kind, text = action["type"], str(action.get("text", ""))[:LONGEST_TEXT]
    x, y = float(action.get("x", mouse[0])), float(action.get("y", mouse[1]))
    end = x, y
    match kind:
        case "click" | "double_click" | "right_click" | "move_to" | "long_press":
            await _point(send, kind, x, y, arrived)
        case "drag":
            end = float(action.get("to_x", x)), float(action.get("to_y", y))
            await _drag(send, (x, y), end, arrived)
        case "scroll" if text in DIRECTIONS:
            right, down = DIRECTIONS[text]
            await _mouse(send, "mouseWheel", x, y, deltaX=right * SCROLL, deltaY=down * SCROLL)
        case "type":
            await _type(send, text, key_by_key)
        case "enter" | "tab":
            await _press(send, kind, 0)
        case "hotkey":
            *held, key = [name.lower() for name in text.replace("+", " ").split()] or [""]
            await _press(send, key, sum({MODIFIERS.get(name, 0) for name in held}))
    return end


async def _point(send: Send, kind: str, x: float, y: float, arrived: Arrived) -> None:
    await _mouse(send, "mouseMoved", x, y)
    await arrived()
    if kind == "move_to":
        return
    button = "right" if kind == "right_click" else "left"
    for number in range(1, 3 if kind == "double_click" else 2):
        for event in ("mousePressed", "mouseReleased"):
            await _mouse(send, event, x, y, button=button, clickCount=number)


HOLD = """(() => {
  const parts = [document.scrollingElement, ...document.querySelectorAll('*')];
  const held = parts.filter(e => e).map(e => [e, e.scrollTop, e.scrollLeft]);
  const drag = window.mmrlDrag = { held, selects: false };
  drag.back = () => {
    for (const [e, top, left] of drag.held)
      if (e.scrollTop !== top || e.scrollLeft !== left) { e.scrollTop = top; e.scrollLeft = left; }
  };
  document.addEventListener('scroll', drag.back, true);
  drag.hear = event => { drag.selects = !event.defaultPrevented; };
  window.addEventListener('selectstart', drag.hear);
  const box = document.activeElement;
  if (box && typeof box.selectionStart === 'number')
    box.setSelectionRange(box.selectionEnd, box.selectionEnd);
  else getSelection().collapseToEnd && getSelection().rangeCount && getSelection().collapseToEnd();
})()"""
BACK = "window.mmrlDrag && mmrlDrag.back()"
LET_GO = """((from_x, from_y, to_x, to_y) => {
  const drag = window.mmrlDrag;
  if (!drag) return;
  delete window.mmrlDrag;
  window.removeEventListener('selectstart', drag.hear);
  document.removeEventListener('scroll', drag.back, true);
  drag.back();
  const at = (x, y) => document.caretPositionFromPoint && document.caretPositionFromPoint(x, y);
  const from = at(from_x, from_y);
  if (!from) return;
  const within = (e, x, y) => {
    for (e = e.nodeType === 1 ? e : e.parentElement; e && e !== document.body; e = e.parentElement)
      if (/auto|scroll/.test(getComputedStyle(e).overflowY) && e.clientHeight) {
        const r = e.getBoundingClientRect(), put = (v, a, b) => Math.min(Math.max(v, a + 1), b - 1);
        return at(put(x, r.left, r.right), put(y, r.top, r.bottom));
      }
    return at(x, y);
  };
  const to = within(from.offsetNode, to_x, to_y) || from;
  const box = from.offsetNode;
  if (typeof box.selectionStart === 'number') {
    const end = to.offsetNode === box ? to.offset : to_y > from_y ? box.value.length : 0;
    box.setSelectionRange(Math.min(from.offset, end), Math.max(from.offset, end));
  } else if (drag.selects)
    getSelection().setBaseAndExtent(box, from.offset, to.offsetNode, to.offset);
})"""
"""A browser scrolls by itself, frame by frame, while a selection is drawn near the edge of a part
that scrolls: how far, what it selects and where it ends is a matter of how busy the machine is. So
what a drag has scrolled goes back, also before it ends, and what is selected is what lies between
its ends, as far as that shows."""


async def _drag(
    send: Send, start: tuple[float, float], end: tuple[float, float], arrived: Arrived
) -> None:
    """A press, a way in steps with the button held, and a release; nothing is scrolled by it."""
    held: dict[str, Any] = {"button": "left", "clickCount": 1}
    await send("Runtime.evaluate", expression=HOLD)
    await _mouse(send, "mouseMoved", *start)
    await arrived()
    await _mouse(send, "mousePressed", *start, **held)
    for step in range(1, DRAG_STEPS + 1):
        part = step / DRAG_STEPS
        at = [a + (b - a) * part for a, b in zip(start, end, strict=True)]
        await _mouse(send, "mouseMoved", *at, button="left", buttons=1)
    await arrived()  # what is seen at the end may be another picture under the mouse
    await send("Runtime.evaluate", expression=BACK)
    await _mouse(send, "mouseReleased", *end, **held)
    await send("Runtime.evaluate", expression=f"{LET_GO}{(*start, *end)}")


async def _mouse(send: Send, event: str, x: float, y: float, **more: Any) -> None:
    await send("Input.dispatchMouseEvent", type=event, x=x, y=y, **more)


async def _type(send: Send, text: str, key_by_key: bool) -> None:
    first, *lines = text.split("\n")
    await _write(send, first, key_by_key)
    for line in lines:
        await _press(send, "enter", 0)
        await _write(send, line, key_by_key)


async def _write(send: Send, text: str, key_by_key: bool) -> None:
    if not (key_by_key and text.isascii()):
        if text:
            await send("Input.insertText", text=text)
        return
    for character in text:
        code = ord(character.upper())
        named = {"key": character, "windowsVirtualKeyCode": code}
        await send("Input.dispatchKeyEvent", type="keyDown", text=character, **named)
        await send("Input.dispatchKeyEvent", type="keyUp", **named)


async def _press(send: Send, name: str, modifiers: int) -> None:
    """One key, with others held; nothing where there is no such key."""
    commands: list[str] = []
    if name in KEYS:
        key, code, text = KEYS[name]
    elif len(name) == 1 and name.isascii() and name.isalnum():
        key, code, text = name, ord(name.upper()), "" if modifiers & ~8 else name
        if modifiers & 6 and name in COMMANDS:
            commands = [COMMANDS[name]]
    else:
        return
    named = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": modifiers}
    await send("Input.dispatchKeyEvent", type="keyDown", text=text, commands=commands, **named)
    await send("Input.dispatchKeyEvent", type="keyUp", **named)
