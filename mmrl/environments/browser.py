"""Pages in a real browser: a fresh context for each episode, settled before each screenshot."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from mmrl.environments.devtools import DevTools
from mmrl.environments.environment import EnvironmentFailure, Seen
from mmrl.environments.hands import LONGEST_TEXT, carry_out
from mmrl.task import FIRST_STATE

START_SECONDS, CALL_SECONDS, CLOSE_SECONDS = 120.0, 30.0, 5.0
"""Deadlines of a browser that starts cold on a busy machine, of a call, of an end."""
SETTLES, PATIENT = 40, 20
"""How often a page is looked at until it stands still, and how often what it asks for counts."""
LAID_OUT = "document.documentElement && document.documentElement.offsetHeight"

STILL = """
addEventListener('DOMContentLoaded', () => {
  const style = document.createElement('style');
  style.textContent = '*,*::before,*::after{animation:none!important;transition:none!important;' +
    'caret-color:transparent!important}';
  document.head.append(style);
});
"""
"""What would make two screenshots of one state differ is taken out of the page."""
TICKS = """new Promise(done => FRAME(() => FRAME(() => {
  let inner = 0;
  for (const each of document.querySelectorAll('*')) inner += each.scrollTop + each.scrollLeft;
  done([location.href, scrollX, scrollY, inner, document.readyState].join(' '));
})))"""
STATE = "JSON.stringify(window.mmrl.state())"
"""The contract of a page: `key`, `outcome` and `done` of what it now is."""


@dataclass(frozen=True)
class Account:
    """What a page says of itself; `reward` where it pays otherwise than by its outcome."""

    key: str
    outcome: float
    done: bool
    reward: float | None = None


@dataclass
class Pages:
    """A browser for pages below a folder; started when the first one is asked for.

    `clip` is the part of the window that is shown, from its corner; `frame` what draws a frame in a
    page, `key_by_key` how text is typed there.
    """

    kind: ClassVar[type[Page]]
    clip: ClassVar[tuple[int, int] | None] = None
    frame: ClassVar[str] = "requestAnimationFrame"
    key_by_key: ClassVar[bool] = False

    folder: Path
    width: int = 448
    height: int = 448
    pixel_ratio: float = 1.0
    generation: int = 0
    _browser: DevTools | None = None
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def open(self) -> Page:
        """A page in a context of its own."""
        async with self._lock:
            if self._browser is None:
                self._browser = await DevTools.start(START_SECONDS)
            browser = self._browser
        return await self.kind.opened(browser, self)

    async def restart(self, generation: int) -> None:
        """End the browser of that generation; whoever comes second finds the next one."""
        async with self._lock:
            if generation != self.generation:
                return
            self.generation += 1
            await self._end()

    async def close(self) -> None:
        """End the browser."""
        async with self._lock:
            await self._end()

    async def _end(self) -> None:
        browser, self._browser = self._browser, None
        if browser is not None:
            await browser.close()


class Page:
    """One episode in a browser: the page's own `mmrl.state()` says its key, outcome and end.

    What looks as it did at first has the key FIRST_STATE again.
    """

    def __init__(self, browser: DevTools, pages: Pages, context: str, session: str) -> None:
        self._browser, self._pages = browser, pages
        self._context, self._session = context, session
        self._loaded = asyncio.Event()
        self._said: list[str] = []
        self._replies: set[asyncio.Task[None]] = set()
        self._first = ""
        self._asked: set[str] = set()
        width, height = pages.clip or (pages.width, pages.height)
        self._mouse = (width / 2, height / 2)

    @classmethod
    async def opened(cls, browser: DevTools, pages: Pages) -> Page:
        """An empty page, cut off from the network and from files outside the folder."""
        made = await browser.call("Target.createBrowserContext", seconds=CALL_SECONDS)
        context = made["browserContextId"]
        try:
            return await cls._in(browser, pages, context)
        except BaseException:
            await _dispose(browser, context)
            raise

    @classmethod
    async def _in(cls, browser: DevTools, pages: Pages, context: str) -> Page:
        target = await browser.call(
            "Target.createTarget",
            seconds=CALL_SECONDS,
            url="about:blank",
            browserContextId=context,
            width=pages.width,
            height=pages.height,
        )
        attached = await browser.call(
            "Target.attachToTarget",
            seconds=CALL_SECONDS,
            targetId=target["targetId"],
            flatten=True,
        )
        page = cls(browser, pages, context, attached["sessionId"])
        browser.listen(page._session, page._hear)
        for method, params in page._set_up():
            await page._call(method, **params)
        return page

    def _set_up(self) -> list[tuple[str, dict[str, Any]]]:
        offline = {"latency": 0, "downloadThroughput": 0, "uploadThroughput": 0, "offline": True}
        screen = {
            "width": self._pages.width,
            "height": self._pages.height,
            "deviceScaleFactor": self._pages.pixel_ratio,
            "mobile": False,
        }
        return [
            ("Page.enable", {}),
            ("Inspector.enable", {}),
            ("Network.enable", {}),
            ("Network.emulateNetworkConditions", offline),
            ("Fetch.enable", {"patterns": [{"urlPattern": "*"}]}),
            ("Emulation.setDeviceMetricsOverride", screen),
            ("Page.addScriptToEvaluateOnNewDocument", {"source": STILL}),
        ]

    async def reset(self, start: Mapping[str, Any]) -> Seen:
        """Open `start["page"]` with `start["seed"]` behind its `#`."""
        file = (self._pages.folder / str(start["page"])).resolve()
        if not file.is_file() or not file.is_relative_to(self._pages.folder.resolve()):
            raise EnvironmentFailure(f"no page {start['page']}")
        self._loaded.clear()
        went = await self._call("Page.navigate", url=f"{file.as_uri()}#{int(start['seed'])}")
        if went.get("errorText"):
            raise EnvironmentFailure(f"{start['page']}: {went['errorText']}")
        try:
            await asyncio.wait_for(self._loaded.wait(), CALL_SECONDS)
        except TimeoutError as error:
            raise EnvironmentFailure(f"{start['page']} did not load") from error
        await self._begin(start)
        seen = await self._look()
        self._first = seen.key
        return replace(seen, key=FIRST_STATE)

    async def step(self, action: Mapping[str, Any]) -> Seen:
        """Carry out an action (`environments/hands.py`), its places in points, and settle."""
        by_key, arrived = self._pages.key_by_key, self._arrived
        self._mouse = await carry_out(
            self._call, action, self._mouse, arrived=arrived, key_by_key=by_key
        )
        await self._go_on()
        return await self._look()

    async def close(self) -> None:
        """End the context with all that is in it."""
        self._browser.listen(self._session, None)
        for reply in self._replies:
            reply.cancel()
        await _dispose(self._browser, self._context)

    async def evaluate(self, script: str) -> Any:
        """The value of a script in the page."""
        found = await self._call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in found:
            raise EnvironmentFailure(f"the page: {found['exceptionDetails'].get('text', '')}")
        return found["result"].get("value")

    async def _begin(self, start: Mapping[str, Any]) -> None:
        """What a page that has loaded still needs; of these pages nothing."""

    async def _go_on(self) -> None:
        """Let a page do what an action has begun; these do it by themselves."""

    async def _account(self) -> Account:
        known = json.loads(await self.evaluate(STATE))
        return Account(str(known["key"]), float(known["outcome"]), bool(known["done"]))

    async def _look(self) -> Seen:
        """Wait until nothing moves, then take the screen and the page's own account of itself."""
        await self._settle()
        shown: dict[str, Any] = {}
        if self._pages.clip is not None:
            width, height = self._pages.clip
            shown = {"clip": {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}}
        shot = await self._call("Page.captureScreenshot", format="png", **shown)
        known = await self._account()
        said, self._said = self._said, []
        return Seen(
            base64.b64decode(shot["data"]),
            FIRST_STATE if known.key == self._first else known.key,
            " ".join(f"The page says: {text}" for text in said),
            known.outcome,
            known.done,
            self._pages.pixel_ratio,
            known.reward,
        )

    async def _arrived(self) -> None:
        """Wait for the pictures that a page asks for once the mouse is over something."""
        await self._call("Runtime.evaluate", expression=LAID_OUT)
        if self._asked:
            await self._settle()

    async def _settle(self) -> None:
        """Two frames drawn, twice the same address, scroll and readiness, and nothing asked for."""
        before = None
        for number in range(SETTLES):
            try:
                now = await self.evaluate(TICKS.replace("FRAME", self._pages.frame))
            except EnvironmentFailure as error:
                if self._browser.down or "context" not in str(error).lower():
                    raise
                now = None  # between two documents
            still = not self._asked or number >= PATIENT
            if still and now is not None and now == before and now.endswith("complete"):
                return
            before = now
        raise EnvironmentFailure("the page does not settle")

    async def _call(self, method: str, **params: Any) -> Mapping[str, Any]:
        return await self._browser.call(method, self._session, seconds=CALL_SECONDS, **params)

    def _hear(self, event: str, params: Mapping[str, Any]) -> None:
        match event:
            case "Page.loadEventFired":
                self._loaded.set()
            case "Network.requestWillBeSent":
                self._asked.add(str(params["requestId"]))
            case "Network.loadingFinished" | "Network.loadingFailed":
                self._asked.discard(str(params["requestId"]))
            case "Inspector.targetCrashed":
                self._browser.lost(self._session, "the page crashed")
            case "Page.javascriptDialogOpening":
                self._said.append(str(params.get("message", ""))[:LONGEST_TEXT])
                self._reply("Page.handleJavaScriptDialog", accept=True)
            case "Fetch.requestPaused":
                inside = params["request"]["url"].startswith(self._pages.folder.resolve().as_uri())
                if inside:
                    self._reply("Fetch.continueRequest", requestId=params["requestId"])
                else:
                    reason = {"requestId": params["requestId"], "errorReason": "AccessDenied"}
                    self._reply("Fetch.failRequest", **reason)

    def _reply(self, method: str, **params: Any) -> None:
        async def send() -> None:
            with contextlib.suppress(EnvironmentFailure):
                await self._call(method, **params)

        task = asyncio.ensure_future(send())
        self._replies.add(task)
        task.add_done_callback(self._replies.discard)


async def _dispose(browser: DevTools, context: str) -> None:
    """End a context with all that is in it; one that is gone already is no matter."""
    with contextlib.suppress(EnvironmentFailure):
        await browser.call(
            "Target.disposeBrowserContext", seconds=CLOSE_SECONDS, browserContextId=context
        )


Pages.kind = Page


def pages_of(task: Any) -> Pages:
    """The world of a task that says where its `pages` are and how long a screen's `side` is."""
    return Pages(task.pages, task.side, task.side)
