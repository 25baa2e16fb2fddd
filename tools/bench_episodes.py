"""Time updates on episodes that see, with what a group shares fed once and without sharing.

    python tools/bench_episodes.py

A group of answers operates one page: every turn shows a screenshot, and an answer does the
likeliest thing with probability `--likely`, else one of three others, of which one has no effect.
The same actions behind the same ones are the same tokens and lead to the same screen. The other
side is the model's own forward of every whole conversation, all of its screens through the tower.
Both take turns in one process, on one thread; prints CPU seconds, median (min-max), and what was
shared.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import statistics
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from bench_sides import Workload, build
from bench_step import machine
from PIL import Image, ImageDraw
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from mmrl.algorithms.stages.credit import pair
from mmrl.engines.engine import Sampling
from mmrl.model_config import ModelConfig
from mmrl.policy.encoder import Encoder
from mmrl.policy.logprobs import token_logprobs
from mmrl.policy.packing import Weighted
from mmrl.policy.policy import Policy, load_policy
from mmrl.rollout.episode import Episodes
from mmrl.scoring.pool import StepJob
from mmrl.train.micro_batches import Packing, micro_batches
from mmrl.types import Group, MediaRef, Observation, Prompt, Response, Sample, Score, Text

ASK = "Book the earliest flight on the page. Write one action as JSON."
ACTIONS, IDLE = 4, 3
"""Things to do on a screen, and the one of them that changes nothing."""


def screen(state: str, pixels: int) -> MediaRef:
    """The page in a state: the same fields and buttons, filled in otherwise."""
    image = Image.new("RGB", (pixels, pixels), "white")
    draw = ImageDraw.Draw(image)
    rng = np.random.default_rng(zlib.crc32(state.encode()))
    for top in range(0, pixels - 40, 56):
        draw.rectangle((20, top + 8, pixels - 20, top + 44), outline="gray")
        draw.text((28, top + 16), f"{state} {rng.integers(10**9)}", fill="black")
    file = io.BytesIO()
    image.save(file, "PNG")
    return MediaRef("screenshot", file.getvalue())


@dataclass(frozen=True)
class Page:
    """An environment whose state is the way of the actions that had an effect."""

    pixels: int

    def step(self, jobs: Sequence[StepJob]) -> list[Observation | str]:
        return [self._after(job.state, job.answer.turns[-1]) for job in jobs]

    def _after(self, state: str, action: str) -> Observation:
        new = state if action == str(IDLE) else state + action
        return Observation(new, new, parts=(screen(new, self.pixels),), outcome=0.5)


@dataclass(frozen=True)
class Actor:
    """An engine that does the likeliest thing on each screen, or another."""

    policy: Policy
    likely: float
    length: int

    def generate(
        self, prompts: Sequence[Prompt], counts: Sequence[int], sampling: Sampling, seed: int
    ) -> list[list[Response]]:
        rng = np.random.default_rng(seed)
        return [[self._act(p, rng) for _ in range(n)] for p, n in zip(prompts, counts, strict=True)]

    def _act(self, prompt: Prompt, rng: np.random.Generator) -> Response:
        assert prompt.sample.start is not None
        action = 0 if rng.random() < self.likely else int(rng.integers(1, ACTIONS))
        name = f"{prompt.sample.start.key} {action}"
        words = np.random.default_rng(zlib.crc32(name.encode())).integers(100, 300, self.length - 1)
        ids = np.append(words, self.policy.family.end_ids[0])
        return Response(ids, np.full(len(ids), -1.0), str(action), "stop")


def play(policy: Policy, args: argparse.Namespace) -> Group:
    """One group's episodes."""
    parts = (screen("", args.pixels), Text(ASK))
    start = Observation("", "")
    encoder = Encoder(policy.family)
    prompt = encoder.prompt(Sample("one", "bench", parts, None, start=start, turns=args.turns))
    actor = Actor(policy, args.likely, args.length)
    player = Episodes(actor, Page(args.pixels), encoder)  # type: ignore[arg-type]
    (answers,) = player.generate([prompt], [args.answers], Sampling(10**6), args.seed)
    nothing = Score({}, None, reward=0.0)
    return Group(prompt, tuple(answers), (nothing,) * len(answers))


