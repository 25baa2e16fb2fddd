"""Memory of data with pictures inside: 5,000 rows against 100, here and in another checkout.

    python tools/bench_records.py [--against CHECKOUT] [--run]

Writes a parquet file of 387 MB into a temporary folder. Each process loads the run's sources, draws
40 samples and decodes their pictures, or, with --run, trains the tiny model on 100 rows, 25 steps
of 4; what is printed is its peak of resident memory, and of a run its CPU seconds up to its first
step.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

ROWS, FEW = 5000, 100
CHILD = """
import json, sys
from pathlib import Path
from mmrl.validation import validate
from mmrl.config import (RunConfig)
from mmrl.data.sources import load_sources
from mmrl.data.stream import PromptStream
from mmrl.modalities.image import decode
from mmrl.runlog.quarantine import Quarantine
from mmrl.types import MediaRef

folder, limit = Path(sys.argv[1]), json.loads(sys.argv[2])
data = {"task": "custom", "path": str(folder / "d.parquet"), "limit": limit}
data["params"] = {"function": "mmrl.tasks.custom.example:exact_match"}
values = {"run": str(folder), "model": {"path": "-"}, "data": data, "trainer": {"steps": 1}}
sources = load_sources(validate(RunConfig, values, "bench"), Quarantine(folder), print)
for sample in PromptStream([(sources[0].train, 1.0, True)], 0).draw(40):
    for part in sample.parts:
        if isinstance(part, MediaRef):
            decode(part)
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(int(status["VmHWM"].split()[0]) // 1024)
"""


def write(path: Path) -> None:
    """Rows of a picture of 77 kB, a question and an answer, a hundred in a row group."""
    import pyarrow
    import pyarrow.parquet

    rng, held = np.random.default_rng(0), []
    for _ in range(40):
        buffer = io.BytesIO()
        pixels = rng.integers(0, 255, (300, 300, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(buffer, "JPEG", quality=88)
        held.append(buffer.getvalue())
    schema = pyarrow.schema([("image", pyarrow.binary()), ("prompt", "str"), ("answer", "str")])
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        for start in range(0, ROWS, 100):
            # What differs keeps dictionaries of values from making the file small.
            rows = [
                {"image": held[i % 40] + i.to_bytes(4), "prompt": f"q{i}", "answer": "a"}
                for i in range(start, start + 100)
            ]
            writer.write_table(pyarrow.Table.from_pylist(rows, schema=schema))


def peak(checkout: Path, folder: Path, limit: int | None) -> int:
    """MiB of a process that reads the file with the code of a checkout."""
    environment = {**os.environ, "PYTHONPATH": str(checkout.resolve())}
    words = [sys.executable, "-c", CHILD, str(folder), json.dumps(limit)]
    # Elsewhere than here: the folder a child begins in is the first it imports from.
    done = subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    return int(done.stdout.splitlines()[-1])


def run(checkout: Path, folder: Path, limit: int | None) -> tuple[int, float]:
    """MiB of a run that trains on 100 rows, and the CPU seconds until its first step is done."""
    out = folder / "run"
    shutil.rmtree(out, ignore_errors=True)
    settings = {
        "run": out,
        "model.path": "asset:tiny_qwen2_5_vl",
        "data.task": "custom",
        "data.path": folder / "d.parquet",
        "data.params.function": "mmrl.tasks.custom.example:exact_match",
        "data.limit": "null" if limit is None else limit,
        "algorithm.name": "grpo",
        "algorithm.group_size": 2,
        "rollout.max_new_tokens": 4,
        "trainer.steps": 25,
        "trainer.prompts_per_step": 4,
    }
    config = folder / "c.yaml"
    config.write_text("{}\n")
    words = [sys.executable, "-m", "mmrl.cli", "train", str(config)]
    environment = {**os.environ, "PYTHONPATH": str(checkout.resolve())}
    first, peak_mib = math.nan, 0
    with subprocess.Popen(
        [*words, *(f"{key}={value}" for key, value in settings.items())],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
    ) as process:
        while process.poll() is None:
            status = Path(f"/proc/{process.pid}/status").read_text().split()
            if "VmHWM:" in status:
                peak_mib = max(peak_mib, int(status[status.index("VmHWM:") + 1]) // 1024)
            metrics = out / "metrics.jsonl"
            if math.isnan(first) and metrics.is_file() and metrics.stat().st_size:
                first = cpu_seconds(process.pid)
            time.sleep(0.1)
    assert process.returncode == 0, f"the run in {checkout} ended with {process.returncode}"
    return peak_mib, first


def cpu_seconds(pid: int) -> float:
    """What a process has used so far, on its own and in the kernel."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", type=Path, help="another checkout")
    parser.add_argument("--run", action="store_true", help="whole runs, not their reading alone")
    asked = parser.parse_args()
    sides = [Path(__file__).resolve().parents[1], asked.against]
    with tempfile.TemporaryDirectory() as name:
        write(Path(name) / "d.parquet")
        for side in filter(None, sides):
            if asked.run:
                (few, _), (all_rows, seconds) = (run(side, Path(name), n) for n in (FEW, None))
                print(
                    f"{side}: {few} MiB with {FEW} rows, {all_rows} with {ROWS}: "
                    f"{all_rows - few:+d}; first step after {seconds:.1f} s of CPU",
                    flush=True,
                )
                continue
            few, all_rows = (peak(side, Path(name), limit) for limit in (FEW, None))
            print(f"{side}: {few} MiB with {FEW} rows, {all_rows} with {ROWS}: {all_rows - few:+d}")
