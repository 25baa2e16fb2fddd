"""Time rollouts of episodes that see, with turns that go on from the one before and turns anew.

    python tools/bench_turns.py

One group operates a page with the embedded engine: every turn has `--length` tokens and shows
another screenshot. Where a turn goes on, the trunk runs over what is new; anew, over everything
that the turn is asked with, as it did before. The tower sees each screen once on both sides, which
take turns in one process, on one thread; prints CPU seconds, median (min-max).
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from bench_episodes import ASK, Work, relative, screen, timed
from bench_overlap import Wordy
from bench_sides import Workload, build
from bench_step import machine

from mmrl.engines.engine import Sampling
from mmrl.engines.hf import HFEngine
from mmrl.model_config import ModelConfig
from mmrl.policy.encoder import Encoder
from mmrl.policy.policy import Policy, load_policy
from mmrl.rollout.episode import Episodes
from mmrl.scoring.pool import StepJob
from mmrl.types import Observation, Response, Sample, Text


@dataclass(frozen=True)
class Pages:
    """An environment that shows another screen for every text."""

    pixels: int

    def step(self, jobs: Sequence[StepJob]) -> list[Observation | str]:
        states = [f"{zlib.crc32(repr(job.answer.turns).encode()):x}" for job in jobs]
        return [Observation(s, s, parts=(screen(s, self.pixels),), outcome=0.5) for s in states]


def play(policy: Policy, engine: HFEngine, args: argparse.Namespace) -> list[Response]:
    """A group's episodes."""
    parts = (screen("", args.pixels), Text(ASK))
    start, encoder = Observation("", ""), Encoder(policy.family)
    prompt = encoder.prompt(Sample("one", "bench", parts, None, start=start, turns=args.turns))
    player = Episodes(Wordy(engine, args.length), Pages(args.pixels), encoder)  # type: ignore[arg-type]
    (answers,) = player.generate([prompt], [args.answers], Sampling(10**6), args.seed)
    return list(answers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answers", type=int, default=8)
    parser.add_argument("--turns", type=int, default=6)
    parser.add_argument("--pixels", type=int, default=448, help="side of a screen")
    parser.add_argument("--length", type=int, default=24, help="tokens of a turn")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        workload = Workload(folder, 1, 1, 1, 1, args.pixels, 0.0, "float32", 0.0, args.seed, 0)
        build(workload)
        policy = load_policy(ModelConfig(path=workload.model), torch.device("cpu"))
    engines = {"goes on": HFEngine(policy), "anew": HFEngine(policy, prefix_tokens=0)}

    def side(name: str) -> Callable[[], list[Response]]:
        return lambda: play(policy, engines[name], args)

    print(json.dumps(machine()))
    print(f"{args.answers} answers x {args.turns} turns of {args.length} x {args.pixels} px")
    found = {name: side(name)() for name in engines}  # not timed: is it the same?
    ids = [[r.ids.tolist() for r in answers] for answers in found.values()]
    values = [torch.from_numpy(np.concatenate([r.logprobs for r in a])) for a in found.values()]
    print(f"the same tokens: {ids[0] == ids[1]}; log-probs differ by {relative(*values):.1e}")
    sides = {name: side(name) for name in engines}
    seconds = timed(sides, dict.fromkeys(engines, policy), args.repeats)
    for name in engines:  # not timed: hooks keep steps from being recorded
        work = Work()
        hooks = work.watch(policy.model)
        play(policy, engines[name], args)
        for hook in hooks:
            hook.remove()
        print(f"{name}: {work.pictures} pictures through the tower, {work.tokens} trunk tokens")
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    cells = [f"{n} {medians[n]:.2f} s ({min(v):.2f}-{max(v):.2f})" for n, v in seconds.items()]
    print(f"rollout: {', '.join(cells)}: {medians['anew'] / medians['goes on']:.2f}x", flush=True)


if __name__ == "__main__":
    main()
