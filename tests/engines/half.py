"""One process of a test of sharded steps in half precision; see `test_half_precision.py`.

    python -m tests.engines.half FOLDER train|take_up

`train` makes steps of 1e-6 under every sharding and saves a checkpoint; `take_up` loads the local
one under every sharding and the others locally, and dumps what arrived.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from mmrl.algorithms.compose import compose
from mmrl.backend.backend import Backend
from mmrl.backend.world import World, join
from mmrl.policy.attention import active_layout
from mmrl.policy.policy import Policy
from mmrl.policy.shared_prefix import SharedRow, lay_out
from mmrl.train import checkpoint
from mmrl.train.learner import Learner
from mmrl.train.reference import ReferencePolicy, Teacher
from tests.engines.steps import build, samples

MODELS = ("omni", "adapters")
SHARDINGS = ("local", "zero1", "zero2", "zero3", "zero2_offload")
SHARES = (1.0, *[2.0**-9] * 64)
"""Sizes of micro-batches that bfloat16 loses beside the first."""


def whole_state(backend: Backend, world: World) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for part in world.gather(backend.state()[0]):
        tensors |= part
    return tensors


def add_up(made: Policy, backend: Backend, name: str, world: World, count: int) -> None:
    """A step whose gradient is the first micro-batch's, `count` times over in all its shares."""
    chosen = samples(made, name, compose({"name": "grpo"}), 1, World())[0]
    row = SharedRow(chosen.prompt, (chosen.response.ids,))
    layout = lay_out([row], made.device)
    for index, share in enumerate(SHARES[:count]):
        with active_layout(layout):
            logprobs, _ = made.logprobs(layout, [chosen.prompt], 1.0)
            loss = 2.0**-20 * share * logprobs.sum()  # too small to be clipped
            backend.backward(loss, last=index == count - 1)
    backend.step()


def sums(folder: Path, name: str, sharding: str, world: World) -> dict[str, Tensor]:
    """First moments after a step of one micro-batch, and after one of all of them."""
    found: dict[str, Tensor] = {}
    for count in (1, len(SHARES)):
        made, _, backend = build(folder, name, sharding, world, half=True)
        add_up(made, backend, name, world, count)
        state = whole_state(backend, world)
        found |= {f"{count}.{k}": v.clone() for k, v in state.items() if k.startswith("exp_avg.")}
    return found


def train(folder: Path, name: str, sharding: str, world: World) -> dict[str, Tensor]:
    """Three steps, a checkpoint, and what it holds."""
    made, reference, backend = build(folder, name, sharding, world, half=True, rate=1e-6)
    algorithm = compose({"name": "grpo", "kl_coefficient": 0.05})
    learner = Learner(
        made,
        algorithm,
        backend,
        temperature=0.9,
        tokens_per_micro_batch=60,
        reference=ReferencePolicy([Teacher(reference)]) if reference else None,
        world=world,
    )
    for number in (1, 2, 3):
        learner.update(samples(made, name, algorithm, number, world), 0.05)
    checkpoint.save(folder, 1, made, backend, {}, 1, world)
    return arrived(made, backend, world)


def arrived(made: Policy, backend: Backend, world: World) -> dict[str, Tensor]:
    tensors = whole_state(backend, world)
    with backend.gathered():
        weights = {n: p.detach().clone() for n, p in made.model.named_parameters()}
    return tensors | {f"weight.{n}": p for n, p in weights.items() if f"exp_avg.{n}" in tensors}


def take_up(folder: Path, name: str, sharding: str, world: World) -> dict[str, Tensor]:
    made, _, backend = build(folder, name, sharding, world, half=True, rate=1e-6)
    found = checkpoint.latest(folder)
    assert found is not None
    made.load_weights(found.path)
    found.restore(backend)
    return arrived(made, backend, world)


def dump(tensors: dict[str, Tensor], file: Path, world: World) -> None:
    if world.first:
        save_file({key: value.contiguous() for key, value in tensors.items()}, file)
    world.gather(None)


def main(folder: Path, which: str) -> None:
    world = join(120.0, alone_too=True)
    for name in MODELS:
        for sharding in SHARDINGS:
            place = folder / f"{name}-{sharding}"
            if which == "train":
                place.mkdir(exist_ok=True)
                world.gather(None)
                dump(train(place, name, sharding, world), place / "saved.safetensors", world)
                dump(sums(place, name, sharding, world), place / "sums.safetensors", world)
                continue
            others = ("local",) if sharding != "local" else SHARDINGS[1:]
            for other in others:
                found = take_up(place, name, other, world)
                dump(found, place / f"{other}-{world.size}.safetensors", world)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), sys.argv[2])
