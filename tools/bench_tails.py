"""Time updates and rollouts of answers of very different lengths, here and in another checkout.

    python tools/bench_tails.py --against ../other-checkout
    python tools/bench_tails.py --plain --padded 4 --cases "clip of 8,000, 16 to 2,000"

Both checkouts run this script, each in a process of its own for every case, and take turns. Other
sides are this checkout without sharing, the prompt again for every answer: `--plain`, one answer at
a time; `--padded N`, the model's own forward of N answers at once, each as long as the longest, as
trainers do that know no groups. Prompts and answers are synthetic tokens on the model of
bench_step.py: text alone, no end but where a case wants one. An update is what a learner does with
a batch: pack, lay out, log-probs, backward. Seconds are of CPU, with `--threads` over 1 on the
clock.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from bench_sides import Turns, Workload, arguments, peak_mib
from bench_step import Side, machine

import mmrl

HERE = Path(__file__).resolve().parent.parent
Group = tuple[int, Sequence[int]]
"""Tokens of a prompt and of its answers."""


@dataclass(frozen=True)
class Case:
    """A batch to update on or to roll out; `budget` are the trunk tokens of a micro-batch."""

    kind: str
    groups: Sequence[Group]
    budget: int = 4096


NEVER = -1e9
"""A logit that no token is drawn with; engines refuse those that are not finite."""

TAIL: list[Group] = [(100, [2000, *[40] * 7]), *[(100, [40] * 8)] * 15]
LONG = [16, 40, 100, 250, 500, 1000, 1500, 2000]
CASES = {
    "clip of 8,000, 16 to 2,000": Case("update", [(8000, LONG)]),
    "equal, 32 x 64": Case("update", [(112, [64] * 8)] * 4),
    "equal, 8 x 256": Case("update", [(300, [256] * 8)]),
    "equal, group size 1": Case("update", [(112, [64])] * 16),
    "1 x 2,000 + 127 x 40": Case("update", TAIL),
    "the same, group size 1": Case("update", [(100, [n]) for _, group in TAIL for n in group]),
    "one long prompt": Case("update", [(3000, [40] * 4), *[(100, [40] * 8)] * 4]),
    "rollout, equal, 32 x 64": Case("rollout", [(112, [64] * 8)] * 4),
    "rollout, 1 x 600 + 127 x 40": Case("rollout", [(100, [600, *[40] * 7]), *TAIL[1:]]),
    "rollout, 48 prompts x 1,000": Case("rollout", [(1000, [4])] * 48),
    "decoding, 16 rows": Case("rollout", [(112, [256] * 8)] * 2),
    "decoding, 32 rows": Case("rollout", [(112, [256] * 8)] * 4),
}
WAYS = ("shared", "plain", "padded")


def prepare(name: str, model: str, way: str, at_once: int) -> Callable[[], None]:
    """Load the model and return one step of a case; `at_once` rows that are padded."""
    import numpy as np
    import torch

    from mmrl.policy.policy import load_policy
    from mmrl.types import Prompt, Response, Sample, TrainSample

    Weighted = module("policy.packing", "packing").Weighted
    Sampling = module("engines.engine", "rollout.engine").Sampling
    case, rng = CASES[name], np.random.default_rng(0)
    config = module("model_config", "config").ModelConfig(path=model)
    policy = load_policy(config, torch.device("cpu"))
    if way == "plain":
        without_sharing(policy)

    def prompt(number: int, size: int) -> Prompt:
        ids, places = rng.integers(100, 300, size), np.tile(np.arange(size), (3, 1))
        return Prompt(Sample(str(number), "bench", (), None), (), ids, places, size, (), "unit")

    prompts = [prompt(i, size) for i, (size, _) in enumerate(case.groups)]

    def padded() -> None:
        rows = padded_rows(weighted)
        for start in range(0, len(weighted), at_once):
            part = [each[start : start + at_once] for each in rows]
            padded_logprobs(policy, *part).sum().backward()
        policy.model.zero_grad()

    def update() -> None:
        for layout, asked in passes(policy, weighted, case.budget):
            policy.logprobs(layout, asked, 1.0)[0].sum().backward()
        policy.model.zero_grad()

    def rollout() -> None:
        steps = iter(range(10**6))

        def ended(*args: Any) -> Any:  # a model's own forward hands its head no rows
            return ending(args[-1], next(steps)) if args[-1].numel() else None

        hook = policy.head._head.register_forward_hook(ended)
        sampling = Sampling(max(wanted) + 1)
        answers = engine.generate(prompts, [len(sizes) for _, sizes in case.groups], sampling, 0)
        hook.remove()
        assert [len(r.ids) for group in answers for r in group] == wanted

    wanted = [n for _, sizes in case.groups for n in sizes]

    def ending(logits: Any, step: int) -> Any:
        """Let each answer end at its length."""
        live = [n for n in wanted if n > step]
        end = list(policy.family.end_ids)
        if step == 0:  # still one row a prompt
            return logits.index_fill(-1, torch.tensor(end), NEVER)
        last = torch.tensor([n == step + 1 for n in live])
        logits[:, end] = NEVER
        logits[last, end[0]] = 1e9
        return logits

    weighted = []
    if case.kind == "update":
        for number, (one, (_, sizes)) in enumerate(zip(prompts, case.groups, strict=True)):
            for n in sizes:
                response = Response(rng.integers(100, 300, n), np.zeros(n), "", "stop")
                sample = TrainSample(one, response, np.ones(n), np.ones(n, bool), group=number)
                weighted.append(Weighted(sample, np.ones(n)))
        return padded if way == "padded" else update
    engine = module("engines.hf", "rollout.hf").HFEngine(policy)
    if len({*wanted}) > 1:
        return rollout
    # Without a hook: who hooks into a model sees every step as it is, none of which is recorded.
    policy.family.banned_ids = (*policy.family.banned_ids, *policy.family.end_ids)
    counts = [len(sizes) for _, sizes in case.groups]
    return lambda: engine.generate(prompts, counts, Sampling(wanted[0]), 0)


def passes(policy: Any, weighted: Sequence[Any], budget: int) -> Iterator[tuple[Any, list[Any]]]:
    """Layouts, active meanwhile, and their prompts: as this checkout's learner makes them."""
    import torch

    if importlib.util.find_spec("mmrl.train.micro_batches"):
        made = import_module("mmrl.train.micro_batches")
        packing, back = made.Packing(budget), torch.autograd.backward
        for part in made.micro_batches(policy, weighted, packing, send=back):
            yield part.layout, part.prompts
        return
    from mmrl.policy.attention import active_layout
    from mmrl.policy.shared_prefix import lay_out

    for rows in module("policy.packing", "packing").pack(weighted, budget):
        layout = lay_out([row.shared() for row in rows], policy.device)
        with active_layout(layout):
            yield layout, [row.members[0].sample.prompt for row in rows]


