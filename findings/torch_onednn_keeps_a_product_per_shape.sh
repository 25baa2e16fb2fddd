#!/usr/bin/env bash
# torch: oneDNN's linears keep what they compiled for every shape, in two caches that hide each other
#
# Package: torch 2.14.1, on a CPU.
# A product by oneDNN compiles something for each number of rows, and keeps it. Rows of ragged lengths
# bring new numbers for a long time: 800 of them with one weight of 512 x 512 hold 600 MiB, of which
# Python's and torch's own counts of tensors know nothing. It ends at 1,024 shapes, after thousands of
# steps, and looks like a leak until then. There are two caches, oneDNN's and that of torch's bridge to
# it, with a variable each. Either one bounded alone changes nothing, since the other still keeps all.
# Seen: default 617 MiB, ONEDNN_PRIMITIVE_CACHE_CAPACITY=32 alone 588, LRU_CACHE_CAPACITY=32 alone 614,
#       both 54
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/v"; "$work/v/bin/pip" install -q uv
"$work/v/bin/uv" pip install -q --python "$work/v/bin/python" torch==2.14.1 numpy==2.4.6
cat > "$work/products.py" <<'PY'
import gc, torch

torch.set_num_threads(1)
weight = torch.randn(512, 512)

def held():
    line = next(l for l in open("/proc/self/status") if l.startswith("VmRSS"))
    return int(line.split()[1]) / 1024

def multiply(rows):
    torch.ops.mkldnn._linear_pointwise(torch.ones(rows, 512), weight, None, "none", [], "")

for rows in range(1, 201):
    multiply(rows)
before = held()
for rows in range(201, 1001):
    multiply(rows)
gc.collect()
print(f"{held() - before:.0f}")
PY
dnn=ONEDNN_PRIMITIVE_CACHE_CAPACITY=32; bridge=LRU_CACHE_CAPACITY=32
grown() { env "$@" "$work/v/bin/python" -W ignore "$work/products.py"; }
default=$(grown A=1); first=$(grown $dnn); second=$(grown $bridge); both=$(grown $dnn $bridge)
echo "default $default MiB, $dnn alone $first, $bridge alone $second, both $both"
test "$default" -gt 200; test "$first" -gt 200; test "$second" -gt 200; test "$both" -lt 150
