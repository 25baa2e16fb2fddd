"""The project's own pages: the oracle always succeeds, and wrong play earns nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mmrl.environments.browser import Pages
from mmrl.environments.devtools import browser_path
from mmrl.environments.environment import Seen
from mmrl.errors import UserError
from mmrl.tasks.web_page.task import PAGES, SIDE, TYPES, _along

try:
    browser_path()
except UserError:
    pytest.skip("no browser on this machine", allow_module_level=True)

NAMES = sorted(path.stem for path in PAGES.glob("*.html"))
LONGEST = 8
Way = tuple[str, list[dict[str, Any]], list[Seen]]


async def oracle(world: Pages, name: str, seed: int) -> Way:
    """The goal, the oracle's actions, and what was seen."""
    page = await world.open()
    try:
        seen, actions = [await page.reset({"page": f"{name}.html", "seed": seed})], []
        goal = await page.evaluate("mmrl.goal")
        while not seen[-1].done and len(actions) < LONGEST:
            actions.append(await page.evaluate("mmrl.oracle()"))
            seen.append(await page.step(actions[-1]))
        return goal, actions, seen
    finally:
        await page.close()


async def outcome(world: Pages, name: str, seed: int, actions: list[dict[str, Any]]) -> float:
    """What a page gives for other actions."""
    page = await world.open()
    try:
        seen = await page.reset({"page": f"{name}.html", "seed": seed})
        for action in actions:
            if not seen.done:
                seen = await page.step(action)
        return seen.outcome
    finally:
        await page.close()


async def ways(name: str, seeds: range) -> tuple[list[Way], list[float]]:
    """The oracle's way at each seed, and what each way earns at the next seed's page."""
    world = Pages(PAGES, SIDE, SIDE)
    try:
        found = [await oracle(world, name, seed) for seed in seeds]
        following = [*found[1:], found[0]]
        wrong = [
            await outcome(world, name, seed, other[1])
            for seed, other in zip(seeds, following, strict=True)
        ]
        return found, wrong
    finally:
        await world.close()


def plain(action: dict[str, Any]) -> dict[str, Any]:
    return {"text": "", **action}


def check(name: str, seeds: range) -> None:
    found, wrong = asyncio.run(ways(name, seeds))
    assert [seen[-1].outcome for _, _, seen in found] == [1.0] * len(seeds)
    for goal, actions, seen in found:
        assert goal and 1 <= len(actions) <= LONGEST and {a["type"] for a in actions} <= set(TYPES)
        assert len({s.key for s in seen}) == len(seen), "every action of the way is to be seen"
        assert [s.outcome for s in seen[:-1]] == [0.0] * len(actions)
    following = [*found[1:], found[0]]
    for (_, own, _), (_, other, _), earned in zip(found, following, wrong, strict=True):
        same = _along([plain(action) for action in other], own)
        assert earned == float(same), "another page's way is no way here"
    same_goal = len({goal for goal, _, _ in found}) == 1
    assert same_goal or sum(wrong) < len(seeds), "pages differ"


def test_there_is_a_page_of_each_kind() -> None:
    wanted = {"fill_field", "open_menu", "drag_slider", "scroll_list", "pick_date", "sort_table"}
    wanted |= {"search_list", "turn_pages", "confirm_dialog", "canvas_shapes", "press_button"}
    wanted |= {"name_colours", "count_dots", "follow_shape"}
    assert set(NAMES) == wanted


@pytest.mark.parametrize("name", NAMES)
def test_the_oracle_succeeds_and_another_way_does_not(name: str) -> None:
    check(name, range(40, 42))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_twenty_of_twenty(name: str) -> None:
    check(name, range(100, 120))
