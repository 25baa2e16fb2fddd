"""Mistakes in a run's data are one line before anything heavy is imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mmrl.config import RunConfig
from mmrl.doctor.preflight import check_run
from mmrl.errors import UserError
from mmrl.validation import validate


def run(folder: Path, **data: Any) -> RunConfig:
    Image.new("RGB", (28, 28)).save(folder / "a.png")
    rows = [
        {"q": "What is it?", "image": f"{'a' if i % 2 else 'none'}.png", "answer": "dog"}
        for i in range(6)
    ]
    (folder / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {
        "task": "custom",
        "path": str(folder / "d.jsonl"),
        "columns": {"prompt": "q"},
        "params": {"function": "mmrl.tasks.custom.example:exact_match"},
        **data,
    }
    values = {
        "run": str(folder / "run"),
        "model": {"path": "asset:tiny_qwen2_5_vl"},
        "data": source,
        "trainer": {"steps": 1},
    }
    return validate(RunConfig, values, "test")


MISTAKES = {
    "path": ({"path": "/none/d.jsonl"}, r"no data file at /none/d.jsonl: check data.path"),
    "held out": ({"eval_path": "/none/e.jsonl"}, r"check data.eval_path"),
    "glob": ({"path": "/none/*.parquet"}, r"no file matches /none/\*.parquet: check data.path"),
    "column": ({"columns": {"prompt": "question"}}, "no column 'question'; it has: q, image"),
    "root": ({"media_roots": ["/none"]}, "data.media_roots: no folder at /none"),
    "function": ({"params": {"function": "mmrl.tasks.custom.example:none"}}, "no function 'none'"),
    "parameter": ({"params": {"functon": "x"}}, "did you mean 'function'"),
    "weight": ({"weights": {"rewad": 1.0}}, "no reward part 'rewad'"),
    "task": ({"task": "custm"}, "did you mean 'custom'"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_what_is_wrong_is_one_line_before_the_run(tmp_path: Path, case: str) -> None:
    data, reason = MISTAKES[case]
    with pytest.raises(UserError, match=reason) as caught:
        check_run(run(tmp_path, **data))
    assert "\n" not in str(caught.value)


def test_records_that_are_no_use_are_said_with_their_number(tmp_path: Path) -> None:
    (note,) = [n for n in check_run(run(tmp_path)) if n.startswith("data.path")]
    assert note.startswith("data.path: 3 of the first 6 records cannot be asked, 3 of them: ")
    assert "no image at" in note


def test_a_sound_option_is_one_of_three(tmp_path: Path) -> None:
    config = run(tmp_path).model_copy(update={"media": {"video": {"audio": "atuo"}}})
    with pytest.raises(UserError, match=r"media.video: 'audio': .*'auto' \(got 'atuo'\)"):
        check_run(config)


def test_print_config_says_them_without_torch(tmp_path: Path) -> None:
    config = run(tmp_path)
    (tmp_path / "c.yaml").write_text(config.to_yaml())
    code = (
        "import sys; from mmrl.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print('torch' in sys.modules)"
    )
    words = [sys.executable, "-c", code, "train", str(tmp_path / "c.yaml"), "--print-config"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "# data.path: 3 of the first 6 records cannot be asked" in done.stdout
    assert done.stdout.splitlines()[-1] == "False"
