"""The digits recipe: no scan in both splits, golds that agree with the pixels, repeatable bytes."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmrl.data_recipes import digits
from mmrl.errors import UserError

KINDS = ("digit_count", "digit_box")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("digits")
    digits.build(None, out, seed=3, train=40, validation=10, test=20)
    return out


def records(folder: Path, split: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{split}.jsonl").read_text().splitlines()]


def test_no_scan_is_in_both_splits(built: Path) -> None:
    used = {
        split: {
            scan for kind in KINDS for row in records(built / kind, split) for scan in row["scans"]
        }
        for split in ("train", "test")
    }
    assert used["train"] and used["test"]
    assert not used["train"] & used["test"]
    scans = digits.split_scans(3)
    assert used["test"] <= set(scans["test"].indices.tolist())
    everything = np.concatenate([scans["train"].indices, scans["test"].indices])
    assert sorted(everything.tolist()) == list(range(1797))


def test_the_box_is_the_ink_in_source_pixels(built: Path) -> None:
    for row in records(built / "digit_box", "train"):
        pixels = np.asarray(Image.open(built / "digit_box" / row["image"]))
        assert pixels.shape == (row["height"], row["width"])
        paper, stroke = int(pixels.max()), int(pixels.min())
        threshold = paper - digits.INK_THRESHOLD / 255 * (paper - stroke)
        rows, columns = np.nonzero(pixels <= threshold)
        found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert np.abs(np.subtract(found, row["box"])).max() <= 2


def test_the_count_is_the_number_of_scans(built: Path) -> None:
    rows = records(built / "digit_count", "train")
    assert all(row["count"] == len(row["scans"]) for row in rows)
    assert {row["count"] for row in rows} == set(range(1, digits.MAX_COUNT + 1))


def test_processed_and_source_pixels_differ(built: Path) -> None:
    rows = records(built / "digit_box", "train")
    assert len({(row["width"], row["height"]) for row in rows}) > 30
    assert any(row["width"] > row["height"] for row in rows)
    assert any(row["width"] < row["height"] for row in rows)
    assert all(row["width"] % 28 or row["height"] % 28 for row in rows)


def test_the_same_seed_gives_the_same_bytes(built: Path, tmp_path: Path) -> None:
    digits.build(None, tmp_path, seed=3, train=40, validation=10, test=20)
    for kind in KINDS:
        manifest = (tmp_path / kind / "manifest.json").read_bytes()
        assert manifest == (built / kind / "manifest.json").read_bytes()
    digits.build(None, tmp_path, seed=4, train=40, validation=10, test=20)
    assert manifest != (tmp_path / "digit_box" / "manifest.json").read_bytes()


def test_the_manifest_hashes_every_file(built: Path) -> None:
    folder = built / "digit_count"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["license"] == "CC-BY-4.0"
    assert len(manifest["sha256"]) == 40 + 10 + 20 + 3
    for name, expected in manifest["sha256"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == expected


def test_an_input_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--in"):
        digits.build(tmp_path, tmp_path)


def test_without_scikit_learn_one_line_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(UserError, match=r"pip install 'mmrl\[data\]'"):
        digits.split_scans(0)
