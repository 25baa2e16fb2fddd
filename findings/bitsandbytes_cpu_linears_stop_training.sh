#!/usr/bin/env bash
# bitsandbytes: a look at a 4-bit model on a CPU ends its training
#
# Packages: bitsandbytes 0.50.2, torch 2.14.1, on a CPU with products in bfloat16 (AVX512-BF16).
# A model in 4 bits that is in evaluation mode packs its linears anew the first time it is called
# without gradients (a generation, an evaluation), in place. From then on a pass with gradients, which
# is how adapters on a frozen 4-bit base train, raises at a linear with a bias, and hands nothing back
# through one without: backward() runs, what lies in front of it gets no gradient and learns nothing.
# A model that was never called without gradients trains. Calling train() changes nothing once
# the weights are packed, and nothing is logged.
# Seen: "before a look: gradient" and a number, "after a look, no bias: gradient None",
#       "after a look, bias: RuntimeError"
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/v"; "$work/v/bin/pip" install -q uv
"$work/v/bin/uv" pip install -q --python "$work/v/bin/python" torch==2.14.1 bitsandbytes==0.50.2 numpy==2.4.6
cat > "$work/look.py" <<'PY'
import torch, bitsandbytes as bnb
from bitsandbytes.nn import Linear4bit

def made(bias):
    torch.manual_seed(0)
    linear = Linear4bit(128, 128, bias=bias, compute_dtype=torch.bfloat16, quant_type="nf4")
    linear.load_state_dict(torch.nn.Linear(128, 128, bias=bias).state_dict(), strict=False)
    linear.requires_grad_(False)
    return linear.to("cpu").eval()

def passed(linear):
    x = torch.ones(4, 128, requires_grad=True)  # what an adapter in front would give
    linear(x).sum().backward()
    return "gradient None" if x.grad is None else f"gradient {float(x.grad.abs().sum()):.1f}"

assert made(False).support_avx512bf16_for_cpu, "this needs a CPU with AVX512-BF16"
fresh = passed(made(False))
print("before a look:", fresh)
assert fresh not in ("gradient None", "gradient 0.0")
found = {}
for bias in (False, True):
    linear = made(bias)
    with torch.no_grad():
        linear(torch.ones(4, 128))  # the look
    linear.train()
    try:
        found[bias] = passed(linear)
    except RuntimeError as error:
        found[bias] = type(error).__name__
    print("after a look,", "bias:" if bias else "no bias:", found[bias])
assert found == {False: "gradient None", True: "RuntimeError"}
PY
"$work/v/bin/python" -W ignore "$work/look.py"
