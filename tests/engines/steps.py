"""One process of a test of sharded steps; see `test_deepspeed.py`.

    python -m tests.engines.steps FOLDER first|second LOADED_FROM

`first` makes every model's first step from its start, under every sharding, and saves a checkpoint;
`second` takes up a checkpoint that LOADED_FROM processes saved and makes the next step. A sharding
is `local`, `double` (the same in float64) or the name of a file in configs/deepspeed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from mmrl import plugins
from mmrl.algorithm import Algorithm
from mmrl.algorithms.compose import compose
from mmrl.backend.backend import Backend
from mmrl.backend.deepspeed import DeepSpeedBackend
from mmrl.backend.local import LocalBackend
from mmrl.backend.world import World, join
from mmrl.config import OptimizerConfig, RunConfig
from mmrl.engines.split import _light
from mmrl.model_config import LoraConfig
from mmrl.policy import lora
from mmrl.policy.family import Limits
from mmrl.policy.policy import Policy, wrap
from mmrl.train import checkpoint
from mmrl.train.learner import Learner
from mmrl.train.reference import ReferencePolicy, Teacher
from mmrl.types import Group, Prompt, Response, Score, TrainSample
from tests.algorithms.cases import context
from tests.families import tiny
from tests.families.after_head import CHANGES, change_logits
from tests.families.cases import Case, ask, lifted, make

CONFIGS = Path(__file__).parent.parent.parent / "configs" / "deepspeed"
LENGTHS = ((4, 2, 7), (1, 5, 3), (6, 2, 2), (3, 3, 3), (5, 1, 8))
REWARDS = ((1, 0, 0), (1, 1, 0), (0, 0, 1), (0, 0, 0), (0, 1, 0))


@dataclass(frozen=True)
class Model:
    """A row of the tiny models, and what each of its five prompts shows."""

    tiny: str
    shown: tuple[tuple[str, ...], ...]
    lora: LoraConfig | None = None


KEYS = {
    # A process without media, and kinds that only one process has.
    "omni": Model("qwen2_5_omni", (("image",), (), ("audio", "image"), (), ("sounding clip",))),
    "experts": Model("qwen3_vl_moe", (("image", "video"), (), ("image",), (), ("video",))),
    "adapters": Model(
        "qwen2_5_vl",
        (("image",), (), ("image", "video"), (), ("image",)),
        LoraConfig(rank=2, tower="trained"),
    ),
}
BUDGETS = {"whole": 10_000, "pieces": 60}
SEEN = (("image",), (), ("image", "video"), (), ("video",))
PICTURES = (("image",), (), ("image", "image"), (), ())
HEARD = tuple(kind for kind in tiny.TINY["nemotron_h_omni"].kinds if kind == "audio")
"""Of a model that hears where librosa is installed."""
HEARING = ((*HEARD, "image"), (), ("image", "video", *HEARD), (), ("video", *HEARD, *HEARD))
LEARNT = LoraConfig(rank=2)
"""Adapters on the language layers; towers stay as they are."""
RECURRENT = {
    "delta_nets": Model("qwen3_5", SEEN),
    "delta_nets_experts": Model("qwen3_5_moe", SEEN),
    "convolutions": Model("lfm2_vl", PICTURES),
    "mamba2": Model("nemotron_h_omni", HEARING),
    "delta_nets_adapters": Model("qwen3_5", SEEN, LEARNT),
    "delta_nets_experts_adapters": Model("qwen3_5_moe", SEEN, LEARNT),
    "convolutions_adapters": Model("lfm2_vl", PICTURES, LEARNT),
    "mamba2_adapters": Model("nemotron_h_omni", HEARING, LEARNT),
}
"""Models whose layers carry a state, each whole and with adapters."""
MODELS = {**KEYS, **RECURRENT}
LOCAL = ("local", "double")
SHARDED = ("local", "zero1", "zero2", "zero3")
OFFLOADED = ("zero2_offload", "zero3_offload")


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
        prompts(made, MODELS[name].shown, world), REWARDS, LENGTHS, strict=True
    ):
        answers = tuple(
            Response(rng.integers(60, 300, n), -3.0 - rng.random(n), "", "stop") for n in lengths
        )
        scores = tuple(Score({}, None, reward=float(r)) for r in rewards)
        groups.append(Group(prompt, answers, scores))
    made_of: list[TrainSample] = algorithm.train_samples(groups[:3] + groups[4:], context())
    return made_of


def start(model: Model) -> Policy:
    """A fresh tiny policy that caps its logits; both halves of its adapters count."""
    made, processor = tiny.build(model.tiny)
    change_logits(made, CHANGES["cap"])
    family = plugins.load("family", tiny.TINY[model.tiny].family)
    adapter = None
    if model.lora is not None:
        adapter = lora.attach(made, family.DECLARATION, model.lora, seed=3)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in (p for p in made.parameters() if p.requires_grad):
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return wrap(made, processor, family.build(made, processor, Limits(2000)), adapter)


def build(
    folder: Path, name: str, sharding: str, world: World, *, half: bool = False, rate: float = 1e-3
) -> tuple[Policy, Policy, Backend]:
    """Policy, reference and backend; in `half` precision adapters stay float32."""
    made = start(MODELS[name])
    if sharding == "double":
        made.model.double()
    if half:
        for parameter in made.model.parameters():
            if made.adapter is None or not parameter.requires_grad:
                parameter.data = parameter.data.bfloat16()
    reference = made.frozen_copy()
    optimizer = OptimizerConfig(learning_rate=rate, weight_decay=0.1, max_grad_norm=0.5)
    if sharding in LOCAL:
        return made, reference, LocalBackend(made.model, optimizer, 10, world)
    config = sharded_config(settings(folder, sharding, world), optimizer, half=half)
    backend = DeepSpeedBackend(made, reference, config, 10, world)
    return backend.carrying(made), backend.carrying(reference), backend


def sharded_config(file: Path, optimizer: OptimizerConfig, *, half: bool = False) -> RunConfig:
    """A run under DeepSpeed's settings in a file."""
    return RunConfig.model_validate(
        {
            "run": "unused",
            "model": {"path": "unused", "dtype": "bfloat16" if half else "float32"},
            "data": {"task": "unused", "path": "unused"},
            "optimizer": optimizer,
            "trainer": {"steps": 10, "backend": "deepspeed", "deepspeed": file},
        }
    )


