#!/usr/bin/env bash
# DeepSpeed: small gradients of many micro-batches vanish beside a large one under bf16
#
# Packages: deepspeed 0.19.8, torch 2.14.1, on a CPU (gloo). With bf16 enabled ZeRO keeps float32
# weights and moments, but adds the gradients of a step's micro-batches up in bfloat16, under stages 1
# to 3 alike. One micro-batch with gradient 1 and 299 with 1/512 make 1.58; what the optimiser gets is
# 1.0, since 1 + 1/512 rounds back to 1 each time. Nothing is logged. Steps of reinforcement learning are
# just so: one long answer, many small ones. {"data_types": {"grad_accum_dtype": "fp32"}} mends it.
# Seen: "stage 1: 1.0000, with fp32 sums 1.5859" and the like for 2 and 3 (up to one last rounding)
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/v"; "$work/v/bin/pip" install -q uv
"$work/v/bin/uv" pip install -q --python "$work/v/bin/python" \
    torch==2.14.1 deepspeed==0.19.8 numpy==2.4.6 setuptools ninja
cat > "$work/sums.py" <<'PY'
import sys
import torch, deepspeed
from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

stage, types = int(sys.argv[1]), sys.argv[2]
deepspeed.init_distributed("gloo", verbose=False)
model = torch.nn.Linear(8, 8, bias=False)
settings = {
    "train_micro_batch_size_per_gpu": 1,
    "gradient_accumulation_steps": 300,
    "bf16": {"enabled": True},
    "zero_optimization": {"stage": stage},
    "zero_allow_untested_optimizer": True,
    "gradient_clipping": 0.0,
    "steps_per_print": 10**9,
}
if types == "fp32":
    settings["data_types"] = {"grad_accum_dtype": "fp32"}
# betas of 0: the first moment after one step is the gradient itself
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.0, 0.0))
engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=settings)
x = torch.eye(8, dtype=torch.bfloat16)
for number in range(300):
    # the gradient of every weight is the size of the micro-batch's loss
    loss = (engine(x).sum() * (1.0 if number == 0 else 1 / 512)).float()
    engine.backward(loss * 300)  # DeepSpeed divides by the number of micro-batches
    engine.step()
(parameter,) = model.parameters()
print("SUM", float(safe_get_full_optimizer_state(parameter, "exp_avg").mean()))
PY
export DS_ACCELERATOR=cpu MASTER_ADDR=127.0.0.1 MASTER_PORT=29571 RANK=0 LOCAL_RANK=0 WORLD_SIZE=1
export PATH="$work/v/bin:$PATH"
for stage in 1 2 3; do
    own=$(python -W ignore "$work/sums.py" $stage own 2> "$work/log" | awk '/^SUM/ {print $2}')
    full=$(python -W ignore "$work/sums.py" $stage fp32 2> "$work/log" | awk '/^SUM/ {print $2}')
    python - "$stage" "$own" "$full" <<'PY'
import sys
stage, own, full = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
print(f"stage {stage}: {own:.4f}, with fp32 sums {full:.4f}")
assert abs(own - 1.0) < 0.02 and abs(full - 1.584) < 0.01
PY
done
