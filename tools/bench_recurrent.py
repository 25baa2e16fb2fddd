"""Time a tiny Qwen3.5 with prompts shared and without, in turns in one process.

    python tools/bench_recurrent.py

One prompt of text and its answers: an update is log-probs and backward, a rollout draws as many
tokens for every answer. The plain side gives each answer its own copy of the prompt, trains by the
model's own forward and rolls out by its own `generate`. Prints CPU seconds, median (min-max).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from bench_step import machine
from learn_qwen3_5 import build


def policy(shared: bool) -> Any:
    """The same weights each time, with prompts shared or not; no answer ends by itself."""
    from mmrl import plugins
    from mmrl.policy.family import Limits
    from mmrl.policy.policy import wrap

    model, processor = build(seed=0)
    family = plugins.load("family", "qwen3_5").build(model.eval(), processor, Limits(10**6))
    family.declaration = dataclasses.replace(family.declaration, shared_prefix=shared)
    if not shared:
        # The model's own forward wants nothing besides the ids: the prompt is text alone.
        family.plain_inputs = lambda ids, prompt: {}
    family.banned_ids = (*family.banned_ids, *family.end_ids)
    return wrap(model, processor, family)


def steps(made: Any, prompt_tokens: int, answers: int, length: int) -> dict[str, Callable[[], Any]]:
    """An update and a rollout of one policy; the update returns its log-probs."""
    from mmrl.engines.engine import Sampling
    from mmrl.engines.hf import HFEngine
    from mmrl.policy.attention import active_layout
    from mmrl.policy.shared_prefix import SharedRow, lay_out
    from mmrl.types import Prompt, Sample

    rng = np.random.default_rng(0)
    ids, places = rng.integers(100, 300, prompt_tokens), np.arange(prompt_tokens)
    sample = Sample("one", "bench", (), None)
    prompt = Prompt(sample, (), ids, np.tile(places, (3, 1)), prompt_tokens, (), "unit")
    row = SharedRow(prompt, tuple(rng.integers(100, 300, length) for _ in range(answers)))
    engine = HFEngine(made)

    def update() -> Any:
        layout = lay_out([row], made.device)
        with active_layout(layout):
            logprobs, _ = made.logprobs(layout, [prompt], 1.0)
            logprobs.sum().backward()
        made.model.zero_grad()
        return logprobs.detach()

    def rollout() -> None:
        (group,) = engine.generate([prompt], [answers], Sampling(length), 0)
        assert [len(response.ids) for response in group] == [length] * answers

    return {"update": update, "rollout": rollout}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompt", type=int, default=2048, help="tokens")
    parser.add_argument("--answers", type=int, default=8)
    parser.add_argument("--length", type=int, default=32, help="tokens of each answer")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    sides = {
        name: steps(policy(shared), args.prompt, args.answers, args.length)
        for name, shared in (("shared", True), ("plain", False))
    }
    print(json.dumps(machine()))
    own, other = (sides[name]["update"]() for name in sides)  # not counted
    print(f"log-probs differ by {float((own - other).norm() / other.norm()):.1e}")
    for what in ("update", "rollout"):
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for turn in range(args.repeats):
            for name in [*sides][:: 1 if turn % 2 else -1]:
                start = time.process_time()
                sides[name][what]()
                seconds[name].append(time.process_time() - start)
        medians = {name: statistics.median(values) for name, values in seconds.items()}
        cells = [
            f"{name} {medians[name]:.2f} s ({min(values):.2f}-{max(values):.2f})"
            for name, values in seconds.items()
        ]
        print(
            f"{what}: {', '.join(cells)}: {medians['plain'] / medians['shared']:.1f}x", flush=True
        )


if __name__ == "__main__":
    main()
