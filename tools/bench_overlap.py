"""Episode steps a second of a browser alone, of a model alone, and of both together.

    OMP_NUM_THREADS=1 python tools/bench_overlap.py

Episodes operate pages of the task `web_page` in a real Chromium: they press what sorts, turns,
scrolls or takes the focus, so that none ends before its last turn, and every wave stays as large as
it began. The browser alone has an engine that says nothing; the model alone is shown what the
browser showed before; together they play in waves (`rollout.waves`) and, to compare, all at once.
What is done does not depend on what is said, so all four play the same episodes. Ways take turns;
prints steps a second, median (min-max), how many pictures passed the tower, and last the share of
the slower alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from bench_sides import Workload, build
from bench_step import machine

from mmrl.engines.engine import Sampling
from mmrl.engines.hf import HFEngine
from mmrl.environments.browser import Pages
from mmrl.environments.live import Live, LiveStep, shown
from mmrl.model_config import ModelConfig
from mmrl.policy.encoder import Encoder
from mmrl.policy.policy import Policy, load_policy
from mmrl.rollout.episode import Episodes
from mmrl.scoring.pool import Start, StepJob
from mmrl.tasks.web_page.task import PAGES
from mmrl.types import MediaRef, Observation, Prompt, Response, Sample, Text

PRESSED = {
    "fill_field.html": ((112, 30), (112, 80), (112, 130)),
    "sort_table.html": ((111, 22), (184, 22)),
    "turn_pages.html": ((39, 197), (185, 197)),
    "scroll_list.html": (),
}
"""Pages, and places on them that do something and end nothing; without any, a page is scrolled."""


def action(start: Mapping[str, Any], turn: int) -> dict[str, Any]:
    """What an episode does in a turn."""
    rng, places = np.random.default_rng([int(start["seed"]), turn]), PRESSED[start["page"]]
    if not places:
        return {"type": "scroll", "text": ("down", "up")[turn % 4 // 2]}
    x, y = places[rng.integers(len(places))]
    return {"type": "click", "text": "", "x": x, "y": y}


@dataclass
class Actions:
    """Turns that act, in the browser or as they were recorded there."""

    live: Live
    recorded: dict[str, Observation] = field(default_factory=dict)
    replays: bool = False

    def step(self, jobs: Sequence[StepJob]) -> list[Observation | str]:
        turns, asked = [], []
        for job in jobs:
            start, taken = job.state["start"], job.state["actions"]
            actions = (*taken, action(start, len(taken)))
            turns.append(LiveStep(start, actions))
            asked.append(Observation({"start": start, "actions": actions}, "", outcome=0.0))
        if self.replays:
            return [self.recorded[turn.after] for turn in turns]
        found: list[Observation | str] = []
        for turn, observation, seen in zip(turns, asked, self.live.step(turns), strict=True):
            assert not isinstance(seen, str), seen
            self.recorded[turn.after] = shown(observation, seen)
            found.append(self.recorded[turn.after])
        return found

    def expect(self, starts: Sequence[Start]) -> None:
        if not self.replays:
            self.live.expect([start.state["start"] for start in starts])


@dataclass(frozen=True)
class Silent:
    """An engine that takes no time."""

    policy: Policy

    def generate(
        self, prompts: Sequence[Prompt], counts: Sequence[int], sampling: Sampling, seed: int
    ) -> list[list[Response]]:
        end = np.array([self.policy.family.end_ids[0]])
        return [[Response(end, np.zeros(1), "", "stop") for _ in range(n)] for n in counts]


@dataclass(frozen=True)
class Wordy:
    """The embedded engine; every turn has as many tokens, and is then over."""

    engine: HFEngine
    length: int

    def generate(
        self, prompts: Sequence[Prompt], counts: Sequence[int], sampling: Sampling, seed: int
    ) -> list[list[Response]]:
        sampling = Sampling(self.length, still=sampling.still)
        made = self.engine.generate(prompts, counts, sampling, seed)
        return [[Response(r.ids, r.logprobs, r.text, "stop") for r in group] for group in made]


async def opened(starts: Sequence[Mapping[str, Any]], side: int) -> list[bytes]:
    """The first screens."""
    world = Pages(PAGES, side, side)
    try:
        found = []
        for start in starts:
            page = await world.open()
            found.append((await page.reset(start)).png)
            await page.close()
        return found
    finally:
        await world.close()


def prompts_of(encoder: Encoder, args: argparse.Namespace) -> list[Prompt]:
    pages = list(PRESSED)
    starts = [{"page": pages[n % len(pages)], "seed": n + 1} for n in range(args.episodes)]
    screens = asyncio.run(opened(starts, args.side))
    return [
        encoder.prompt(
            Sample(
                f"{n}",
                "bench",
                (MediaRef("screenshot", png), Text("Click on the page.")),
                None,
                start=Observation({"start": start, "actions": ()}, "start"),
                turns=args.turns,
            )
        )
        for n, (start, png) in enumerate(zip(starts, screens, strict=True))
    ]


def watch(policy: Policy) -> list[int]:
    """Pictures that pass the tower from now on, by call."""
    counts: list[int] = []

    def tower(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        counts.append(len(kwargs["grid_thw"] if "grid_thw" in kwargs else args[1]))

    policy.model.model.visual.register_forward_pre_hook(tower, with_kwargs=True)
    return counts


def compare(policy: Policy, args: argparse.Namespace) -> dict[str, list[float]]:
    """Steps a second of every way of playing the same episodes."""
    encoder = Encoder(policy.family)
    prompts = prompts_of(encoder, args)
    live = Live(lambda: Pages(PAGES, args.side, args.side))
    lived, replayed = Actions(live), Actions(live, replays=True)
    replayed.recorded = lived.recorded
    speaks = Wordy(HFEngine(policy), args.length)

    def way(engine: Any, acts: Actions, waves: int) -> Callable[[], int]:
        def play() -> int:
            player = Episodes(engine, acts, encoder, waves=waves)  # type: ignore[arg-type]
            groups = player.generate(prompts, [1] * len(prompts), Sampling(10**6), 0)
            steps = sum(len(r.episode.turns) for group in groups for r in group if r.episode)
            assert steps == len(prompts) * args.turns, "no episode ends early"
            return steps

        return play

    ways: dict[str, Callable[[], int]] = {
        "browser alone": way(Silent(policy), lived, 1),
        "model alone": way(speaks, replayed, 1),
        "together, in waves": way(speaks, lived, args.waves),
        "together, all at once": way(speaks, lived, 1),
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    counts = watch(policy)
    ways["browser alone"]()  # not timed: the browser starts, and all screens are recorded
    ways["model alone"]()
    shows = [part for p in prompts for part in p.sample.parts]
    shows += [part for observation in lived.recorded.values() for part in observation.parts]
    distinct = {part.source for part in shows if isinstance(part, MediaRef)}
    print(f"one play: {sum(counts)} pictures through the tower, {len(distinct)} distinct screens")
    for turn in range(args.repeats):
        for name in [*ways][:: 1 if turn % 2 else -1]:
            start = time.perf_counter()
            steps = ways[name]()
            found[name].append(steps / (time.perf_counter() - start))
    live.close()
    encoder.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=16)
    parser.add_argument("--turns", type=int, default=6)
    parser.add_argument("--side", type=int, default=224, help="points of a screen's side")
    parser.add_argument("--length", type=int, default=24, help="tokens of a turn")
    parser.add_argument("--waves", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        workload = Workload(folder, 1, 1, 1, 1, args.side, 0.0, "float32", 0.0, 0, 0)
        build(workload)
        policy = load_policy(ModelConfig(path=workload.model), torch.device("cpu"))
    policy.family.banned_ids = (*policy.family.banned_ids, *policy.family.end_ids)
    print(json.dumps(machine()))
    found = compare(policy, args)
    medians = {name: statistics.median(values) for name, values in found.items()}
    slower = min(medians["browser alone"], medians["model alone"])
    for name, values in found.items():
        print(
            f"{name}: {medians[name]:.1f} steps a second ({min(values):.1f}-{max(values):.1f}), "
            f"{medians[name] / slower:.2f} of the slower alone"
        )
    print(json.dumps(machine()), flush=True)


if __name__ == "__main__":
    main()
