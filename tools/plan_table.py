"""Print docs/scaling.md's tables: what `mmrl doctor` predicts for Qwen2.5-VL's published sizes.

The sizes are those of the models' config.json; nothing is downloaded and no weight is made. The
worst micro-batch is planned for: nothing but pictures.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from transformers import Qwen2_5_VLConfig

from mmrl.config import RunConfig, load_config
from mmrl.doctor.counts import Asked, Counts
from mmrl.doctor.memory import GIB, Plan, plan
from mmrl.doctor.report import FULL
from mmrl.doctor.shape import Shape, measure

ROOT = Path(__file__).resolve().parent.parent
BASE = ROOT / "configs" / "geometry3k" / "grpo_qwen2_5_vl.yaml"
# hidden, inner, layers, heads, key heads, vocabulary, tied head, inner of the tower
SIZES = {
    "3B": (2048, 11008, 36, 16, 2, 151936, True, 3420),
    "7B": (3584, 18944, 28, 28, 4, 152064, False, 3420),
    "32B": (5120, 27648, 64, 40, 8, 152064, False, 3456),
    "72B": (8192, 29568, 80, 64, 8, 152064, False, 3456),
}
# Four patches are merged into a token.
FULL_OF_MEDIA = Counts(0, (Asked(4096, 4096, (4.0 * 4096,)),))

LORA, QLORA = "model.lora.rank=16", "model.lora.quantize=nf4"
NO_KL = "algorithm.kl_coefficient=0"
NARROW = "rollout.max_sequences=32"
SMALL = "optimizer.moments=bfloat16"
SERVERS = ("rollout.engine=vllm_server", "rollout.servers.weights=broadcast")
"""vLLM on GPUs of its own."""


def zero(name: str) -> tuple[str, str]:
    return "trainer.backend=deepspeed", f"trainer.deepspeed=configs/deepspeed/{name}.json"


SPREADS: dict[str, tuple[int, tuple[str, ...]]] = {
    "whole, 1": (1, ()),
    "whole, 1, small moments": (1, (SMALL,)),
    "LoRA, rank 16": (1, (LORA,)),
    "QLoRA (nf4), rank 16": (1, (LORA, QLORA)),
    "ZeRO-2, 1, offload": (1, zero("zero2_offload")),
    "ZeRO-2, 8": (8, zero("zero2")),
    "ZeRO-2, 8, offload": (8, zero("zero2_offload")),
    "ZeRO-3, 8": (8, zero("zero3")),
    "ZeRO-3, 8, offload": (8, zero("zero3_offload")),
    "ZeRO-3, 8, LoRA": (8, (LORA, *zero("zero3"))),
    "ZeRO-3, 8, servers": (8, (*SERVERS, *zero("zero3"))),
    "ZeRO-3, 64": (64, zero("zero3")),
    "ZeRO-3, 48, servers": (48, (*SERVERS, *zero("zero3"))),
}


@dataclass(frozen=True)
class Recipe:
    """A size on so many GPUs of so many GB (10^9 bytes), and what is set over the base file.

    `serving` of them are vLLM's servers', the others train.
    """

    gpus: int
    gigabytes: int
    size: str
    overrides: tuple[str, ...]
    serving: int = 0


RECIPES = (
    Recipe(1, 80, "3B", (LORA,)),
    Recipe(1, 80, "3B", (NO_KL, NARROW, SMALL)),
    Recipe(1, 80, "3B", (NO_KL, NARROW, *zero("zero2_offload"))),
    Recipe(1, 80, "7B", (LORA,)),
    Recipe(1, 80, "32B", (LORA, QLORA, NARROW)),
    Recipe(1, 141, "72B", (LORA, QLORA, NARROW)),
    Recipe(8, 80, "3B", zero("zero2")),
    Recipe(8, 80, "7B", (NO_KL, *zero("zero2"))),
    Recipe(8, 80, "7B", zero("zero3")),
    Recipe(8, 80, "32B", (LORA, QLORA, NARROW)),
    Recipe(8, 141, "32B", (LORA, NARROW)),
    Recipe(8, 141, "32B", (NO_KL, NARROW, *zero("zero3_offload"))),
    Recipe(8, 141, "72B", (LORA, QLORA, NARROW)),
    Recipe(64, 80, "7B", (NO_KL, *zero("zero2"), "trainer.prompts_per_step=256")),
    Recipe(64, 141, "32B", (NO_KL, NARROW, *zero("zero3"), "trainer.prompts_per_step=256")),
    Recipe(64, 80, "32B", (*SERVERS, *zero("zero3"), "trainer.prompts_per_step=256"), 8),
    Recipe(64, 80, "72B", (*SERVERS, *zero("zero3"), "trainer.prompts_per_step=256"), 16),
    Recipe(64, 141, "72B", (LORA, QLORA, NARROW, "trainer.prompts_per_step=256")),
)


def write_config(folder: Path, size: str) -> Path:
    """A folder with the size's config.json."""
    hidden, inner, layers, heads, keys, vocabulary, tied, tower = SIZES[size]
    text = {
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": keys,
        "vocab_size": vocabulary,
        "tie_word_embeddings": tied,
    }
    vision = {"depth": 32, "hidden_size": 1280, "intermediate_size": tower, "num_heads": 16}
    settings = Qwen2_5_VLConfig(
        text_config=text,
        vision_config={**vision, "out_hidden_size": hidden},
        tie_word_embeddings=tied,
    )
    settings.save_pretrained(folder / size)
    return folder / size


