"""Seconds of `mmrl doctor --data` against the same looks taken one by one.

    python tools/bench_doctor.py [--records 5000] [--workers 2] [--repeats 3]

Writes pictures (JPEG, noise that is enlarged, 0.2 to 0.9 megapixels) and records into a temporary
folder, once with six sizes in turn and once with sizes that hardly repeat. One by one, a record is
decoded, processed, made into a prompt, and its gold scored before the next is begun. Both ways read
the same files in the same order, in turn, each in a process of its own; medians of wall seconds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

SIZES = ((640, 480), (480, 640), (800, 600), (1024, 768), (500, 375), (1280, 720))
TASK = "digit_count"


def main() -> None:
    """Write both sets, time both ways, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=5000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--side", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        print(time_of(WAYS[given.side[0]], Path(given.side[1]), given.workers))
        return
    print(f"{given.records} records, {given.workers} workers, median of {given.repeats}")
    for what, size in (("six sizes", six_sizes), ("sizes of their own", own_size)):
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), given.records, size)
            compare(what, Path(folder), given)


def compare(what: str, folder: Path, given: argparse.Namespace) -> None:
    """Take both ways in turn and say how they compare."""
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(given.repeats):
        for name, measured in seconds.items():
            words = ["--side", name, str(folder), "--workers", str(given.workers)]
            made = subprocess.run(
                [sys.executable, __file__, *words], check=True, stdout=subprocess.PIPE, text=True
            )
            measured.append(float(made.stdout.split()[-1]))
    middle = {name: statistics.median(measured) for name, measured in seconds.items()}
    print(f"{what}: {middle['alone'] / middle['doctor']:.2f}x")
    for name, measured in seconds.items():
        rate = given.records / middle[name]
        spread = f"{min(measured):.1f} to {max(measured):.1f}"
        print(f"  {name:7} {middle[name]:6.1f} s ({spread}), {rate:.0f} records a second")


def six_sizes(index: int) -> tuple[int, int]:
    """One of six sizes in turn."""
    return SIZES[index % len(SIZES)]


def own_size(index: int) -> tuple[int, int]:
    """A size that few other pictures have."""
    width, height = SIZES[index % len(SIZES)]
    return width - index % 97, height - index % 89


def write(folder: Path, records: int, size: Callable[[int], tuple[int, int]]) -> None:
    """Pictures of these sizes, all different, and a record for each."""
    rng, rows = np.random.default_rng(0), []
    for index in range(records):
        coarse = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize(size(index), Image.Resampling.BICUBIC)
        picture.save(folder / f"{index}.jpg", quality=85)
        asked = f"<image>How many digits are in picture {index}?"
        rows.append({"id": str(index), "prompt": asked, "image": f"{index}.jpg", "count": 2})
    (folder / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def time_of(way: Callable[[Path, int], int], folder: Path, workers: int) -> float:
    """Seconds of one way, without its imports; all of the records were usable."""
    way(folder, 0)
    started = time.perf_counter()
    looked = way(folder, workers)
    seconds = time.perf_counter() - started
    assert looked == len((folder / "records.jsonl").read_text().splitlines())
    return seconds


def doctor(folder: Path, workers: int) -> int:
    """Records that doctor looked at; with no worker one only, to have everything imported."""
    from mmrl.doctor.dataset import survey

    (found,) = survey(config(folder), max(workers, 1), None if workers else 1)
    assert not found.unusable and not found.golds
    return len(found.tokens)


def alone(folder: Path, workers: int) -> int:
    """Records looked at one after the other, nothing of them begun ahead of need."""
    from mmrl.data.samples import load_samples
    from mmrl.doctor.counts import family_of
    from mmrl.policy.encoder import Encoder
    from mmrl.scoring.pool import ScoreJob, Scorer, TaskSpec
    from mmrl.scoring.tasks import load_task
    from mmrl.types import Answer

    made = config(folder)
    task, family = load_task(TASK, {}), family_of(made)
    samples = load_samples(task, made.data[0].path, TASK, refuse, None if workers else 1)
    encoder, done = Encoder(family, defaults=made.media), 0
    with Scorer({TASK: TaskSpec(TASK, {}, {})}, 1, made.rollout.scoring_timeout_seconds) as scorer:
        for sample in samples.usable():
            prompt = encoder.prompt(sample)
            blank = Answer("", frames=prompt.frames, space=prompt.space)
            answer = replace(blank, text=task.completion(sample, blank))
            (score,) = scorer.score([ScoreJob(TASK, sample.gold, answer)])
            assert score.status == "ok"
            done += 1
    encoder.close()
    return done


def refuse(record: str, reason: str) -> None:
    """None of these records is unusable."""
    raise AssertionError(f"{record}: {reason}")


def config(folder: Path):  # type: ignore[no-untyped-def]
    """The quickstart's model with pictures of up to a megapixel."""
    from mmrl.config import RunConfig
    from mmrl.validation import validate

    values = {
        "run": str(folder / "run"),
        "model": {"path": "asset:tiny_qwen2_5_vl", "max_pixels": 1280 * 28 * 28},
        "data": {"task": TASK, "path": str(folder / "records.jsonl")},
        "trainer": {"steps": 1},
    }
    return validate(RunConfig, values, "bench")


WAYS: dict[str, Callable[[Path, int], int]] = {"alone": alone, "doctor": doctor}

if __name__ == "__main__":
    main()