def without_sharing(policy: Any) -> None:
    """Let the policy run every answer behind its own copy of the prompt, as a plain model does."""
    policy.model.set_attn_implementation({"text_config": "sdpa"})
    own = policy.family.declaration
    policy.family.declaration = replace(own, shared_prefix=False)
    policy.family.plain_inputs = lambda ids, prompt: {}  # there is nothing but text here


def padded_rows(weighted: Sequence[Any]) -> tuple[Any, Any, Any]:
    """All answers behind their prompts: ids and mask [N, L], and which of [N, T] were written."""
    import torch
    from torch.nn.functional import pad

    samples = [each.sample for each in weighted]
    longest = max(len(s.prompt.ids) for s in samples), max(len(s.response.ids) for s in samples)
    rows, masks = [], []
    for sample in samples:
        prompt, answer = map(torch.from_numpy, (sample.prompt.ids, sample.response.ids))
        sides = longest[0] - len(prompt), longest[1] - len(answer)
        rows.append(pad(torch.cat([prompt, answer]), sides))
        masks.append(pad(torch.ones(len(prompt) + len(answer), dtype=torch.long), sides))
    mask = torch.stack(masks)
    return torch.stack(rows), mask, mask[:, longest[0] :].bool()


def padded_logprobs(policy: Any, ids: Any, mask: Any, written: Any) -> Any:
    """Log-probs of some rows' answers by the model's own forward."""
    import torch

    policy.model.set_attn_implementation({"text_config": "sdpa"})
    wanted = {"logits_to_keep": written.shape[1] + 1, "use_cache": False}
    logits = policy.model(input_ids=ids, attention_mask=mask, **wanted).logits
    logits[..., policy.banned] = -torch.inf
    chosen = ids[:, -written.shape[1] :, None]
    return logits[:, :-1].log_softmax(-1).gather(-1, chosen)[..., 0][written]