@dataclass
class Work:
    """What went through the model: pictures and patches of the tower, tokens of the trunk."""

    pictures: int = 0
    patches: int = 0
    tokens: int = 0

    def watch(self, model: Any) -> list[RemovableHandle]:
        def tower(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            grids = kwargs["grid_thw"] if "grid_thw" in kwargs else args[1]
            self.pictures += len(grids)
            self.patches += int(grids.prod(-1).sum())

        def layers(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self.tokens += kwargs["inputs_embeds"].shape[:2].numel()

        watched = (model.model.visual, tower), (model.model.language_model, layers)
        return [part.register_forward_pre_hook(seen, with_kwargs=True) for part, seen in watched]


def shared(policy: Policy, group: Group, weights: Sequence[Tensor], budget: int) -> list[Tensor]:
    """Log-probs of what every answer's model wrote, as an update makes them, and gradients."""
    samples = pair(group, np.zeros(len(group.responses)), 0)
    asked = [Weighted(sample, np.zeros(0), place) for place, sample in enumerate(samples)]
    found: dict[int, Tensor] = {}
    for part in micro_batches(policy, asked, Packing(budget), send=torch.autograd.backward):
        logprobs, _ = policy.logprobs(part.layout, part.prompts, 1.0)
        pieces = logprobs.split([len(m.sample.response.ids) for m in part.members])
        loss = logprobs.new_zeros(())
        for member, piece in zip(part.members, pieces, strict=True):
            own = piece[torch.from_numpy(member.sample.response.written)]
            found[member.place] = own.detach()
            loss = loss + (own * weights[member.place]).sum()
        loss.backward()
    return [found[i] for i in range(len(found))]


def apart(policy: Policy, group: Group, weights: Sequence[Tensor]) -> list[Tensor]:
    """The same by the model's own forward of each conversation, one after the other."""
    found = []
    for answer, weight in zip(group.responses, weights, strict=True):
        assert answer.observed is not None
        media = [*group.prompt.media, *answer.observed.media]
        tensors = [policy.store._sources.whole(m).tensors for m in media]
        ids = torch.from_numpy(np.append(group.prompt.ids, answer.ids[:-1]))[None]
        hidden = policy.head.take(
            policy.model,
            use_cache=False,
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            mm_token_type_ids=(ids == policy.model.config.image_token_id).int(),
            pixel_values=torch.cat([t["pixel_values"] for t in tensors]),
            image_grid_thw=torch.cat([t["image_grid_thw"] for t in tensors]),
        )[0]
        written = torch.from_numpy(answer.written)
        asked = hidden[len(group.prompt.ids) - 1 :][written]
        targets = torch.from_numpy(answer.ids)[written]
        logprobs, _ = token_logprobs(policy.head, asked, targets, policy.banned, 1.0)
        (logprobs * weight).sum().backward()
        found.append(logprobs.detach())
    return found


def gradient(policy: Policy) -> Tensor:
    return torch.cat([p.grad.flatten() for p in policy.model.parameters() if p.grad is not None])


def relative(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


def timed(
    sides: dict[str, Callable[[], Any]], policies: dict[str, Policy], repeats: int
) -> dict[str, list[float]]:
    """CPU seconds of the sides, in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(repeats):
        for name in [*sides][:: 1 if turn % 2 else -1]:
            policies[name].model.zero_grad()
            start = time.process_time()
            sides[name]()
            seconds[name].append(time.process_time() - start)
    return seconds


def what_is_shared(group: Group) -> str:
    seen = [m.hash for m in group.prompt.media] * len(group.responses)
    seen += [m.hash for r in group.responses if r.observed for m in r.observed.media]
    said = [r.episode.said for r in group.responses if r.episode]
    ways = {turns[: n + 1] for turns in said for n in range(len(turns))}
    count = sum(map(len, said))
    return f"{len(ways)} of {count} turns differ, {len(set(seen))} of {len(seen)} screens"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answers", type=int, default=8)
    parser.add_argument("--turns", type=int, default=6)
    parser.add_argument("--pixels", type=int, default=448, help="side of a screen")
    parser.add_argument("--length", type=int, default=24, help="tokens of a turn")
    parser.add_argument("--likely", type=float, default=0.95, help="of the likeliest action")
    parser.add_argument("--budget", type=int, default=16384, help="trunk tokens of a micro-batch")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        workload = Workload(folder, 1, 1, 1, 1, args.pixels, 0.0, "float32", 0.0, args.seed, 0)
        build(workload)
        policies = {
            name: load_policy(ModelConfig(path=workload.model), torch.device("cpu"))
            for name in ("shared", "plain")
        }
    policies["plain"].model.set_attn_implementation({"text_config": "sdpa"})
    group = play(policies["shared"], args)
    made = torch.Generator().manual_seed(0)
    weights = [torch.randn(int(r.written.sum()), generator=made) for r in group.responses]
    sides: dict[str, Callable[[], list[Tensor]]] = {
        "shared": lambda: shared(policies["shared"], group, weights, args.budget),
        "plain": lambda: apart(policies["plain"], group, weights),
    }
    print(json.dumps(machine()))
    print(
        f"{args.answers} answers x {args.turns} turns x {args.pixels} px, likely {args.likely:g}: "
        f"{what_is_shared(group)}, {sum(len(r.ids) for r in group.responses)} answer tokens"
    )
    found, work = {}, {}
    for name, side in sides.items():  # not timed: what goes through the model, and what comes out
        work[name] = Work()
        work[name].watch(policies[name].model)
        found[name] = torch.cat(side()), gradient(policies[name])
    counted = {name: dataclasses.replace(each) for name, each in work.items()}
    for name, each in counted.items():
        print(f"{name}: {each.pictures} pictures through the tower, {each.tokens} trunk tokens")
    gaps = [relative(a, b) for a, b in zip(found["shared"], found["plain"], strict=True)]
    print(f"log-probs differ by {gaps[0]:.1e}, gradients by {gaps[1]:.1e}")
    seconds = timed(sides, policies, args.repeats)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    cells = [
        f"{name} {medians[name]:.2f} s ({min(values):.2f}-{max(values):.2f})"
        for name, values in seconds.items()
    ]
    print(f"update: {', '.join(cells)}: {medians['plain'] / medians['shared']:.1f}x", flush=True)


if __name__ == "__main__":
    main()
