"""The tiny models that vLLM is held against, and the media of each that it is asked about.

`mmrl families` says the same: `Declaration.vllm` lists what is in this table and nothing else.
"""

from __future__ import annotations

from mmrl.types import MediaKind

MODELS: dict[str, tuple[MediaKind, ...]] = {
    "qwen2_vl": ("image", "video"),
    "qwen2_5_vl": ("image", "video"),
    "qwen3_vl": ("image", "video"),
    "qwen2_audio_30s": ("audio",),
}