def module(*names: str) -> ModuleType:
    """The first of these that this checkout has: its rooms have had other names."""
    root = Path(mmrl.__file__).parent
    there = (n for n in names if (root / f"{n.replace('.', '/')}.py").is_file())
    return import_module(f"mmrl.{next(there)}")


def run(name: str, model: str, way: str, at_once: int, turns: Turns) -> None:
    """Be a side: one step a turn."""
    step = prepare(name, model, way, at_once)
    turns.say({"loaded_mib": peak_mib()})
    while turns.wait():
        start, cpu = time.perf_counter(), time.process_time()
        step()
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        turns.say({"seconds": seconds, "cpu": cpu, "peak_mib": peak_mib()})


def compare(
    name: str, model: str, others: Sequence[tuple[Path, str]], args: argparse.Namespace
) -> dict[str, Any]:
    """Let checkouts, without sharing or with it, take turns at a case after warm-up turns."""
    sides = [
        Side(
            f"{folder} {way}",
            [
                *(sys.executable, __file__, "--side", name, "--model", model, "--way", way),
                *("--padded", str(args.padded)),
            ],
            {"OMP_NUM_THREADS": str(args.threads), "PYTHONPATH": str(folder)},
        )
        for folder, way in others
    ]
    for number in range(args.warmup + args.repeats):
        for side in sides[:: 1 if number % 2 else -1]:
            sample = side.step()
            side.samples += [sample] if number >= args.warmup else []
    for side in sides:
        side.close()
    return {
        side.name: {
            "seconds": [s["seconds"] for s in side.samples],
            "cpu": [s["cpu"] for s in side.samples],
            "added_mib": side.samples[-1]["peak_mib"] - side.about["loaded_mib"],
        }
        for side in sides
    }


def shown(found: dict[str, Any], measure: str) -> str:
    """A case's lines: seconds as median (min-max), memory added to what was loaded, ratios."""
    lines = []
    own, mine = 0.0, 0.0
    for name, side in found.items():
        seconds, added = side[measure], side["added_mib"]
        median = statistics.median(seconds)
        cells = [f"    {Path(name).name:24}{median:7.2f} s ({min(seconds):.2f}-{max(seconds):.2f})"]
        cells.append(f"+{added:5.0f} MiB")
        if lines:
            cells.append(f"{median / own:5.2f}x the time, {added / mine:5.2f}x the memory")
        else:
            own, mine = median, added
        lines.append("  ".join(cells))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", type=Path, help="another checkout to take turns with")
    parser.add_argument("--plain", action="store_true", help="take turns with no sharing at all")
    parser.add_argument("--padded", type=int, default=0, help="and with padded rows, N at once")
    parser.add_argument("--threads", type=int, default=1, help="cores of a side")
    parser.add_argument("--cases", nargs="*", choices=[*CASES], default=[*CASES])
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    parser.add_argument("--side", choices=[*CASES], help=argparse.SUPPRESS)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        run(args.side, args.model, args.way, args.padded, Turns(answers))
        return
    sides = [(HERE, "shared"), *([(args.against.resolve(), "shared")] if args.against else [])]
    sides += [(HERE, "plain")] * args.plain + [(HERE, "padded")] * bool(args.padded)
    measure = "cpu" if args.threads == 1 else "seconds"
    plain = Workload("", 0, 1, 1, 1, 56, 0.0, "float32", 0.0, 0, 0)
    report: dict[str, Any] = {"machine": machine(), "cases": {}}
    with tempfile.TemporaryDirectory() as folder:
        workload = replace(plain, folder=folder)
        subprocess.run(arguments("build", workload), check=True)
        for name in args.cases:
            found = compare(name, workload.model, sides, args)
            report["cases"][name] = found
            print(f"{name}\n{shown(found, measure)}", flush=True)
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
