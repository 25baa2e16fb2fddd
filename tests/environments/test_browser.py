"""Pages in a real browser: oracle, replay, isolation, faults; skipped where no browser is."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmrl.config import RunConfig
from mmrl.environments import hands
from mmrl.environments.browser import Page, Pages
from mmrl.environments.devtools import BEHIND, DevTools, browser_path
from mmrl.environments.environment import EnvironmentFailure, Seen
from mmrl.environments.live import Live, LiveStep
from mmrl.errors import UserError
from mmrl.runlog.journal import Journal
from mmrl.task import FIRST_STATE
from mmrl.tasks.web_page.task import PAGES, SIDE
from mmrl.train.run import train
from mmrl.validation import validate
from tests.runs import run_config

try:
    browser_path()
except UserError:
    pytest.skip("no browser on this machine", allow_module_level=True)

NAMES = ("press_button", "fill_field")


def children() -> set[int]:
    """Browsers that this process has started; lines are whole, however wide a test's terminal."""
    found = subprocess.run(
        ["ps", "-ww", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True
    ).stdout
    rows = (line.split(None, 2) for line in found.splitlines())
    profile = f"--user-data-dir={tempfile.gettempdir()}/mmrl-browser-"
    return {
        int(pid) for pid, parent, args in rows if int(parent) == os.getpid() and profile in args
    }


@pytest.fixture
def live() -> Iterator[Live]:
    before = children()
    made = Live(lambda: Pages(PAGES, SIDE, SIDE), seconds=120.0)
    yield made
    made.close()
    assert children() <= before, "a browser is left"


def start(page: str, seed: int) -> dict[str, Any]:
    return {"page": f"{page}.html", "seed": seed}


async def along(page: str, seed: int) -> tuple[str, list[dict[str, Any]], list[Seen]]:
    """The goal, the oracle's actions, and what was seen before and after each."""
    world = Pages(PAGES, SIDE, SIDE)
    try:
        place = await world.open()
        seen, actions = [await place.reset(start(page, seed))], []
        goal = await place.evaluate("mmrl.goal")
        while not seen[-1].done:
            actions.append(await place.evaluate("mmrl.oracle()"))
            seen.append(await place.step(actions[-1]))
        return goal, actions, seen
    finally:
        await world.close()


def pixels(seen: Seen, tmp_path: Path) -> np.ndarray:
    (tmp_path / "shot.png").write_bytes(seen.png)
    return np.asarray(Image.open(tmp_path / "shot.png").convert("RGB")).astype(int)


@pytest.mark.parametrize("page", NAMES)
def test_the_oracle_succeeds_and_the_seed_says_everything(page: str, tmp_path: Path) -> None:
    goal, actions, seen = asyncio.run(along(page, 11))
    again, others, seen_again = asyncio.run(along(page, 11))
    assert seen[-1].outcome == 1.0 and (goal, actions) == (again, others)
    assert [s.key for s in seen] == [s.key for s in seen_again]
    for one, other in zip(seen, seen_again, strict=True):
        assert (pixels(one, tmp_path) != pixels(other, tmp_path)).sum() <= 12
    assert pixels(seen[0], tmp_path).shape == (SIDE, SIDE, 3)


def test_a_turn_finds_its_page_or_plays_it_again(live: Live, tmp_path: Path) -> None:
    _, actions, seen = asyncio.run(along("fill_field", 4))
    taken = [LiveStep(start("fill_field", 4), tuple(actions[: n + 1])) for n in range(len(actions))]
    found = [live.step([turn])[0] for turn in taken]
    assert live.counts["replayed"] == 0
    # Another pool, which knows nothing, is asked for the last turn alone.
    other = Live(lambda: Pages(PAGES, SIDE, SIDE), seconds=120.0)
    (alone,) = other.step(taken[-1:])
    assert other.counts["replayed"] == 1
    other.close()
    for one in (found[-1], alone):
        assert isinstance(one, Seen) and (one.key, one.outcome) == (seen[-1].key, 1.0)
    (between,) = live.step(taken[1:2])
    assert isinstance(between, Seen) and not between.done
    assert (pixels(between, tmp_path) != pixels(seen[2], tmp_path)).sum() <= 12


def test_a_wrong_click_ends_badly_and_junk_does_nothing(live: Live) -> None:
    _, (right,), _ = asyncio.run(along("press_button", 3))
    wrong = {"type": "click", "x": SIDE - right["x"], "y": SIDE - right["y"]}
    junk = {"type": "click", "x": -50.0, "y": 9000.0}
    bad, good, nothing, typed = live.step(
        [
            LiveStep(start("press_button", 3), (action,))
            for action in (wrong, right, junk, {"type": "type", "text": "<script>" * 40})
        ]
    )
    assert isinstance(bad, Seen) and (bad.done, bad.outcome) == (True, 0.0)
    assert isinstance(good, Seen) and (good.done, good.outcome) == (True, 1.0)
    assert isinstance(nothing, Seen) and not nothing.done
    assert isinstance(typed, Seen) and not typed.done


def test_a_killed_browser_is_mended_and_a_missing_page_is_no_verdict(live: Live) -> None:
    _, actions, _ = asyncio.run(along("fill_field", 2))
    begun = LiveStep(start("fill_field", 2), tuple(actions[:1]))
    before = children()
    assert isinstance(live.step([begun])[0], Seen)
    for pid in children() - before:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    ended = LiveStep(start("fill_field", 2), tuple(actions))
    missing = LiveStep(start("../../task.py", 2), tuple(actions))
    (seen, failed) = live.step([ended, missing])
    assert isinstance(seen, Seen) and seen.outcome == 1.0
    assert isinstance(failed, str) and failed.startswith("environment failed: no page")
    assert live.counts["retries"] >= 1 and live.counts["failures"] == 1


LOOP = """<!doctype html><script>
window.mmrl = {state: () => ({key: 'k', outcome: 0, done: false})};
addEventListener('click', () => { for (;;) {} });
</script><body>"""
REACHES = """<!doctype html><body><script>
let tried = 0, reached = [];
const note = name => { reached.push(name); };
window.mmrl = {state: () => ({key: reached.join(' ') + tried, outcome: 0, done: false})};
fetch('OTHER').then(() => note('file'), () => 0).finally(() => tried++);
fetch('http://127.0.0.1:PORT/').then(() => note('http'), () => 0).finally(() => tried++);
const socket = new WebSocket('ws://127.0.0.1:PORT/');
socket.onopen = () => note('socket');
addEventListener('click', () => { location.href = 'OTHER'; });
</script>"""


def test_a_page_that_hangs_ends_at_the_deadline(tmp_path: Path) -> None:
    (tmp_path / "loop.html").write_text(LOOP)
    before = children()
    live = Live(lambda: Pages(tmp_path, SIDE, SIDE), seconds=20.0)
    (failed,) = live.step([LiveStep(start("loop", 1), ({"type": "click", "x": 9, "y": 9},))])
    live.close()
    assert isinstance(failed, str) and failed.startswith("environment failed")
    assert children() <= before


def test_a_context_is_its_page_and_nothing_else() -> None:
    """No address bar, which would be pages of its own."""

    async def opened() -> list[str]:
        browser = await DevTools.start(120.0)
        try:
            for _ in range(4):
                await Page.opened(browser, Pages(PAGES, SIDE, SIDE))
            await asyncio.sleep(2.0)  # they would come a while later
            found = await browser.call("Target.getTargets", seconds=60.0, filter=[{}])
            return [each["type"] for each in found["targetInfos"] if each["type"] != "tab"]
        finally:
            await browser.close()

    found = asyncio.run(opened())
    assert found.count("page") == 4 and "browser_ui" not in found


def test_a_page_that_cannot_be_set_up_leaves_no_context() -> None:
    async def left() -> list[str]:
        browser = await DevTools.start(120.0)
        try:
            with pytest.raises(EnvironmentFailure, match="Emulation"):
                await Page.opened(browser, Pages(PAGES, SIDE, SIDE, pixel_ratio=-1.0))
            found = await browser.call("Target.getBrowserContexts", seconds=60.0)
            return list(found["browserContextIds"])
        finally:
            await browser.close()

    assert asyncio.run(left()) == []


def test_a_page_opened_ahead_is_the_page_that_a_turn_opens(live: Live, tmp_path: Path) -> None:
    """As it is seen and named after an action: its first state is that of its reset."""
    empty = {"type": "click", "x": 112.0, "y": 220.0}
    turns = [LiveStep(start("fill_field", seed), (empty,)) for seed in (4, 4, 5)]
    (fresh, *_) = live.step(turns[:1])
    live.expect([turn.start for turn in turns])
    ahead = live.step(turns)
    assert live.counts["not opened ahead"] == 0
    for one, key in zip([fresh, *ahead], [FIRST_STATE] * 4, strict=True):
        assert isinstance(one, Seen) and one.key == key
    for one in ahead[:2]:
        assert isinstance(fresh, Seen) and isinstance(one, Seen)
        assert (pixels(one, tmp_path) != pixels(fresh, tmp_path)).sum() <= 12


def test_a_browser_has_no_priority_of_its_parents_and_none_of_its_own() -> None:
    """A page that loops would hold its core against whoever is to end it, or decodes meanwhile."""

    def priorities(leader: int) -> Iterator[tuple[int, int]]:
        """Scheduler and niceness of every thread in a browser's session."""
        asked = ["ps", "-L", "-s", str(leader), "-o", "lwp=,ni="]
        found = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
        for line in found.splitlines():
            thread, nice = map(int, line.split())
            with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
                yield os.sched_getscheduler(thread), nice

    async def started() -> list[tuple[int, int]]:
        browser = await DevTools.start(120.0)
        try:
            page = await Page.opened(browser, Pages(PAGES, SIDE, SIDE))
            await page.reset(start("press_button", 1))
            return [each for pid in children() - before for each in priorities(pid)]
        finally:
            await browser.close()

    before, own = children(), os.getpriority(os.PRIO_PROCESS, 0)

    def in_real_time() -> list[tuple[int, int]]:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        return asyncio.run(started())

    with ThreadPoolExecutor(1) as alone:  # its thread alone, which ends here, is so urgent
        try:
            found = alone.submit(in_real_time).result()
        except PermissionError:
            pytest.skip("no right to real-time priority")
    assert len(found) > 20 and {scheduler for scheduler, _ in found} == {os.SCHED_OTHER}
    assert min(nice for _, nice in found) == min(own + BEHIND, 19)


def test_a_page_reaches_nothing(tmp_path: Path) -> None:
    """Neither other files nor the network, by fetch, socket or navigation."""
    hits = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hits.append(await reader.read(10))
        writer.close()

    async def look() -> Seen:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        other = tmp_path / "secret.html"
        other.write_text("<script>window.mmrl = {state: () => ({key: 'secret'})}</script>")
        inside = tmp_path / "pages"
        inside.mkdir()
        text = REACHES.replace("OTHER", other.as_uri()).replace("PORT", str(port))
        (inside / "reaches.html").write_text(text)
        world = Pages(inside, SIDE, SIDE)
        try:
            place: Page = await world.open()
            await place.reset(start("reaches", 1))
            await place.step({"type": "tab"})
            try:
                return await place.step({"type": "click", "x": 9, "y": 9})
            except EnvironmentFailure:
                return Seen(b"", "nowhere")
        finally:
            await world.close()
            server.close()

    seen = asyncio.run(look())
    assert not hits and "secret" not in seen.key
    assert not {"file", "http", "socket"} & set(seen.key.split())


@pytest.mark.timeout(900)
def test_a_run_trains_two_steps_in_the_browser(tmp_path: Path) -> None:
    data = tmp_path / "pages"
    importlib.import_module("mmrl.data_recipes.web_pages").build(
        None, data, train=4, validation=1, test=1
    )
    before = children()
    values = run_config(
        tmp_path / "run",
        tmp_path,
        data={"task": "web_page", "path": str(data / "train.jsonl"), "eval_path": None},
        model={"max_prompt_tokens": 2000},
        rollout={
            "max_new_tokens": 320,
            "max_environment_tokens": 2000,
            "scoring_timeout_seconds": 120,
        },
        trainer={"steps": 2, "prompts_per_step": 2},
    )
    warm = {
        "name": "warm-up",
        "algorithm": {"name": "sft"},
        "rollout": {"engine": "targets"},
        "trainer": {"steps": 1, "prompts_per_step": 4},
    }
    del values["algorithm"]
    values |= {"phases": [warm, {"name": "grpo", "algorithm": {"name": "grpo", "group_size": 2}}]}
    train(validate(RunConfig, values, "test"))
    run = tmp_path / "run"
    taught = [row for row in Journal(run / "rollouts.jsonl").rows() if row["step"] == 1]
    assert [response["metric"] for row in taught for response in row["responses"]] == [1.0] * 4
    turns = [turn for row in taught for r in row["responses"] for turn in r["turns"][1:]]
    screens = [medium for turn in turns for medium in turn["media"]]
    assert len(screens) == len(turns) == 4, "two of three turns show a screen, in two episodes"
    assert all((run / screen["thumbnail"]).is_file() for screen in screens)
    rows = list(Journal(run / "metrics.jsonl").rows())
    assert len(rows) == 3 and all(np.isfinite(row["train/loss"]) for row in rows)
    assert rows[0]["tokens/environment"] > 4 * 16
    assert children() <= before


HOVERS = """<!doctype html><meta charset="utf-8"><style>
body { margin: 0; } span { position: absolute; left: 60px; top: 60px; height: 20px; }
span { content: url(away.svg); } span:hover { content: url(over.svg); }
div { position: absolute; left: 10px; top: 120px; width: 180px; height: 60px; overflow-y: scroll; }
</style><span onclick="mmrl.clicks++"></span><div id="box"></div><script>
document.getElementById('box').innerHTML = 'some words to select and to scroll '.repeat(60);
const high = () => document.getElementById('box').scrollTop;
document.addEventListener('mouseup', () => { mmrl.released = high(); });
window.mmrl = {clicks: 0, released: 0, state: () => ({
  key: [mmrl.clicks, mmrl.released, high(), String(getSelection())].join('|'),
  outcome: 0, done: false})};
</script>"""
PICTURE = """<svg xmlns="http://www.w3.org/2000/svg" width="20" height="20">
<rect width="20" height="20"/></svg>"""


def test_what_is_pressed_is_there_and_a_drag_scrolls_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture that appears under the mouse is waited for; held long at an edge, nothing moves."""
    monkeypatch.setattr(hands, "DRAG_STEPS", 60)
    (tmp_path / "hovers.html").write_text(HOVERS)
    for name in ("away", "over"):
        (tmp_path / f"{name}.svg").write_text(PICTURE)
    drag = {"type": "drag", "x": 40, "y": 130, "to_x": 90, "to_y": 215}

    async def play() -> list[str]:
        world = Pages(tmp_path, SIDE, SIDE)
        try:
            found = []
            for _ in range(3):
                page = await world.open()
                await page.reset({"page": "hovers.html", "seed": 0})
                clicked = await page.step({"type": "click", "x": 70, "y": 70})
                dragged = await page.step(drag)
                found += [clicked.key, dragged.key]
                await page.close()
            return found
        finally:
            await world.close()

    found = asyncio.run(play())
    assert found[::2] == ["1|0|0|"] * 3
    clicks, released, top, words = found[1].split("|")
    assert (clicks, released, top) == ("1", "0", "0") and words, "nor has it when it ends"
    assert len(set(found[1::2])) == 1


COVERED = """<!doctype html><meta charset="utf-8"><style>
body { margin: 0; } #cover { position: absolute; background: #00f; }</style>
<svg width="160" height="160"><circle cx="80.3" cy="80.4" r="40.2" fill="#444" stroke="#422"
stroke-width="2.3"/><rect x="20.5" y="30.2" width="77.7" height="13.3" fill="#a33"
transform="rotate(13 80 80)"/></svg><div id="cover"></div><script>
const drawn = () => new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)));
const cover = n => document.getElementById('cover').style.cssText =
  `left:${30 + n * 9.37}px; top:${30 + n * 3.7}px; width:${20 + n * 3.3}px; height:${40 + n}px`;
document.addEventListener('mousedown', async event => {
  for (let n = 0; n < 6; n++) { cover(n); if (event.clientX > 80) await drawn(); }
});
window.mmrl = {state: () => ({key: '', outcome: 0, done: false})};
</script>"""


def test_a_state_has_the_same_pixels_whatever_was_drawn_on_the_way(tmp_path: Path) -> None:
    """Drawn in part, over what stood there, edges come out otherwise."""
    (tmp_path / "covered.html").write_text(COVERED)

    async def play() -> list[bytes]:
        world = Pages(tmp_path, SIDE, SIDE)
        try:
            found = []
            for x in (10, 150) * 6:
                page = await world.open()
                await page.reset({"page": "covered.html", "seed": 0})
                await page.step({"type": "click", "x": x, "y": 10})
                found.append((await page.step({"type": "move_to", "x": 5, "y": 5})).png)
                await page.close()
            return found
        finally:
            await world.close()

    assert len(set(asyncio.run(play()))) == 1
