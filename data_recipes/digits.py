"""Canvases of real handwritten digits for small tasks: count them, and box the only one.

The scans are scikit-learn's `load_digits` (1,797 scans of 8x8 pixels, inside the package, so
nothing is downloaded). No scan of the training canvases appears on a held-out canvas.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from mmrl.errors import UserError
from mmrl.recipes.recipe import About

Pixels: TypeAlias = npt.NDArray[np.uint8]
Box: TypeAlias = tuple[int, int, int, int]

ABOUT = About(
    name="digits",
    summary="canvases of handwritten digits to count, by row and in all, and to box",
    task="digit_count, digit_rows, digit_box",
    license="CC-BY-4.0",
    url="https://archive.ics.uci.edu/dataset/80",
)
SOURCE = "Optical Recognition of Handwritten Digits (Alpaydin, Kaynak), UCI, test part"
HELD_OUT_SHARE = 0.25
MAX_COUNT = 6
CANVAS_SIDES = (150, 310)  # pixels, drawn per side: most sizes are no multiple of 28
MAX_ASPECT = 1.6
INK_THRESHOLD = 96  # 0-255 after scaling up; fainter pixels do not stretch the box


@dataclass(frozen=True)
class Scans:
    """The scans one split may use, ink bright on 0, with the index of each in `load_digits`."""

    images: Pixels  # N x 8 x 8
    labels: npt.NDArray[np.int64]
    indices: npt.NDArray[np.int64]


def build(
    source: Path | None,
    out: Path,
    *,
    seed: int = 0,
    train: int = 4000,
    validation: int = 200,
    test: int = 300,
) -> None:
    """Write `out/{digit_count,digit_box}/{train,validation,test}.jsonl`, images and manifests.

    The task digit_rows reads what digit_count does.

    Validation canvases are made of training scans, for choices that must not see the test split.
    The same options give the same bytes. `source` is unused: the scans ship with scikit-learn.
    """
    if source is not None:
        raise UserError("the digits recipe reads no input folder: leave out --in")
    splits = split_scans(seed)
    makers = {"digit_count": count_canvas, "digit_box": box_canvas}
    for stream, (kind, make) in enumerate(makers.items()):
        folder = out / kind
        (folder / "images").mkdir(parents=True, exist_ok=True)
        sizes = {"train": train, "test": test, "validation": validation}
        for place, (split, size) in enumerate(sizes.items()):
            records = []
            for number in range(size):
                rng = np.random.default_rng([seed, stream, place, number])
                image, fields = make(splits["test" if split == "test" else "train"], rng)
                name = f"{kind}-{split}-{number:05d}"
                image.save(folder / "images" / f"{name}.png")
                records.append({"id": name, "image": f"images/{name}.png", **fields})
            write_jsonl(folder / f"{split}.jsonl", records)
        write_manifest(folder, seed=seed, splits=splits)


def split_scans(seed: int) -> dict[str, Scans]:
    """Share the 1,797 scans between `train` and `test`, none in both."""
    try:  # not at the top: nothing else needs scikit-learn, which is 100 MiB in memory
        from sklearn.datasets import load_digits
    except ImportError:
        raise UserError("the digits need scikit-learn: pip install 'mmrl[data]'") from None
    digits = load_digits()
    order = np.random.default_rng([seed, 99]).permutation(len(digits.target))
    held_out = round(len(order) * HELD_OUT_SHARE)
    images = np.clip(digits.images * 16, 0, 255).astype(np.uint8)
    parts = {"test": np.sort(order[:held_out]), "train": np.sort(order[held_out:])}
    return {
        name: Scans(images[chosen], digits.target[chosen], chosen) for name, chosen in parts.items()
    }


def count_canvas(scans: Scans, rng: np.random.Generator) -> tuple[Image.Image, dict[str, Any]]:
    """Put 1 to MAX_COUNT digits into distinct cells of a 3 x 3 grid; golds are their numbers."""
    canvas = blank_canvas(rng)
    height, width = canvas.shape
    count = int(rng.integers(1, MAX_COUNT + 1))
    chosen = rng.choice(len(scans.labels), size=count, replace=False)
    cells = rng.choice(9, size=count, replace=False)
    for scan, cell in zip(chosen, cells, strict=True):
        row, column = divmod(int(cell), 3)
        size_w = int(width / 3 * rng.uniform(0.75, 0.98))
        size_h = int(height / 3 * rng.uniform(0.75, 0.98))
        left = int(column * width / 3 + rng.uniform(0, width / 3 - size_w))
        top = int(row * height / 3 + rng.uniform(0, height / 3 - size_h))
        ink(canvas, enlarge(scans.images[scan], size_w, size_h), left, top)
    fields = {
        "width": width,
        "height": height,
        "count": count,
        "rows": np.bincount(cells // 3, minlength=3).tolist(),
        "scans": sorted(int(scans.indices[scan]) for scan in chosen),
    }
    return finish(canvas, rng), fields


def box_canvas(scans: Scans, rng: np.random.Generator) -> tuple[Image.Image, dict[str, Any]]:
    """Put one digit anywhere; the gold is the tight xyxy box of its ink in source pixels."""
    canvas = blank_canvas(rng)
    height, width = canvas.shape
    scan = int(rng.integers(len(scans.labels)))
    size = min(height, width) * rng.uniform(0.4, 0.65)
    digit = enlarge(
        scans.images[scan], int(size * rng.uniform(0.85, 1.15)), int(size * rng.uniform(0.85, 1.15))
    )
    x1, y1, x2, y2 = ink_box(digit)
    left = int(rng.integers(-x1, width - x2 + 1))
    top = int(rng.integers(-y1, height - y2 + 1))
    ink(canvas, digit[y1:y2, x1:x2], left + x1, top + y1)
    fields = {
        "width": width,
        "height": height,
        "box": [left + x1, top + y1, left + x2, top + y2],
        "label": int(scans.labels[scan]),
        "scans": [int(scans.indices[scan])],
    }
    return finish(canvas, rng), fields


def blank_canvas(rng: np.random.Generator) -> Pixels:
    """Return an empty (height, width) canvas with sides and aspect ratio drawn at random."""
    low, high = CANVAS_SIDES
    width = int(rng.integers(low, high + 1))
    height = int(
        rng.integers(max(low, round(width / MAX_ASPECT)), min(high, round(width * MAX_ASPECT)) + 1)
    )
    return np.zeros((height, width), dtype=np.uint8)


def enlarge(scan: Pixels, width: int, height: int) -> Pixels:
    """Scale an 8 x 8 scan up to (height, width)."""
    return np.asarray(Image.fromarray(scan).resize((width, height), Image.Resampling.BICUBIC))


def ink_box(digit: Pixels) -> Box:
    """Return the half-open xyxy box of all pixels of at least INK_THRESHOLD."""
    rows, columns = np.nonzero(digit >= INK_THRESHOLD)
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def ink(canvas: Pixels, digit: Pixels, left: int, top: int) -> None:
    """Draw `digit` on `canvas` in place, keeping the stronger ink of the two."""
    height, width = digit.shape
    view = canvas[top : top + height, left : left + width]
    np.maximum(view, digit, out=view)


def finish(canvas: Pixels, rng: np.random.Generator) -> Image.Image:
    """Turn ink into dark strokes on paper of a slightly varying tint."""
    paper, stroke = rng.uniform(225, 255), rng.uniform(0, 60)
    shade = paper + (stroke - paper) * (canvas.astype(np.float64) / 255)
    return Image.fromarray(np.round(shade).astype(np.uint8))


def write_jsonl(path: Path, records: Iterable[dict[str, Any]]) -> None:
    """Write one JSON object a line."""
    lines = [json.dumps(record, sort_keys=True) for record in records]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_manifest(folder: Path, *, seed: int, splits: dict[str, Scans]) -> None:
    """Write `manifest.json`: where the data comes from, its licence, and a hash of every file."""
    files = sorted(path for path in folder.rglob("*") if path.suffix in {".jsonl", ".png"})
    manifest = {
        "recipe": "digits",
        "seed": seed,
        "source": SOURCE,
        "source_url": ABOUT.url,
        "license": ABOUT.license,
        "split": "by scan: no scan is in both splits",
        "num_scans": {name: len(scans.labels) for name, scans in splits.items()},
        "sha256": {
            path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in files
        },
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
