"""Episodes on the pages of MiniWoB: seeds, goals and first screens.

The pages are those of the installed package `miniwob`, opened in the browser. No seed of one split
is in another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmrl.data_recipes.digits import write_jsonl
from mmrl.environments.miniwob import MiniWob, MiniWobPage, begin_of, names
from mmrl.errors import UserError
from mmrl.recipes.manifest import write_made
from mmrl.recipes.recipe import About

ABOUT = About(
    name="miniwob",
    summary="the pages of MiniWoB to operate in a real browser",
    task="miniwob",
    license="MIT",
)


def build(
    source: Path | None,
    out: Path,
    *,
    seed: int = 0,
    pages: str = "",
    train: int = 1300,
    validation: int = 130,
    test: int = 260,
    pixel_ratio: float = 2.0,
) -> None:
    """Write `out/{train,validation,test}.jsonl`, the first screens and a manifest.

    `pages` are named, commas between; empty: all. `source` is unused.
    """
    if source is not None:
        raise UserError("the miniwob recipe reads no input folder: leave out --in")
    known = names()
    wanted = [name.strip() for name in pages.split(",")] if pages else known
    if unknown := [name for name in wanted if name not in known]:
        raise UserError(f"no page {unknown[0]}: there are {', '.join(known)}")
    counts = {"train": train, "validation": validation, "test": test}
    (out / "screens").mkdir(parents=True, exist_ok=True)
    asyncio.run(_write(out, wanted, counts, seed, pixel_ratio))
    write_made(out, recipe=ABOUT.name, license=ABOUT.license, seed=seed, pages=pages)


async def _write(
    out: Path, wanted: Sequence[str], counts: Mapping[str, int], seed: int, ratio: float
) -> None:
    world, number = MiniWob(ratio), seed * 1_000_000
    try:
        for split, count in counts.items():
            records = []
            for index in range(count):
                number += 1
                page = await world.open()
                assert isinstance(page, MiniWobPage)
                try:
                    name = wanted[index % len(wanted)]
                    records.append(await record_of(page, name, number, out, ratio))
                finally:
                    await page.close()
            write_jsonl(out / f"{split}.jsonl", records)
    finally:
        await world.close()


async def record_of(
    page: MiniWobPage, name: str, seed: int, out: Path, ratio: float
) -> dict[str, Any]:
    """One record: the page as it begins."""
    seen = await page.reset(begin_of(name, seed))
    screen = Path("screens") / f"{name}-{seed}.png"
    (out / screen).write_bytes(seen.png)
    return {
        "id": f"{name}-{seed}",
        "page": name,
        "seed": seed,
        "goal": page.utterance,
        "screenshot": screen.as_posix(),
        "pixel_ratio": ratio,
    }
