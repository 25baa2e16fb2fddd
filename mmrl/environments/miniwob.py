"""The 130 pages of the package `miniwob`, their clock standing still between actions.

A page is drawn from its seed; after each action its time goes on by `STEP` ms and no further, so
that seed and actions lead to the same screen and reward however long a model thinks. The reward is
the page's own before it decays with time, from -1 to 1; as the original's deadline, an episode that
is not ended has -1.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from mmrl.environments.browser import Account, Page, Pages
from mmrl.environments.environment import EnvironmentFailure, Seen
from mmrl.errors import UserError

WIDTH, HEIGHT = 160, 210
"""Points of a task; beside it the page shows its last reward and its clock."""
WINDOW = (500, 320)
STEP, START = 500, 200
CLOCK = Path(__file__).with_name("clock.js")
BEGIN = """(async (seed, first) => {
  core.EPISODE_MAX_TIME = 2147483647;
  Math.seedrandom(seed);
  core.startEpisodeReal();
  await mmrlClock.run(first);
  const said = core.getUtterance();
  return [WOB_TASK_READY, typeof said === 'string' ? said : said.utterance];
})"""
ACCOUNT = """JSON.stringify({done: WOB_DONE_GLOBAL, raw: WOB_RAW_REWARD_GLOBAL, key: [
  WOB_DONE_GLOBAL, document.activeElement ? document.activeElement.id : '',
  ...[...document.querySelectorAll('input, textarea, select')].map(e => e.value + e.checked),
  ...[...document.querySelectorAll('*')].filter(e => e.scrollTop).map(e => e.scrollTop),
  document.getElementById('wrap') ? document.getElementById('wrap').innerHTML : '']})"""


class MiniWobPage(Page):
    """One episode of a MiniWoB page; `start` has its `page` and `seed`."""

    utterance: str = ""

    def _set_up(self) -> list[tuple[str, dict[str, Any]]]:
        source = {"source": CLOCK.read_text(encoding="utf-8")}
        return [*super()._set_up(), ("Page.addScriptToEvaluateOnNewDocument", source)]

    async def _begin(self, start: Mapping[str, Any]) -> None:
        begun = await self.evaluate(f"{BEGIN}({int(start['seed'])}, {START})")
        ready, self.utterance = begun
        if not ready:
            raise EnvironmentFailure(f"{start['page']} is not ready")

    async def _go_on(self) -> None:
        await self.evaluate(f"mmrlClock.run({STEP})")

    async def _account(self) -> Account:
        """After the end a cover lies over the page, which counts for nothing."""
        known = json.loads(await self.evaluate(ACCOUNT))
        key = hashlib.sha256(json.dumps(known["key"]).encode()).hexdigest()[:16]
        raw = float(known["raw"]) if known["done"] else -1.0
        outcome = min(max((raw + 1) / 2, 0.0), 1.0)
        return Account(key, outcome, bool(known["done"]), raw)


class MiniWob(Pages):
    """A browser for the package's pages; raises UserError where the package is not installed."""

    kind: ClassVar[type[Page]] = MiniWobPage
    clip: ClassVar[tuple[int, int]] = (WIDTH, HEIGHT)
    frame: ClassVar[str] = "mmrlClock.frame"
    key_by_key: ClassVar[bool] = True

    def __init__(self, pixel_ratio: float = 1.0) -> None:
        super().__init__(folder(), *WINDOW, pixel_ratio)


def miniwob_of(task: Any) -> MiniWob:
    """The world of a task that says at which `pixel_ratio` it shows screens."""
    return MiniWob(task.pixel_ratio)


def folder() -> Path:
    """Where the package keeps its pages; it is not imported, which would want selenium."""
    found = importlib.util.find_spec("miniwob")
    if found is None or found.origin is None:
        raise UserError("the pages of MiniWoB need miniwob: pip install 'mmrl[miniwob]'")
    return Path(found.origin).parent / "html"


def names() -> list[str]:
    """All pages, by name."""
    return sorted(path.stem for path in (folder() / "miniwob").glob("*.html"))


def begin_of(name: str, seed: int) -> dict[str, Any]:
    """What an episode of a page starts from."""
    return {"page": f"miniwob/{name}.html", "seed": seed}


def raw_reward(seen: Seen) -> float:
    """The page's own reward, -1 to 1."""
    return seen.reward if seen.reward is not None else -1.0
