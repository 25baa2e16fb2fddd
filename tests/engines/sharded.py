"""One process of four that shard a model's weights; see `test_sharded_weights.py`.

    python -m tests.engines.sharded FOLDER

It writes what its memory peaked at, and whether what arrived was the weights, to FOLDER/RANK.json.
"""

from __future__ import annotations

import copy
import gc
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import deepspeed
import torch
from safetensors.torch import load_file
from torch import Tensor

from mmrl import plugins
from mmrl.algorithms.compose import compose
from mmrl.backend.deepspeed import DeepSpeedBackend, read_settings, shard
from mmrl.backend.world import World, join
from mmrl.config import OptimizerConfig, RunConfig
from mmrl.engines.hf_copy import CopyEngine
from mmrl.engines.vllm.broadcast import announcement
from mmrl.engines.vllm.client.process import free_port
from mmrl.engines.vllm.client.push import ByBroadcast, WeightFiles
from mmrl.engines.vllm.client.pushed_parts import Parts
from mmrl.engines.vllm.server.weight_files import stored_weights
from mmrl.model_config import ModelConfig
from mmrl.policy.family import Limits
from mmrl.policy.policy import Policy, load_policy, wrap
from mmrl.policy.weights import weights_of
from mmrl.train import checkpoint
from mmrl.train.learner import Learner
from tests.conftest import TINY
from tests.engines.steps import samples, settings, sharded_config
from tests.families import tiny

WIDTH, LAYERS = 256, 24


def deep() -> Policy:
    """A tiny model's kin with layers enough that one is little, 77 MB in all."""
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
    """Peaks of a block: bytes of parameters that are whole, and of memory over what it began at.

    Memory is a process's own; what the system keeps of files that are read is everybody's, and it
    takes that back when it likes.
    """

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
        gc.collect()
        held, seen, ended = self.here(), [status("RssAnon")], threading.Event()

        def look() -> None:
            while not ended.wait(0.001):
                seen.append(status("RssAnon"))

        looking = threading.Thread(target=look)
        looking.start()
        yield
        ended.set()
        looking.join()
        self.peaks[name] = {
            "gathered": max(self._whole - held, 0),
            "memory": max(seen) - seen[0],
            "stays": status("RssAnon") - seen[0],
        }


def status(key: str) -> int:
    """Bytes that the system counts for this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) << 10
    raise KeyError(key)


def broadcast(made: Policy, world: World, file: Path) -> None:
    """Send the weights to one worker, as to those of servers."""
    weights = weights_of(made, 1)
    parts = Parts(made, weights, world)
    if not world.first:
        parts.follow()
        return
    said = announcement(weights.device, "127.0.0.1", free_port(), 1, 2, 120.0)
    command = [sys.executable, "-m", "tests.engines.receiving", json.dumps(said), str(file)]
    worker = subprocess.Popen(command)
    parts.given(lambda: ByBroadcast(parts.take("whole"), [said]).send())
    assert worker.wait() == 0


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
    if world.first:
        deep().save(folder / "start")
    world.gather(None)
    config = sharded_config(settings(folder, "zero3", world), OptimizerConfig(learning_rate=1e-3))
    meter = Meter()
    load(Path(TINY), config)  # for what the first one leaves in memory
    with meter.over("load"):
        made, reference = load(folder / "start", config)
    backend = DeepSpeedBackend(made, reference, config, 10, world)
    del reference  # the backend has it
    made = backend.carrying(made)
    meter.parameters = list(made.model.parameters())
    step(made, backend, world)
    engine = CopyEngine(made, ModelConfig(path=str(folder / "start")))
    files = WeightFiles(folder / "pushed")

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
    step(made, backend, world)  # away from what was saved
    with meter.over("resume"):
        resume(made, backend, folder)
    with backend.gathered():
        resumed = same(made.model.state_dict(), wanted)
    arrived = {"copy": same(engine._copy.model.state_dict(), wanted)}
    if world.first:
        arrived |= compare(made, folder, files)
    total = sum(p.numel() * p.element_size() for p in wanted.values())
    report = {"total": total, "peaks": meter.peaks, "arrived": arrived, "resumed": resumed}
    (folder / f"{world.rank}.json").write_text(json.dumps(report))
    world.gather(None)
    files.close()


def resume(made: Policy, backend: DeepSpeedBackend, folder: Path) -> None:
    """Take up the checkpoint just written."""
    found = checkpoint.latest(folder)
    assert found is not None
    found.load_weights(made)
    found.restore(backend)


def load(folder: Path, config: RunConfig) -> tuple[Policy, Policy]:
    """A policy and its reference, sharded."""
    assert config.trainer.deepspeed is not None
    made = load_policy(ModelConfig(path=str(folder)))
    reference = made.frozen_copy(sharing=True)
    deepspeed.init_distributed()
    for each in (made, reference):
        shard(each.model, read_settings(config.trainer.deepspeed, config))
    return made, reference


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
