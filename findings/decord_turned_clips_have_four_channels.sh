#!/usr/bin/env bash
# decord: a phone's upright clip comes out with four channels, a mirrored one upside down
#
# Packages: decord 0.6.0, av 18.1.0, numpy 2.4.6. Phones write clips lying and say in the track's matrix of
# display how to turn them; front cameras mirror. decord reads that matrix for an angle alone. A quarter
# turn gives arrays of height x width x 4 where every other clip has three channels (the fourth is no
# picture), so that a batch with other clips, or a processor, fails far from the reader or takes the
# fourth for colour. A mirror has the angle of a half turn, and is turned by it: top is bottom.
# Seen: "a quarter turn: (64, 48, 4)", "a half turn: (48, 64, 3), right", "a mirror: turned by a half"
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/v"; "$work/v/bin/pip" install -q uv
"$work/v/bin/uv" pip install -q --python "$work/v/bin/python" decord==0.6.0 av==18.1.0 numpy==2.4.6
cat > "$work/look.py" <<'PY'
import sys

import av
import decord
import numpy as np

picture = np.full((48, 64, 3), 128, np.uint8)  # white above left, black above right, grey below
picture[:24, :32], picture[:24, 32:] = 255, 0
path = sys.argv[1] + "/clip.mp4"
with av.open(path, "w") as container:
    stream = container.add_stream("libx264", rate=10, options={"crf": "0"})
    stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
    for _ in range(5):
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
    container.mux(stream.encode(None))
made = open(path, "rb").read()


def matrix(a, b, c, d):
    return b"".join((v << 16).to_bytes(4, "big", signed=True) for v in (a, b, 0, c, d))


def read(*wanted):
    straight = matrix(1, 0, 0, 1)
    at = made.index(straight, made.index(b"tkhd"))
    open(path, "wb").write(made[:at] + matrix(*wanted) + made[at + len(straight) :])
    return decord.VideoReader(path)[2].asnumpy()


def is_near(a, b):
    return a.shape == b.shape and np.abs(a.astype(int) - b).mean() < 8


assert is_near(read(1, 0, 0, 1), picture)
quarter, half, mirror = read(0, 1, -1, 0), read(-1, 0, 0, -1), read(-1, 0, 0, 1)
print("a quarter turn:", quarter.shape)
assert quarter.shape == (64, 48, 4)
assert is_near(half, picture[::-1, ::-1])
print(f"a half turn: {half.shape}, right")
assert is_near(mirror, picture[::-1, ::-1]) and not is_near(mirror, picture[:, ::-1])
print("a mirror: turned by a half")
PY
"$work/v/bin/python" "$work/look.py" "$work"
