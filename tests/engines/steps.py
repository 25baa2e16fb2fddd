"""One process of a test of sharded steps; see `test_deepspeed.py`.

    python -m tests.engines.steps FOLDER first|second LOADED_FROM

`first` makes a model's first step from its start, under every backend, and saves a checkpoint;
`second` takes up a checkpoint that LOADED_FROM saved and makes the next step.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from mmrl import checkpoint
from mmrl.algorithm import Algorithm
from mmrl.algorithms.compose import compose
from mmrl.backend.backend import Backend
from mmrl.backend.deepspeed import DeepSpeedBackend
from mmrl.backend.local import LocalBackend
from mmrl.backend.world import World, join
from mmrl.config import OptimizerConfig, RunConfig
from mmrl.learner import Learner
from mmrl.policy.policy import Policy
from mmrl.rollout.split import _light
from mmrl.types import Group, Prompt, Response, Score, TrainSample
from tests.algorithms.cases import context
from tests.families.cases import Case, ask, make, policy

CONFIGS = Path(__file__).parent.parent.parent / "configs" / "deepspeed"
LENGTHS = ((4, 2, 7), (1, 5, 3), (6, 2, 2), (3, 3, 3), (5, 1, 8))
REWARDS = ((1, 0, 0), (1, 1, 0), (0, 0, 1), (0, 0, 0), (0, 1, 0))
MODELS = {
    # What the five prompts show: a process without media, and kinds that only one process has.
    "qwen2_5_omni": (("image",), (), ("audio", "image"), (), ("film",)),
    "qwen3_vl_moe": (("image", "video"), (), ("image",), (), ("video",)),
}
BUDGETS = {"whole": 10_000, "pieces": 60}


def prompts(made: Policy, kinds: Sequence[Sequence[str]], world: World) -> list[Prompt]:
    """Prompt i has its home at process i modulo their number; elsewhere it has no tensors."""
    found = []
    for i, shown in enumerate(kinds):
        parts = [make(kind, 3 * i + j) for j, kind in enumerate(shown)]
        prompt = replace(ask(made, Case((*parts, f"What is it, {i}?"))), home=i % world.size)
        light = _light([prompt])
        assert isinstance(light, list)
        here = prompt.home == world.rank
        found.append(prompt if here else replace(light[0], sample=prompt.sample))
    return found


def samples(made: Policy, name: str, algorithm: Algorithm, step: int, world: World) -> Any:
    """The train samples of a step: five groups, of which an editor dropped the fourth."""
    rng = np.random.default_rng(step)
    groups = []
    for prompt, rewards, lengths in zip(
        prompts(made, MODELS[name], world), REWARDS, LENGTHS, strict=True
    ):
        answers = tuple(
            Response(rng.integers(60, 300, n), -3.0 - rng.random(n), "", "stop") for n in lengths
        )
        scores = tuple(Score({}, None, reward=float(r)) for r in rewards)
        groups.append(Group(prompt, answers, scores))
    made_of: list[TrainSample] = algorithm.train_samples(groups[:3] + groups[4:], context())
    return made_of


def build(name: str, stage: int, world: World) -> tuple[Policy, Policy, Backend]:
    made = policy(name)
    reference = made.frozen_copy()
    optimizer = OptimizerConfig(learning_rate=1e-3, weight_decay=0.1, max_grad_norm=0.5)
    if stage == 0:
        return made, reference, LocalBackend(made.model, optimizer, 10, world)
    config = RunConfig.model_validate(
        {
            "run": "unused",
            "model": {"path": "unused"},
            "data": {"task": "unused", "path": "unused"},
            "optimizer": optimizer,
            "trainer": {
                "steps": 10,
                "backend": "deepspeed",
                "deepspeed": CONFIGS / f"zero{stage}.json",
            },
        }
    )
    return made, reference, DeepSpeedBackend(made, reference, config, 10, world)


def step(folder: Path, name: str, stage: int, budget: str, number: int, world: World) -> Any:
    """Make step `number` (after a checkpoint, if it is the second) and dump what it left."""
    made, reference, backend = build(name, stage, world)
    if number == 2:
        found = checkpoint.latest(folder)
        assert found is not None
        with backend.gathered():
            made.load_weights(found.path)
        found.restore(backend)
    algorithm = compose({"name": "grpo", "kl_coefficient": 0.05})
    learner = Learner(
        made,
        algorithm,
        backend,
        temperature=0.9,
        tokens_per_micro_batch=BUDGETS[budget],
        reference=reference,
        world=world,
    )
    stats = learner.update(samples(made, name, algorithm, number, world), 0.05)
    tensors: dict[str, Tensor] = {}
    for part in world.gather(backend.state()[0]):
        tensors |= part
    with backend.gathered():
        tensors |= {f"weight.{n}": p.detach().clone() for n, p in made.model.named_parameters()}
    numbers = [stats.loss, stats.kl, stats.entropy, stats.grad_norm, stats.tokens]
    tensors["stats"] = torch.tensor(numbers, dtype=torch.float64)
    if number == 1:
        checkpoint.save(folder, 1, made, backend, {}, 1, world)
    return {key: value.contiguous() for key, value in tensors.items()}


def main(folder: Path, which: str, loaded_from: str) -> None:
    world = join(120.0)
    stages = (0, 1, 2, 3) if world.size > 1 else (0,)
    for name in MODELS:
        for stage in stages:
            for budget in BUDGETS if which == "first" else ("whole",):
                label = f"{name}-{stage}-{budget}"
                if which == "first":
                    place = folder / f"{world.size}-{label}"
                    dumps = [(place, step(place, name, stage, budget, 1, world))]
                else:
                    # One process takes up what every kind of sharding has saved.
                    taken = range(4) if world.size == 1 else (stage,)
                    places = [folder / f"{loaded_from}-{name}-{s}-{budget}" for s in taken]
                    places = [p for p in places if p.exists()]
                    dumps = [(p, step(p, name, stage, budget, 2, world)) for p in places]
                for place, dump in dumps:
                    if world.first:
                        save_file(dump, place / f"{which}-{world.size}.safetensors")
                world.gather(None)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