@cache
def shape_of(size: str, adapters: bool) -> Shape:
    """Sizes of the model, with adapters of rank 16 or none."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"model.path={write_config(Path(folder), size)}"
        return measure(load_config(BASE, [path, *([LORA] if adapters else [])]))


def planned(size: str, processes: int, overrides: tuple[str, ...]) -> tuple[RunConfig, Plan]:
    config = load_config(BASE, list(overrides))
    if config.trainer.deepspeed:
        file = ROOT / config.trainer.deepspeed
        config = load_config(BASE, [*overrides, f"trainer.deepspeed={file}"])
    shape = shape_of(size, config.model.lora is not None)
    # Answers at their limit, or so short that pictures fill a micro-batch: what takes more.
    plans = [plan(config, shape, FULL_OF_MEDIA, processes, answer=n) for n in (None, 1)]
    return config, max(plans, key=lambda each: each.peak)


def row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def spreads() -> Iterator[str]:
    """What a process holds, by size and by how the run is spread."""
    for size in SIZES:
        for name, (processes, overrides) in SPREADS.items():
            _, found = planned(size, processes, (NO_KL, NARROW, *overrides))
            parts = (
                found.weights,
                found.optimizer,
                found.gradients,
                found.activations + found.media + found.logits,
                found.cache + found.gathered,
                found.host,
                found.peak,
            )
            yield row([size, name, *(f"{p / GIB:.0f}" for p in parts)])


def recipes() -> Iterator[str]:
    """The recipes, each with the peak of a GPU, and what a machine of eight holds in its memory."""
    for recipe in RECIPES:
        training = recipe.gpus - recipe.serving
        _, found = planned(recipe.size, training, recipe.overrides)
        room = recipe.gigabytes * 1e9 / GIB
        assert found.peak < FULL * recipe.gigabytes * 1e9, f"{recipe} does not fit"
        host = found.host * min(training, 8) / GIB
        shared = f"{training} + {recipe.serving}" if recipe.serving else str(training)
        cells = [shared, f"{recipe.gigabytes} GB", recipe.size]
        settings = " ".join(f"`{override}`" for override in recipe.overrides)
        yield row([*cells, settings, f"{found.peak / GIB:.0f} of {room:.0f}", f"{host:.0f}"])


if __name__ == "__main__":
    print("\n".join([*spreads(), "", *recipes()]))
