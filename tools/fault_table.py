"""Do episodes survive what goes wrong in a browser? Twenty kinds of faults, two hundred episodes.

    python tools/fault_table.py

plays oracles' episodes on the project's own pages, four side by side. Each has one fault, at a turn
drawn from its seed: half of them once, so that trying again helps, half of them every time. Prints
a line a kind: how many episodes were graded (right, or not), how many had no verdict and why, and
what was left of contexts, processes and files. Fails if anything was, or if an episode has neither.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import glob
import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from mmrl.environments import browser
from mmrl.environments.browser import Page, Pages
from mmrl.environments.environment import EnvironmentFailure, Seen
from mmrl.environments.live import BESIDE, Live, LiveStep
from mmrl.tasks.web_page.task import PAGES, SIDE

SECONDS = 20.0
"""For one try: a fault that only hangs is noticed by that alone."""
NAMES = ("fill_field", "search_list", "sort_table", "turn_pages", "confirm_dialog")


def processes() -> list[int]:
    """Of browsers that this process has started."""
    listed = subprocess.run(
        ["ps", "-ww", "-eo", "pid,args"], capture_output=True, text=True, check=True
    )
    mine = f"--user-data-dir={tempfile.gettempdir()}/mmrl-browser-"
    return [int(line.split()[0]) for line in listed.stdout.splitlines() if mine in line]


def profiles() -> set[str]:
    return set(glob.glob(f"{tempfile.gettempdir()}/mmrl-browser-*"))


class Faulty(Page):
    """A page to which something happens before one of its steps."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.taken, self.seed = 0, -1

    async def reset(self, start: Mapping[str, Any]) -> Seen:
        self.seed = int(start["seed"])
        return await super().reset(start)

    async def step(self, action: Mapping[str, Any]) -> Seen:
        fault = self._pages.due(self.seed, self.taken)  # type: ignore[attr-defined]
        self.taken += 1
        if fault is not None:
            with contextlib.suppress(ProcessLookupError):  # another fault was quicker
                await fault(self)
        return await super().step(action)

    def script(self, text: str) -> None:
        """Start a script without waiting for it."""
        self._reply("Runtime.evaluate", expression=text)

    @property
    def process(self) -> int:
        return self._browser._process.pid

    async def renderers(self) -> list[int]:
        found = await self._browser.call("SystemInfo.getProcessInfo", seconds=5.0)
        return [p["id"] for p in found["processInfo"] if p["type"] == "renderer"]


Fault = Callable[[Faulty], Awaitable[None]]


def script(text: str) -> Fault:
    """A fault that the page does to itself."""

    async def run(page: Faulty) -> None:
        page.script(text)
        await asyncio.sleep(0.2)

    return run


async def kill_renderer(page: Faulty) -> None:
    os.kill((await page.renderers())[-1], signal.SIGKILL)


async def kill_busy_renderer(page: Faulty) -> None:
    page.script("for (;;) {}")
    await asyncio.sleep(0.2)
    os.kill((await page.renderers())[-1], signal.SIGKILL)


async def crash_page(page: Faulty) -> None:
    page._reply("Page.crash")
    await asyncio.sleep(0.2)


async def kill_browser(page: Faulty) -> None:
    os.kill(page.process, signal.SIGKILL)


async def freeze_browser(page: Faulty) -> None:
    os.killpg(page.process, signal.SIGSTOP)


async def end_browser(page: Faulty) -> None:
    os.kill(page.process, signal.SIGTERM)


async def close_pipe(page: Faulty) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), page._browser._to)


async def close_target(page: Faulty) -> None:
    found = await page._browser.call("Target.getTargets", seconds=5.0)
    own = [t for t in found["targetInfos"] if t.get("browserContextId") == page._context]
    await page._browser.call("Target.closeTarget", seconds=5.0, targetId=own[0]["targetId"])


async def dispose_context(page: Faulty) -> None:
    context = {"browserContextId": page._context}
    await page._browser.call("Target.disposeBrowserContext", seconds=5.0, **context)


async def detach(page: Faulty) -> None:
    await page._browser.call("Target.detachFromTarget", seconds=5.0, sessionId=page._session)


async def lose_profile(page: Faulty) -> None:
    shutil.rmtree(page._browser._profile, ignore_errors=True)


async def go_elsewhere(page: Faulty) -> None:
    await page._call("Page.navigate", url="about:blank")
    await asyncio.sleep(0.3)


async def raise_in_driver(page: Faulty) -> None:
    raise EnvironmentFailure("the driver raised")


FAULTS: Mapping[str, Fault] = {
    "renderer killed": kill_renderer,
    "busy renderer killed": kill_busy_renderer,
    "page crashed": crash_page,
    "browser killed": kill_browser,
    "browser frozen": freeze_browser,
    "browser asked to end": end_browser,
    "pipe to the browser lost": close_pipe,
    "tab closed": close_target,
    "context disposed": dispose_context,
    "session detached": detach,
    "profile deleted": lose_profile,
    "page left": go_elsewhere,
    "driver raises": raise_in_driver,
    "endless loop": script("for (;;) {}"),
    "account deleted": script("delete window.mmrl"),
    "account throws": script("mmrl.state = () => { throw new Error('no'); }"),
    "account of junk": script("mmrl.state = () => ({key: 'k', outcome: 'junk', done: 7})"),
    "never settles": script(
        "document.body.style.height = '9000px'; setInterval(() => scrollTo(0, scrollY ? 0 : 9), 1)"
    ),
    "alerts without end": script("setInterval(() => alert('again'), 5)"),
    "popups": script("for (let i = 0; i < 20; i++) open('about:blank')"),
}


