"""Episodes on the pages of `web_page`: seeds, goals, first screens and ways to the goal.

Every page is opened in the browser and its own oracle is followed to the end, so that what is
written can be done. No seed of one split is in another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmrl.data_recipes.digits import write_jsonl
from mmrl.environments.browser import Page, Pages
from mmrl.errors import UserError
from mmrl.recipes.manifest import write_made
from mmrl.recipes.recipe import About
from mmrl.tasks.web_page.task import PAGES, SIDE

ABOUT = About(
    name="web_pages",
    summary="pages to operate in a real browser",
    task="web_page",
    license="CC0-1.0",
)
LONGEST = 12


def build(
    source: Path | None,
    out: Path,
    *,
    seed: int = 0,
    pages: str = "press_button,fill_field",
    train: int = 200,
    validation: int = 40,
    test: int = 60,
) -> None:
    """Write `out/{train,validation,test}.jsonl`, the first screens and a manifest.

    `pages` are named without their ending, commas between. `source` is unused.
    """
    if source is not None:
        raise UserError("the web_pages recipe reads no input folder: leave out --in")
    names = [name.strip() for name in pages.split(",")]
    if unknown := [name for name in names if not (PAGES / f"{name}.html").is_file()]:
        raise UserError(f"no page {unknown[0]}: there are {', '.join(known_pages())}")
    counts = {"train": train, "validation": validation, "test": test}
    (out / "screens").mkdir(parents=True, exist_ok=True)
    asyncio.run(_write(out, names, counts, seed))
    write_made(out, recipe=ABOUT.name, license=ABOUT.license, seed=seed, pages=pages)


def known_pages() -> list[str]:
    """The pages that there are."""
    return sorted(path.stem for path in PAGES.glob("*.html"))


async def _write(out: Path, names: list[str], counts: Mapping[str, int], seed: int) -> None:
    world, number = Pages(PAGES, SIDE, SIDE), seed * 1_000_000
    try:
        for split, count in counts.items():
            records = []
            for index in range(count):
                name, number = names[index % len(names)], number + 1
                page = await world.open()
                try:
                    records.append(await record_of(page, name, number, out))
                finally:
                    await page.close()
            write_jsonl(out / f"{split}.jsonl", records)
    finally:
        await world.close()


async def record_of(page: Page, name: str, seed: int, out: Path) -> dict[str, Any]:
    """One record: the page is opened and its oracle followed to the end."""
    start = {"page": f"{name}.html", "seed": seed}
    seen = await page.reset(start)
    screen = Path("screens") / f"{name}-{seed}.png"
    (out / screen).write_bytes(seen.png)
    goal, path = await page.evaluate("mmrl.goal"), []
    while not seen.done:
        path.append(await page.evaluate("mmrl.oracle()"))
        assert len(path) <= LONGEST, f"the oracle of {name} does not end"
        seen = await page.step(path[-1])
    assert seen.outcome == 1.0, f"the oracle of {name} failed at seed {seed}"
    return {
        "id": f"{name}-{seed}",
        **start,
        "goal": goal,
        "screenshot": screen.as_posix(),
        "path": path,
    }
