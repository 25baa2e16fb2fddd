"""A Chromium over its DevTools pipe: calls, answers, events; no port is opened.

The browser ends when the pipe does, so that none outlives the process that started it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mmrl.environments.environment import EnvironmentFailure
from mmrl.errors import UserError

NAMES = (
    "chromium-headless-shell",
    "chrome-headless-shell",
    "chromium",
    "chromium-browser",
    "google-chrome",
)
"""Where a browser is looked for, in `PATH`; `MMRL_BROWSER` names another."""
LARGEST_MESSAGE = 1 << 27
FLAGS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--disable-gpu",
    "--disable-partial-raster",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--mute-audio",
    "--force-color-profile=srgb",
    "--font-render-hinting=none",
    "--no-startup-window",
    # The popup of an address bar that nobody sees: two pages of its own for every context.
    "--disable-features=WebUIOmniboxPopup,WebUIOmniboxAimPopup",
    # No network: names are not found, and what asks by number meets a proxy that is not there.
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--proxy-server=127.0.0.1:9",
    "--proxy-bypass-list=<-loopback>",
)
BEHIND = 5
"""How much nicer a browser is than its parent."""
_AT_3_AND_4 = (
    "import ctypes, fcntl, os, sys; "
    "hasattr(os, 'SCHED_OTHER') and os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0)); "
    "sys.platform == 'linux' and ctypes.CDLL(None).prctl(24, 23, 0, 0, 0); "  # without CAP_SYS_NICE
    f"os.nice({BEHIND}); "
    "r, w = (fcntl.fcntl(int(n), fcntl.F_DUPFD, 10) for n in sys.argv[1:3]); "
    "os.dup2(r, 3); os.dup2(w, 4); os.close(r); os.close(w); os.execv(sys.argv[3], sys.argv[3:])"
)
"""The browser reads from 3 and writes to 4, numbers that the parent's own files may have.

Real-time priority of the parent is not for it: a page that loops would never give its core back to
whoever is to end it. Nor is one of its own: its dozens of threads, of which root's browser puts
those that draw before everybody else's, would keep a model that decodes meanwhile from its core.
"""

Events = Callable[[str, Mapping[str, Any]], None]


def browser_path() -> str:
    """The browser's program; raises UserError where there is none."""
    named = os.environ.get("MMRL_BROWSER")
    found = named or next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None or not Path(found).is_file():
        raise UserError(
            "no browser: install one (`apt-get install chromium`), or name its program in "
            "MMRL_BROWSER"
        )
    return found


class DevTools:
    """A running browser; made by `start`, ended by `close`."""

    def __init__(self, process: subprocess.Popen[bytes], profile: str, to_browser: int) -> None:
        self._process, self._profile, self._to = process, profile, to_browser
        self._calls: dict[int, asyncio.Future[Mapping[str, Any]]] = {}
        self._sessions: dict[str, Events] = {}
        self._owners: dict[int, str] = {}
        self._count = 0
        self._reading: asyncio.Task[None] | None = None
        self._transport: asyncio.ReadTransport | None = None
        self.down = False

    @classmethod
    async def start(cls, seconds: float) -> DevTools:
        """Start a browser; raises EnvironmentFailure where it does not answer in time."""
        profile = tempfile.mkdtemp(prefix="mmrl-browser-")
        child_reads, to_browser = os.pipe()
        from_browser, child_writes = os.pipe()
        wrapped = [sys.executable, "-ISc", _AT_3_AND_4, str(child_reads), str(child_writes)]
        alone = ["--no-sandbox"] if os.geteuid() == 0 else []
        try:
            process = subprocess.Popen(
                [*wrapped, browser_path(), *FLAGS, *alone, f"--user-data-dir={profile}"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[child_reads, child_writes],
                start_new_session=True,
            )
        except BaseException:
            os.close(to_browser)
            os.close(from_browser)
            shutil.rmtree(profile, ignore_errors=True)
            raise
        finally:
            os.close(child_reads)
            os.close(child_writes)
        found = cls(process, profile, to_browser)
        await found._listen(from_browser)
        try:
            await found.call("Browser.getVersion", seconds=seconds)
        except EnvironmentFailure:
            await found.close()
            raise
        return found

    async def _listen(self, from_browser: int) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(LARGEST_MESSAGE)
        self._transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(from_browser, "rb", 0)
        )
        self._reading = asyncio.create_task(self._read(reader))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                message = json.loads((await reader.readuntil(b"\0"))[:-1])
                if "id" in message:
                    self._owners.pop(message["id"], None)
                    waiting = self._calls.pop(message["id"], None)
                    if waiting is not None and not waiting.done():
                        waiting.set_result(message)
                elif events := self._sessions.get(message.get("sessionId", "")):
                    events(message["method"], message.get("params", {}))
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError, ValueError):
            self._lose("the browser is gone")

    def _lose(self, reason: str) -> None:
        self.down = True
        for waiting in self._calls.values():
            if not waiting.done():
                waiting.set_exception(EnvironmentFailure(reason))
        self._calls.clear()

    async def call(
        self, method: str, session: str = "", *, seconds: float, **params: Any
    ) -> Mapping[str, Any]:
        """What a method gives; raises EnvironmentFailure with the reason, or after `seconds`."""
        if self.down:
            raise EnvironmentFailure("the browser is gone")
        self._count += 1
        number = self._count
        message = {"id": number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        waiting: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()
        self._calls[number], self._owners[number] = waiting, session
        try:
            self._write(json.dumps(message).encode() + b"\0")
            answer = await asyncio.wait_for(waiting, seconds)
        except OSError as error:
            self._lose("the browser is gone")
            raise EnvironmentFailure("the browser is gone") from error
        except TimeoutError as error:
            raise EnvironmentFailure(f"{method} took over {seconds:g} s") from error
        finally:
            self._calls.pop(number, None)
            self._owners.pop(number, None)
        if "error" in answer:
            raise EnvironmentFailure(f"{method}: {answer['error'].get('message', '')}")
        found: Mapping[str, Any] = answer["result"]
        return found

    def _write(self, payload: bytes) -> None:
        while payload:
            payload = payload[os.write(self._to, payload) :]

    def listen(self, session: str, events: Events | None) -> None:
        """Hand a session's events to somebody, or to nobody any more."""
        if events is None:
            self._sessions.pop(session, None)
        else:
            self._sessions[session] = events

    def lost(self, session: str, reason: str) -> None:
        """End what a session waits for."""
        for number, owner in list(self._owners.items()):
            waiting = self._calls.get(number)
            if owner == session and waiting is not None and not waiting.done():
                waiting.set_exception(EnvironmentFailure(reason))

    async def close(self) -> None:
        """End the browser with all its processes and its profile."""
        self._lose("the browser was closed")
        with contextlib.suppress(OSError):
            os.close(self._to)
        if self._reading is not None:
            self._reading.cancel()
        if self._transport is not None:
            self._transport.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await asyncio.to_thread(self._process.wait)
        shutil.rmtree(self._profile, ignore_errors=True)