@dataclass
class FaultyPages(Pages):
    """Pages with a plan: what happens at which turn of which episode, once or every time."""

    kind: ClassVar[type[Page]] = Faulty
    plan: dict[int, tuple[str, int, bool]] = field(default_factory=dict)
    happened: Counter[str] = field(default_factory=Counter)

    def due(self, seed: int, turn: int) -> Fault | None:
        name, at, once = self.plan.get(seed, ("", -1, True))
        if turn != at:
            return None
        if once:
            del self.plan[seed]
        self.happened[name] += 1
        return FAULTS[name]


async def ways(count: int) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Episodes' starts with the oracle's actions, from pages where nothing happens."""
    world, found = Pages(PAGES, SIDE, SIDE), []
    try:
        for seed in range(count):
            start = {"page": f"{NAMES[seed % len(NAMES)]}.html", "seed": seed}
            page = await world.open()
            seen, actions = await page.reset(start), []
            while not seen.done:
                actions.append(await page.evaluate("mmrl.oracle()"))
                seen = await page.step(actions[-1])
            await page.close()
            found.append((start, actions))
    finally:
        await world.close()
    return found


def play(live: Live, episodes: list[tuple[dict[str, Any], list[dict[str, Any]]]]) -> list[Any]:
    """The last that was seen of every episode, or why there is nothing; all go on turn by turn."""
    last: list[Any] = [None] * len(episodes)
    for turn in range(max(len(actions) for _, actions in episodes)):
        going = [
            i
            for i, (_, actions) in enumerate(episodes)
            if turn < len(actions) and not isinstance(last[i], str)
        ]
        steps = [LiveStep(episodes[i][0], tuple(episodes[i][1][: turn + 1])) for i in going]
        for i, seen in zip(going, live.step(steps), strict=True):
            last[i] = seen
    return last


async def contexts(world: Pages) -> int:
    """Contexts that the browser has besides its own."""
    if world._browser is None or world._browser.down:
        return 0
    found = await world._browser.call("Target.getBrowserContexts", seconds=10.0)
    return len(found["browserContextIds"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()
    browser.CALL_SECONDS = SECONDS / 2
    episodes = asyncio.run(ways(args.episodes))
    kinds, rng = list(FAULTS), random.Random(0)
    plan: dict[int, tuple[str, int, bool]] = {}
    for number, (start, actions) in enumerate(episodes):
        once = (number // len(kinds)) % 2 == 0
        plan[start["seed"]] = (kinds[number % len(kinds)], rng.randrange(len(actions)), once)
    planned = dict(plan)
    before, started = profiles(), time.monotonic()
    world = FaultyPages(PAGES, SIDE, SIDE, plan=plan)
    live = Live(lambda: world, seconds=SECONDS)
    results = []
    for first in range(0, len(episodes), 4 * BESIDE):
        results += play(live, episodes[first : first + 4 * BESIDE])
    open_contexts = asyncio.run_coroutine_threadsafe(contexts(world), live._loop).result()
    kept = sum(map(len, live._places.values()))
    live.close()
    left = {
        "contexts": max(open_contexts - kept, 0),
        "processes": len(processes()),
        "profiles": len(profiles() - before),
    }
    rows = report(episodes, results, planned)
    seconds = time.monotonic() - started
    print(f"\n{len(kinds)} kinds, {len(episodes)} episodes in {seconds:.0f} s; {dict(live.counts)}")
    print(f"left: {left}")
    if args.out:
        args.out.write_text(json.dumps({"rows": rows, "left": left, "seconds": seconds}, indent=1))
    if any(left.values()):
        raise SystemExit("something is left")


def report(
    episodes: list[tuple[dict[str, Any], list[dict[str, Any]]]],
    results: list[Any],
    planned: Mapping[int, tuple[str, int, bool]],
) -> list[dict[str, Any]]:
    """A line a kind; an episode without a verdict or a reason fails."""
    rows = []
    print("| fault | episodes | solved | graded otherwise | no verdict | e.g. |")
    print("|---|---|---|---|---|---|")
    for kind in FAULTS:
        own = [
            seen
            for (start, _), seen in zip(episodes, results, strict=True)
            if planned[start["seed"]][0] == kind
        ]
        graded = [seen for seen in own if isinstance(seen, Seen)]
        reasons = [seen for seen in own if isinstance(seen, str)]
        assert len(graded) + len(reasons) == len(own) and all(reasons), "a verdict or a reason"
        solved = sum(seen.outcome == 1.0 for seen in graded)
        rows.append(
            {
                "fault": kind,
                "episodes": len(own),
                "solved": solved,
                "graded": len(graded),
                "reasons": dict(Counter(reasons)),
            }
        )
        example = f"{reasons[0]:.70}" if reasons else ""
        print(
            f"| {kind} | {len(own)} | {solved} | {len(graded) - solved} | {len(reasons)} "
            f"| {example} |"
        )
    return rows


if __name__ == "__main__":
    main()
