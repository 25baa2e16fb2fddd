"""What released configurations say, so that tiny ones keep every switch and ratio of them.

A switch that is not written down here is the class's own default. Sizes are a checkpoint's own; of
them, tiny models keep how they compare: heads to key heads, wide layers to narrow ones, and so on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Released:
    """A checkpoint's language model: sizes, the first layers' kinds, and what is no default."""

    checkpoint: str
    hidden: int
    heads: int
    key_heads: int
    head_size: int
    layers: str = "f"
    tied: bool = False
    wide_head_size: int | None = None
    wide_key_heads: int | None = None
    shared_layers: bool = False
    layer_inputs: bool = False
    experts: tuple[int, int] | None = None
    switches: Mapping[str, Any] = field(default_factory=dict)


GEMMA_CAP = {"final_logit_softcapping": 30.0}
RELEASED = {
    "qwen2_vl": Released("Qwen2-VL-7B-Instruct", 3584, 28, 4, 128),
    "qwen2_5_vl": Released("Qwen2.5-VL-7B-Instruct", 3584, 28, 4, 128),
    "qwen3_vl": Released("Qwen3-VL-8B-Instruct", 4096, 32, 8, 128),
    "qwen3_vl_moe": Released("Qwen3-VL-30B-A3B-Instruct", 2048, 32, 4, 128, experts=(128, 8)),
    "qwen3_5": Released("Qwen3.5-9B", 4096, 16, 4, 256, "lllf"),
    "qwen3_5_moe": Released("Qwen3.5-35B-A3B", 2048, 16, 2, 256, "lllf", experts=(256, 8)),
    "qwen2_5_omni": Released("Qwen2.5-Omni-7B", 3584, 28, 4, 128),
    "qwen3_omni": Released("Qwen3-Omni-30B-A3B-Instruct", 2048, 32, 4, 128, experts=(128, 8)),
    "qwen2_audio": Released("Qwen2-Audio-7B-Instruct", 4096, 32, 32, 128),
    "llava_onevision": Released("llava-onevision-qwen2-7b-ov-hf", 3584, 28, 4, 128),
    "internvl": Released("InternVL3-1B-hf", 896, 14, 2, 64, tied=True),
    "gemma3": Released("gemma-3-4b-it", 2560, 8, 4, 256, "sssssf", tied=True),
    "gemma4": Released(
        "gemma-4-E2B-it",
        1536,
        8,
        1,
        256,
        "ssssf",
        tied=True,
        wide_head_size=512,
        shared_layers=True,
        layer_inputs=True,
        switches={**GEMMA_CAP, "use_double_wide_mlp": True},
    ),
    "gemma4_moe": Released(
        "gemma-4-26B-A4B-it",
        2816,
        16,
        8,
        256,
        "sssssf",
        tied=True,
        wide_head_size=512,
        wide_key_heads=2,
        experts=(128, 8),
        switches={
            **GEMMA_CAP,
            "attention_k_eq_v": True,
            "enable_moe_block": True,
            "use_bidirectional_attention": "vision",
        },
    ),
    "smolvlm": Released("SmolVLM2-2.2B-Instruct", 2048, 32, 32, 64),
    "lfm2_vl": Released("LFM2-VL-1.6B", 2048, 32, 8, 64, "ccfccf", tied=True),
    "nemotron_h_omni": Released(
        "Nemotron-3-Nano-Omni-30B-A3B-Reasoning-BF16",
        2688,
        32,
        2,
        128,
        "lmlmlfm",
        experts=(128, 6),
        switches={"routed_scaling_factor": 2.5},
    ),
    "glm4v": Released("GLM-4.1V-9B-Thinking", 4096, 32, 2, 128),
}
