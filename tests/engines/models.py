"""The tiny models that vLLM is held against, and the media of each that it is asked about.

`mmrl families` says the same: `Declaration.vllm` lists what is in this table and nothing else.
"""

from __future__ import annotations

from typing import Any

from tests.families.tiny import HIDDEN

MODELS: dict[str, tuple[str, ...]] = {
    "qwen2_vl": ("image", "video"),
    "qwen2_5_vl": ("image", "video"),
    "qwen3_vl": ("image", "video"),
    "qwen2_audio_30s": ("audio",),
    "qwen2_5_omni": ("image", "video", "audio", "sounding clip"),
    "qwen3_omni, dense": ("image", "audio"),
    "internvl": ("image", "video"),
    "smolvlm": ("image", "video"),
    "llava_onevision": ("image", "video"),
    "glm4v": ("image", "video"),
    "lfm2_vl": ("image",),
    "gemma4": ("image", "video"),
    "gemma4, loud": ("image", "video"),
}
IN_FLOAT32: dict[str, tuple[str, ...]] = {"qwen3_5": ("image", "video")}
"""What vLLM runs in float32 on CPUs with layers of the tests' own; see `delta_nets.py`."""
THOROUGH = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen2_audio_30s")
"""Those with which both ways of running vLLM are tried in every respect."""

NOT_SERVED: dict[tuple[str, str], str] = {
    ("gemma3", "pictures"): "on CPUs vLLM has no attention both ways; on GPUs not shown",
    ("gemma4", "sound"): "its linears on CPUs refuse what the audio tower gives; on GPUs not shown",
    ("gemma4_moe", "pictures"): "as `gemma3`: the larger sizes look at pictures both ways",
    ("qwen3_omni", "clips"): "their rope positions are fractions, vLLM's are whole numbers",
    ("qwen3_omni", "experts"): "on CPUs vLLM packs experts so that it cannot replace them",
    ("qwen3_vl_moe", "experts"): "as `qwen3_omni`; on GPUs not shown",
    ("qwen3_5", "anything"): (
        "on CPUs its gated delta nets take bfloat16 alone, all else is right; on GPUs not shown"
    ),
}
"""What vLLM was seen not to serve or to compute otherwise: model and media -> why."""

AS_RELEASED: dict[str, dict[str, Any]] = {
    "gemma4": {"vision_config.default_output_length": 280},
    "gemma4_moe": {"vision_config.default_output_length": 280},
    "glm4v": {"text_config.attention_bias": True},
    "lfm2_vl": {"text_config.conv_dim": HIDDEN, "text_config.block_dim": HIDDEN},
    "qwen3_omni": {
        "vision_config.image_size": 128,
        "vision_config.apply_vit_abs_pos_embed": True,
    },
}
"""What vLLM reads in released configuration files, and transformers' classes do not need."""


def tiny_name(name: str) -> str:
    """The tiny model (`tests/families/tiny.py`) that a name of the table is a variant of."""
    return name.partition(",")[0]


TOLERANCE = 1e-4  # nats, float32
LOUD = ", loud"
LOUDER = 15  # the last norm's weights, and so the logits before their cap
