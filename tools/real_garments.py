"""Photographs of garments (Fashion-MNIST) as records of the task `custom`, and their reward."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

NAMES = (
    "t-shirt",
    "trousers",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "boot",
)
QUESTION = "<image>Which garment is this?"
SIZES = {"warm": 2_000, "train": 4_000, "test": 300}


def write(source: Path, out: Path) -> None:
    """Write PNGs and `warm.jsonl`, `train.jsonl`, `test.jsonl`, equally many of each garment.

    Warm and training records are different pictures of the training set, test records are of the
    test set.
    """
    if all((out / f"{name}.jsonl").is_file() for name in SIZES):
        return
    (out / "pictures").mkdir(parents=True, exist_ok=True)
    known, held_out = _read(source, "train"), _read(source, "t10k")
    chosen = _each(known[1], SIZES["warm"] + SIZES["train"])
    # The order goes round the garments, so a cut leaves equally many of each on either side.
    _save(out, "warm", known, chosen[: SIZES["warm"]])
    _save(out, "train", known, chosen[SIZES["warm"] :])
    _save(out, "test", held_out, _each(held_out[1], SIZES["test"]))


def right_name(
    prompts: Sequence[Any], completions: Sequence[str], label: Sequence[str], **columns: Any
) -> list[float]:
    """1 for the garment's name and nothing else, capital letters and a full stop aside."""
    said = (text.strip().removesuffix(".").lower() for text in completions)
    return [float(text == gold) for text, gold in zip(said, label, strict=True)]


def _read(source: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Pictures [N, 28, 28] and labels [N] of IDX files."""
    pictures = gzip.decompress((source / f"{part}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((source / f"{part}-labels-idx1-ubyte.gz").read_bytes())
    return (
        np.frombuffer(pictures, np.uint8, offset=16).reshape(-1, 28, 28),
        np.frombuffer(labels, np.uint8, offset=8),
    )


def _each(labels: np.ndarray, count: int) -> list[int]:
    """The first pictures of every garment, one of each in turn, `count` in all."""
    places = [np.flatnonzero(labels == name)[: count // len(NAMES)] for name in range(len(NAMES))]
    return [int(place) for turn in zip(*places, strict=True) for place in turn]


def _save(out: Path, name: str, data: tuple[np.ndarray, np.ndarray], places: list[int]) -> None:
    pictures, labels = data
    lines = []
    for place in places:
        file = f"pictures/{name}_{place}.png"
        Image.fromarray(pictures[place]).save(out / file)
        label = NAMES[labels[place]]
        record = {"id": f"{name}-{place}", "image": file, "prompt": QUESTION}
        lines.append(json.dumps({**record, "label": label, "target": label}))
    (out / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
