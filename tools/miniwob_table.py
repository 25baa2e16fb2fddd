"""Do all pages of MiniWoB run, and come back from seed and actions? A random policy plays them.

    pip install 'mmrl[miniwob]' && python tools/miniwob_table.py --out runs/miniwob

plays every page for EPISODES episodes of at most ACTIONS actions (clicks, drags, typed words, keys,
scrolls), each in a fresh browser context, then each again from its seed and actions. Both must
agree after every action on the screen's pixels (but four), the page's key, its reward and its end.
What fails is tried again in a fresh browser, and is a fault the third time.
Prints a line a page and what does not hold, with the reason. What is already there is not repeated.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import io
import json
import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmrl.environments.environment import EnvironmentFailure, Seen
from mmrl.environments.miniwob import HEIGHT, WIDTH, MiniWob, begin_of, names, raw_reward

ACTIONS, BESIDE, TRIES = 5, 4, 3
WORDS = ("a", "ok", "12", "seat", "no\n")
SLACK, FEW = 2, 12
"""A browser draws the corner of a button otherwise now and then: values of a screen (three a pixel)
that may be off by more than so many steps of a colour."""


def policy(name: str, seed: int) -> list[dict[str, Any]]:
    """Actions of an episode, the same for the same page and seed."""
    rng = random.Random(f"{name} {seed}")

    def at() -> tuple[float, float]:
        return rng.randrange(2, WIDTH - 2), rng.randrange(52, HEIGHT - 2)  # below the instruction

    def one() -> dict[str, Any]:
        (x, y), (to_x, to_y) = at(), at()
        match rng.choices(("click", "drag", "type", "enter", "scroll"), (6, 1, 2, 0.5, 0.5))[0]:
            case "drag":
                return {"type": "drag", "x": x, "y": y, "to_x": to_x, "to_y": to_y}
            case "type":
                return {"type": "type", "text": rng.choice(WORDS)}
            case "scroll":
                return {"type": "scroll", "text": rng.choice(("down", "up")), "x": x, "y": y}
            case kind:
                return {"type": kind, "x": x, "y": y}

    return [one() for _ in range(ACTIONS)]


def pixels(seen: Seen) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(seen.png)).convert("RGB")).astype(int)


async def play(world: MiniWob, name: str, seed: int) -> list[Seen]:
    """What was seen at first and after each action, up to the end."""
    page = await world.open()
    try:
        seen = [await page.reset(begin_of(name, seed))]
        for action in policy(name, seed):
            if seen[-1].done:
                break
            seen.append(await page.step(action))
        return seen
    finally:
        await page.close()


def difference(first: Sequence[Seen], again: Sequence[Seen]) -> str:
    """The first thing that is not the same; "" if all is."""
    for number, (one, other) in enumerate(zip(first, again, strict=False)):
        place = f"after {number} actions"
        if (one.done, one.reward) != (other.done, other.reward):
            return f"{place}: the reward {raw_reward(one)}, then {raw_reward(other)}"
        if one.key != other.key and not one.done:
            return f"{place}: the page's account of itself"
        off = 0 if one.done else int((abs(pixels(one) - pixels(other)) > SLACK).sum())
        if off > FEW:
            return f"{place}: {off} values of the screen"
    return "" if len(first) == len(again) else "ended after another number of actions"


async def episode(world: MiniWob, name: str, seed: int) -> dict[str, Any]:
    """One episode, played twice; `fault`, `mended` and `differs` are reasons, or empty."""
    started, reasons = time.monotonic(), [""]
    while True:
        generation = world.generation
        try:
            first = await play(world, name, seed)
            again = await play(world, name, seed)
            break
        except EnvironmentFailure as error:
            reasons.append(str(error))
            await world.restart(generation)  # others of its pages meet that, too
            if len(reasons) > TRIES:
                return {"page": name, "seed": seed, "fault": reasons[1], "differs": ""}
    return {
        "page": name,
        "seed": seed,
        "fault": "",
        "mended": reasons[-1],
        "differs": difference(first, again),
        "actions": len(first) - 1,
        "done": first[-1].done,
        "raw": raw_reward(first[-1]),
        "first": hashlib.sha256(first[0].png).hexdigest()[:8],
        "seconds": round(time.monotonic() - started, 3),
    }


async def run(pages: Sequence[str], episodes: int, path: Path) -> None:
    """Play what the file does not have yet, BESIDE episodes side by side in one browser."""
    there = {(row["page"], row["seed"]) for row in rows(path)}
    todo = [(n, s) for n in pages for s in range(episodes) if (n, s) not in there]
    world, slots = MiniWob(), asyncio.Semaphore(BESIDE)
    with path.open("a", encoding="utf-8") as file:

        async def one(name: str, seed: int) -> None:
            async with slots:
                found = await episode(world, name, seed)
            file.write(json.dumps(found) + "\n")
            file.flush()

        try:
            await asyncio.gather(*(one(name, seed) for name, seed in todo))
        finally:
            await world.close()


def rows(path: Path) -> list[Mapping[str, Any]]:
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def table(found: Sequence[Mapping[str, Any]], pages: Sequence[str]) -> list[str]:
    """A line a page, then the sums and all that did not hold."""
    lines = ["| page | episodes | faults | replayed otherwise | ended | solved | screens |"]
    lines.append("|---|---|---|---|---|---|---|")
    for name in pages:
        own = [row for row in found if row["page"] == name]
        played = [row for row in own if not row["fault"]]
        lines.append(
            f"| {name} | {len(own)} | {len(own) - len(played)} "
            f"| {sum(bool(row['differs']) for row in played)} "
            f"| {sum(row['done'] for row in played)} | {sum(row['raw'] > 0 for row in played)} "
            f"| {len({row['first'] for row in played})} |"
        )
    faults = [row for row in found if row["fault"]]
    differ = [row for row in found if row["differs"]]
    whole = {n for n in pages if not any(r["page"] == n for r in (*faults, *differ))}
    lines += [
        "",
        f"{len(pages)} pages, {len(found)} episodes: {len(faults)} faults, {len(differ)} replayed "
        f"otherwise; {len(whole)} pages without either; "
        f"{sum(bool(row.get('mended')) for row in found)} mended by a fresh browser",
    ]
    reasons = [*((r, r["fault"]) for r in faults), *((r, r["differs"]) for r in differ)]
    lines += [f"- {row['page']}, seed {row['seed']}: {reason}" for row, reason in reasons]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/miniwob"))
    parser.add_argument("--pages", nargs="*", default=None)
    parser.add_argument("--episodes", type=int, default=20)
    args = parser.parse_args()
    pages = args.pages or names()
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "episodes.jsonl"
    asyncio.run(run(pages, args.episodes, path))
    mine = [row for row in rows(path) if row["page"] in pages and row["seed"] < args.episodes]
    lines = table(mine, pages)
    (args.out / "table.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
