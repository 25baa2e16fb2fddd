"""Pages of the package `miniwob`, their clock standing still; skipped where they are not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from mmrl.environments.devtools import browser_path
from mmrl.environments.environment import Seen
from mmrl.environments.live import Live, LiveStep
from mmrl.environments.miniwob import (
    HEIGHT,
    WIDTH,
    MiniWob,
    MiniWobPage,
    begin_of,
    miniwob_of,
    names,
)
from mmrl.errors import UserError
from mmrl.scoring.tasks import fixture_path, load_task
from mmrl.types import Answer
from tests.environments.seeing import far_apart, picture

try:
    browser_path()
    PAGES = names()
except UserError as error:
    pytest.skip(str(error), allow_module_level=True)


async def play(name: str, seed: int, actions: Sequence[Mapping[str, Any]]) -> list[Seen]:
    world = MiniWob()
    try:
        page = await world.open()
        seen = [await page.reset(begin_of(name, seed))]
        return [*seen, *[await page.step(action) for action in actions]]
    finally:
        await world.close()


def test_there_are_all_pages() -> None:
    assert len(PAGES) == 130


def test_a_page_is_what_its_seed_says_and_pays_its_raw_reward_however_late() -> None:
    async def solve(wait: float) -> tuple[list[Seen], str]:
        world = MiniWob()
        try:
            page = await world.open()
            assert isinstance(page, MiniWobPage)
            seen = [await page.reset(begin_of("click-test", 5))]
            time.sleep(wait)  # a model thinks: with the page's own clock this costs its reward
            box = await page.evaluate(
                "(r => [r.left + r.width / 2, r.top + r.height / 2])"
                "(document.getElementById('subbtn').getBoundingClientRect())"
            )
            seen.append(await page.step({"type": "click", "x": box[0], "y": box[1]}))
            return seen, page.utterance
        finally:
            await world.close()

    (before, after), said = asyncio.run(solve(1.5))
    assert said == "Click the button." and picture(before.png).shape == (HEIGHT, WIDTH, 3)
    assert (before.done, before.reward, before.outcome) == (False, -1.0, 0.0)
    assert (after.done, after.reward, after.outcome) == (True, 1.0, 1.0)


@pytest.mark.parametrize("name", ["moving-items", "use-autocomplete", "chase-circle"])
def test_pages_that_move_come_back_from_seed_and_actions(name: str) -> None:
    actions = [
        {"type": "click", "x": 60, "y": 90},
        {"type": "type", "text": "ab"},
        {"type": "drag", "x": 40, "y": 100, "to_x": 110, "to_y": 150},
    ]
    one, other = (asyncio.run(play(name, 3, actions)) for _ in range(2))
    another = asyncio.run(play(name, 4, actions[:1]))
    assert [s.key for s in one] == [s.key for s in other]
    assert [s.key for s in one[:2]] != [s.key for s in another]
    assert not any(far_apart(a.png, b.png) for a, b in zip(one, other, strict=True))
    assert far_apart(one[0].png, one[-1].png), "time went on with the actions"


def test_the_tasks_own_way_earns_the_raw_reward_of_the_page() -> None:
    """The fixture's paths, carried out where the task's episodes live."""
    task = load_task("miniwob")
    live = Live(lambda: miniwob_of(task), seconds=120.0)
    try:
        asked = [task.ask(record) for record in task.records(fixture_path("miniwob"))][:3]
        starts = [sample.start.state["start"] for sample in asked if sample.start]
        ways = [tuple(sample.gold["path"]) for sample in asked]
        seen = live.step([LiveStep(s, way) for s, way in zip(starts, ways, strict=True)])
        assert [s.reward for s in seen if isinstance(s, Seen)] == [1.0] * 3
        shown = [s.png for s in seen if isinstance(s, Seen)]
        assert all(picture(png).shape == (2 * HEIGHT, 2 * WIDTH, 3) for png in shown)
    finally:
        live.close()
    score = task.score(asked[0].gold, Answer("", outcome=0.0, turns=("x",)))
    assert (score.parts["raw"], score.metric) == (-1.0, 0.0)
