"""One process of four that shard a model's weights; see `test_sharded_weights.py`.

    python -m tests.engines.sharded FOLDER

It writes what its memory peaked at, and whether what arrived was the weights, to FOLDER/RANK.json.
"""

from __future__ import annotations

import copy
import json
import multiprocessing
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import deepspeed
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mmrl import plugins
from mmrl.algorithms.compose import compose
from mmrl.backend.deepspeed import DeepSpeedBackend
from mmrl.backend.world import World, join
from mmrl.config import OptimizerConfig
from mmrl.engines.hf_copy import CopyEngine
from mmrl.engines.vllm.broadcast import announcement, joined
from mmrl.engines.vllm.client.parts import Parts
from mmrl.engines.vllm.client.process import free_port
from mmrl.engines.vllm.client.push import ByBroadcast, WeightFiles
from mmrl.engines.vllm.server.weight_files import stored_weights
from mmrl.model_config import ModelConfig
from mmrl.policy.family import Limits
from mmrl.policy.policy import Policy, wrap
from mmrl.policy.weights import weights_of
from mmrl.train import checkpoint
from mmrl.train.learner import Learner
from tests.engines.steps import samples, settings, sharded_config
from tests.families import tiny

WIDTH, LAYERS = 384, 24


def deep() -> Policy:
    """A tiny model's kin with layers enough that one is little, 160 MB in all."""
    small, processor = tiny.build("qwen2_5_vl")
    config = copy.deepcopy(small.config)
    config.vision_config.out_hidden_size = WIDTH
    text = config.text_config
    text.hidden_size, text.intermediate_size, text.num_hidden_layers = WIDTH, 3 * WIDTH, LAYERS
    text.num_attention_heads, text.num_key_value_heads = WIDTH // 32, WIDTH // 64
    text.layer_types = ["full_attention"] * LAYERS
    torch.manual_seed(0)
    model = type(small)(config).eval()
    model.generation_config = small.generation_config
    family = plugins.load("family", "qwen2_5_vl")
    return wrap(model, processor, family.build(model, processor, Limits(2000)))


class Meter:
    """Peaks of a block: bytes of parameters that are whole, and of memory over what it began at."""

    def __init__(self) -> None:
        self.parameters: list[torch.nn.Parameter] = []
        self.peaks: dict[str, dict[str, int]] = {}
        self._whole = 0
        enter = deepspeed.zero.GatheredParameters.__enter__

        def noting(gathered: Any) -> Any:
            found = enter(gathered)
            self._whole = max(self._whole, self.here())
            return found

        deepspeed.zero.GatheredParameters.__enter__ = noting

    def here(self) -> int:
        """Bytes of the parameters that are here."""
        return sum(p.data.numel() * p.element_size() for p in self.parameters)

    @contextmanager
    def over(self, name: str) -> Iterator[None]:
        self._whole = 0
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before, held = status("VmRSS"), self.here()
        yield
        self.peaks[name] = {
            "gathered": max(self._whole - held, 0),
            "memory": status("VmHWM") - before,
        }


def status(key: str) -> int:
    """Bytes that the system counts for this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) << 10
    raise KeyError(key)


def receive(said: Mapping[str, Any], file: Path) -> None:
    """What the worker of a server gets."""
    with joined(said, said["first_rank"]) as exchange:
        save_file(dict(exchange.receive()), file)


def broadcast(made: Policy, world: World, file: Path) -> None:
    """Send the weights to one worker, as to those of servers."""
    weights = weights_of(made, 1)
    parts = Parts(made, weights, world)
    if not world.first:
        parts.follow()
        return
    said = announcement(weights.device, "127.0.0.1", free_port(), 1, 2, 120.0)
    worker = multiprocessing.get_context("spawn").Process(target=receive, args=(said, file))
    worker.start()
    parts.given(lambda: ByBroadcast(parts.take("whole"), [said]).send())
    worker.join()
    assert worker.exitcode == 0


def write(made: Policy, world: World, files: WeightFiles) -> None:
    """Write the weights for servers of this machine."""
    parts = Parts(made, weights_of(made, 1), world)
    if not world.first:
        parts.follow()
        return
    parts.given(lambda: files.write(parts.take("whole")[0], "1"))


def same(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> bool:
    assert found.keys() == wanted.keys()
    return all(torch.equal(found[name], value) for name, value in wanted.items())


def step(made: Policy, backend: DeepSpeedBackend, world: World) -> None:
    """One update, after which weights are no more what was loaded."""
    algorithm = compose({"name": "grpo"})
    learner = Learner(
        made, algorithm, backend, temperature=0.9, tokens_per_micro_batch=200, world=world
    )
    learner.update(samples(made, "adapters", algorithm, 1, world), 0.05, 1)


def main(folder: Path) -> None:
    world = join(300.0)
    made = deep()
    if world.first:
        made.save(folder / "start")
    world.gather(None)
    config = sharded_config(settings(folder, "zero3", world), OptimizerConfig(learning_rate=1e-3))
    backend = DeepSpeedBackend(made, None, config, 10, world)
    made = backend.carrying(made)
    step(made, backend, world)
    engine = CopyEngine(made, ModelConfig(path=str(folder / "start")))
    files = WeightFiles(folder / "pushed")

    meter = Meter()
    meter.parameters = list(made.model.parameters())
    tasks: dict[str, Callable[[], Any]] = {
        "copy": lambda: engine.sync(weights_of(made, 1)),
        "broadcast": partial(broadcast, made, world, folder / "received.safetensors"),
        "files": partial(write, made, world, files),
        "save": lambda: checkpoint.save(folder, 1, made, backend, {}, 1, world),
    }
    for name, task in tasks.items():
        with meter.over(name):
            task()
    with meter.over("whole"), backend.gathered():
        wanted = {name: value.clone() for name, value in made.model.state_dict().items()}
        if world.first:
            made.model.save_pretrained(folder / "whole")
    arrived = {"copy": same(engine._copy.model.state_dict(), wanted)}
    if world.first:
        arrived |= compare(made, folder, files)
    total = sum(p.numel() * p.element_size() for p in wanted.values())
    report = {"total": total, "peaks": meter.peaks, "arrived": arrived}
    (folder / f"{world.rank}.json").write_text(json.dumps(report))
    world.gather(None)
    files.close()


def compare(made: Policy, folder: Path, files: WeightFiles) -> dict[str, bool]:
    """Whether servers and checkpoint got what `save_pretrained` writes of a whole model."""
    wanted = load_file(folder / "whole" / "model.safetensors")
    saved = folder / "checkpoints" / "step_1"
    parts = sorted(saved.glob("model-*.safetensors"))
    loaded = type(made.model).from_pretrained(saved).state_dict()
    whole = type(made.model).from_pretrained(folder / "whole").state_dict()
    assert files._newest is not None
    return {
        "broadcast": same(load_file(folder / "received.safetensors"), wanted),
        "files": same(dict(stored_weights(str(files._newest.folder))), wanted),
        "save": same({n: t for file in parts for n, t in load_file(file).items()}, wanted),
        "loaded": same(loaded, whole),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
