#!/usr/bin/env bash
# decord: in a clip cut without encoding again, one index is two different frames
#
# Packages: decord 0.6.0, av 18.1.0, numpy 2.4.6. A cut made by copying packets keeps those back to the key
# frame before it and hides them by an edit list; players and PyAV show the rest. decord counts the
# hidden packets into its length. Read from the start, index i is the i-th visible frame; after a seek
# beyond the next key frame the same index, read again, is the i-th packet's frame. What a model is
# shown for "frame 15" then depends on what was read before, and the last indices all give the last frame.
# Seen: "60 indices for 54 frames; index 15 first: 21, after index 30: 15" and the last seven all 59
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/v"; "$work/v/bin/pip" install -q uv
"$work/v/bin/uv" pip install -q --python "$work/v/bin/python" decord==0.6.0 av==18.1.0 numpy==2.4.6
cat > "$work/look.py" <<'PY'
import sys
from fractions import Fraction

import av
import decord
import numpy as np


def drawn(number):
    """A picture that shows its number, a bar a bit."""
    pixels = np.full((48, 64, 3), 128, np.uint8)
    for bit in range(8):
        pixels[:24, 8 * bit : 8 * bit + 8] = 255 * (number >> bit & 1)
    return pixels


def seen(pixels):
    return sum(int(pixels[4:20, 8 * bit + 2 : 8 * bit + 6].mean() > 128) << bit for bit in range(8))


whole, cut = sys.argv[1] + "/whole.mp4", sys.argv[1] + "/cut.mp4"
with av.open(whole, "w") as container:
    stream = container.add_stream("libx264", rate=10, options={"g": "20", "bf": "2"})
    stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
    for i in range(60):
        frame = av.VideoFrame.from_ndarray(drawn(i), format="rgb24")
        frame.pts, frame.time_base = i, Fraction(1, 10)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
with av.open(whole) as source, av.open(cut, "w") as target:  # what `-ss 0.55 -c copy` does
    stream = source.streams.video[0]
    copy = target.add_stream_from_template(stream)
    earlier = int(0.55 / stream.time_base)
    for packet in source.demux(stream):
        if packet.dts is not None:
            packet.pts, packet.dts, packet.stream = packet.pts - earlier, packet.dts - earlier, copy
            target.mux(packet)
with av.open(cut) as container:
    visible = [seen(f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]
assert visible == list(range(6, 60))

first = seen(decord.VideoReader(cut)[15].asnumpy())
reader = decord.VideoReader(cut)
reader[30]
later = seen(reader[15].asnumpy())
print(f"{len(reader)} indices for {len(visible)} frames; index 15 first: {first}, after index 30: {later}")
last = [seen(p) for p in decord.VideoReader(cut).get_batch(range(60)).asnumpy()][-7:]
print("the last seven:", last)
assert (len(reader), first, later, set(last)) == (60, visible[15], 15, {59})
whole_reader = decord.VideoReader(whole)
whole_reader[30]
assert seen(whole_reader[15].asnumpy()) == 15  # a clip that was not cut is right
PY
"$work/v/bin/python" "$work/look.py" "$work"