def settings(folder: Path, sharding: str, world: World) -> Path:
    """The shipped file; what goes to a disk goes to the test's own folder."""
    text = (CONFIGS / f"{sharding}.json").read_text()
    file = folder / f"{sharding}.json"
    if world.first:
        file.write_text(text.replace(json.dumps("/local_nvme"), json.dumps(str(folder / "nvme"))))
    world.gather(None)
    return file


def step(folder: Path, name: str, sharding: str, budget: str, number: int, world: World) -> Any:
    """Make step `number` (after a checkpoint, if it is the second) and dump what it left."""
    made, reference, backend = build(folder, name, sharding, world)
    if number == 2:
        found = checkpoint.latest(folder)
        assert found is not None
        made.load_weights(found.path)
        found.restore(backend)
    algorithm = compose({"name": "grpo", "kl_coefficient": 0.05})
    learner = Learner(
        made,
        algorithm,
        backend,
        temperature=0.9,
        tokens_per_micro_batch=BUDGETS[budget],
        reference=ReferencePolicy([Teacher(reference)]) if reference else None,
        world=world,
    )
    with lifted(torch.float64 if sharding == "double" else torch.float32):
        stats = learner.update(samples(made, name, algorithm, number, world), 0.05, number)
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


def cases(which: str, processes: int) -> Iterator[tuple[str, str, str]]:
    """Model, sharding and budget of every step that so many processes make."""
    budgets = {1: ("whole",), 2: tuple(BUDGETS), 4: ("pieces",)}[processes]
    shardings = SHARDED if processes > 1 else ("local",)
    for name in KEYS:
        if which == "second":
            yield from ((name, sharding, "whole") for sharding in shardings)
            continue
        # Products of experts' groups are not there in float64.
        double = () if name == "experts" else ("double",)
        yield from ((name, s, budget) for s in (*shardings, *double) for budget in budgets)
    if processes > 1:
        budget = budgets[0] if which == "first" else "whole"
        yield from (("adapters", sharding, budget) for sharding in OFFLOADED)
    if which == "first" and processes < 4:
        taken = ("zero2", "zero3") if processes > 1 else ("local",)
        yield from ((name, s, budget) for name in RECURRENT for s in taken for budget in budgets)
        yield from (("delta_nets_adapters", "double", budget) for budget in budgets)


def main(folder: Path, which: str, loaded_from: str) -> None:
    world = join(120.0)
    for name, sharding, budget in cases(which, world.size):
        label = f"{name}-{sharding}-{budget}"
        if which == "first":
            place = folder / f"{world.size}-{label}"
            place.mkdir(exist_ok=True)
            places = [place]
        else:
            # One process takes up what every kind of sharding has saved.
            taken = (*SHARDED, *OFFLOADED) if world.size == 1 else (sharding,)
            places = [folder / f"{loaded_from}-{name}-{s}-{budget}" for s in taken]
        for place in filter(Path.exists, places):
            number = 1 if which == "first" else 2
            dump = step(place, name, sharding, budget, number, world)
            if world.first:
                save_file(dump, place / f"{which}-{world.size}.safetensors")
            world.gather(None)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
