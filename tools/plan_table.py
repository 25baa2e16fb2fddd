"""Print docs/scaling.md's memory table: `mmrl doctor` on Qwen2.5-VL's published sizes.

The sizes are those of the models' config.json; nothing is downloaded and no weight is made.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import Qwen2_5_VLConfig

from mmrl.config import RunConfig
from mmrl.doctor.counts import Counts
from mmrl.doctor.memory import GIB, plan
from mmrl.doctor.shape import measure

CONFIGS = Path(__file__).parent.parent / "configs" / "deepspeed"
# hidden, inner, layers, heads, key heads, vocabulary, tied head, inner of the tower
SIZES = {
    "3B": (2048, 11008, 36, 16, 2, 151936, True, 3420),
    "7B": (3584, 18944, 28, 28, 4, 152064, False, 3420),
    "32B": (5120, 27648, 64, 40, 8, 152064, False, 3456),
    "72B": (8192, 29568, 80, 64, 8, 152064, False, 3456),
}
RECIPES: dict[str, tuple[int, str, dict[str, Any]]] = {
    "LoRA, rank 16": (1, "", {"lora": {"rank": 16}}),
    "QLoRA (nf4), rank 16": (1, "", {"lora": {"rank": 16, "quantize": "nf4"}}),
    "ZeRO-2, 1, offload": (1, "zero2_offload", {}),
    "ZeRO-2, 8": (8, "zero2", {}),
    "ZeRO-2, 8, offload": (8, "zero2_offload", {}),
    "ZeRO-3, 8": (8, "zero3", {}),
    "ZeRO-3, 8, offload": (8, "zero3_offload", {}),
    "ZeRO-3, 8, LoRA": (8, "zero3", {"lora": {"rank": 16}}),
    "ZeRO-3, 64": (64, "zero3", {}),
}

# Qwen2.5-VL merges four patches into a token; the worst micro-batch is all pictures.
FULL_OF_MEDIA = Counts(records=0, prompt_tokens=4096, media_tokens=4096, positions=(4.0,))


def write_config(folder: Path, size: str) -> Path:
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


def rows(folder: Path) -> Iterator[str]:
    for size in SIZES:
        path = write_config(folder, size)
        for recipe, (processes, file, model) in RECIPES.items():
            sharding = {"backend": "deepspeed", "deepspeed": CONFIGS / f"{file}.json"}
            config = RunConfig.model_validate(
                {
                    "run": "unused",
                    "model": {
                        "path": str(path),
                        "dtype": "bfloat16",
                        "gradient_checkpointing": True,
                        **model,
                    },
                    "data": {"task": "unused", "path": "unused"},
                    "rollout": {"max_sequences": 64, "max_new_tokens": 1024},
                    "trainer": {"steps": 1, **(sharding if file else {})},
                }
            )
            found = plan(config, measure(config), FULL_OF_MEDIA, processes)
            parts = (
                found.weights,
                found.optimizer,
                found.gradients,
                found.activations + found.media + found.logits,
                found.cache + found.gathered,
                found.host,
                found.peak,
            )
            yield " | ".join([f"| {size}", recipe, *(f"{p / GIB:.0f}" for p in parts)]) + " |"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        print("\n".join(rows(Path(place))))
