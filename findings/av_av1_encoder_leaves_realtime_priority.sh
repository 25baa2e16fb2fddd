#!/usr/bin/env bash
# PyAV: after one AV1 clip was encoded, the process runs in the real-time class, and so do its children
#
# Packages: av 18.1.0 (with SVT-AV1 4.1.0), run as root, as most containers are.
# Opening the encoder `libsvtav1` puts the thread that does so into SCHED_FIFO with the highest priority,
# 99, and leaves it there when the encoder is closed. Other encoders of the same package do not. Whatever
# the process starts afterwards inherits it: a worker, a browser, a shell. One of those that is busy then
# keeps a core from everything else on the machine, the one that would end it too. No message says so.
# Without the right to raise priorities nothing happens.
# Seen: "after libx264: other 0", "after libsvtav1: fifo 99", "a child: fifo 99"
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/v"; "$work/v/bin/pip" install -q uv
"$work/v/bin/uv" pip install -q --python "$work/v/bin/python" av==18.1.0 numpy==2.4.6
cat > "$work/encode.py" <<'PY'
import os, subprocess, sys
import av, numpy as np

SAY = "import os; print({0: 'other', 1: 'fifo'}[os.sched_getscheduler(0)], os.sched_getparam(0).sched_priority)"

def here():
    return {0: "other", 1: "fifo"}[os.sched_getscheduler(0)], os.sched_getparam(0).sched_priority

def encode(name):
    with av.open(f"{sys.argv[1]}/{name}.mp4", "w") as out:
        stream = out.add_stream(name, rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(5):
            picture = np.full((48, 64, 3), 20 * i, dtype=np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode(None))
    return here()

assert os.geteuid() == 0, "this needs the right to raise priorities"
assert here() == ("other", 0)
found = {name: encode(name) for name in ("libx264", "libsvtav1")}
for name, (policy, priority) in found.items():
    print(f"after {name}: {policy} {priority}")
child = subprocess.run([sys.executable, "-c", SAY], capture_output=True, text=True).stdout.strip()
os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
print("a child:", child)
assert found == {"libx264": ("other", 0), "libsvtav1": ("fifo", 99)} and child == "fifo 99"
PY
"$work/v/bin/python" "$work/encode.py" "$work" 2>/dev/null
