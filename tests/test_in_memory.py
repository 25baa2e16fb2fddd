"""Training from Python: rows in memory, a function of the script as reward."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import mmrl
from mmrl.data.in_memory import write_rows
from mmrl.errors import ConfigError, DataError
from mmrl.records import read_records
from mmrl.rewards import custom
from mmrl.rewards.custom import load_function, name_of
from mmrl.scoring.pool import ScoreJob, Scorer, TaskSpec
from mmrl.types import Answer
from tests.conftest import TINY
from tests.verifiers import abstains

SCRIPT = """
import mmrl
from PIL import Image

def even(prompts, completions, answer, **columns):
    return [float(len(text) % 2 == 0) for text in completions]

def image(n):
    return Image.new("RGB", (56, 56), (n, 0, 0))

def main():
    rows = [
        {"prompt": f"What is {n} + 1?", "image": image(n), "answer": n + 1} for n in range(4)
    ]
    config = {
        "run": "run",
        "model": {"path": "asset:tiny_qwen2_5_vl"},
        "algorithm": {"name": "grpo", "group_size": 2},
        "rollout": {"max_new_tokens": 4, "scoring_workers": 1},
        "trainer": {"steps": 1, "prompts_per_step": 2},
    }
    print("steps", mmrl.train(config, data=rows, rewards=[even])["steps"])
"""
GUARDED = SCRIPT + '\nif __name__ == "__main__":\n    main()\n'


def carried_out(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    (folder / "script.py").write_text(script)
    command = [sys.executable, "script.py"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_a_script_trains_on_its_rows_with_its_own_function(tmp_path: Path) -> None:
    done = carried_out(tmp_path, GUARDED)
    assert done.returncode == 0, done.stderr
    assert "steps 1" in done.stdout
    rollouts = (tmp_path / "run" / "rollouts.jsonl").read_text().splitlines()
    for group in map(json.loads, rollouts):
        for response in group["responses"]:
            assert response["reward"] == float(len(response["text"]) % 2 == 0)


def test_a_script_that_trains_when_it_is_imported_is_told(tmp_path: Path) -> None:
    done = carried_out(tmp_path, SCRIPT + "\nmain()\n")
    assert done.returncode != 0
    assert "script.py calls mmrl.train whenever it is imported" in done.stderr
    assert 'put it under `if __name__ == "__main__":`' in done.stderr


def test_the_functions_stay_functions_whatever_is_imported() -> None:
    """Rooms of the same names take their places otherwise, and the second call fails."""
    script = (
        "import mmrl; from mmrl.train import checkpoint_files; import mmrl.evaluate.summary; "
        "assert callable(mmrl.train) and callable(mmrl.evaluate); "
        "from mmrl import train; assert train is mmrl.train; "
        "from mmrl.train.phases import phases_of; assert callable(mmrl.train)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def picture(value: int) -> Image.Image:
    return Image.fromarray(np.full((8, 8, 3), value, np.uint8))


def test_rows_become_records_with_their_pictures(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    picture(2).save(buffer, "PNG")
    (tmp_path / "elsewhere").mkdir()
    picture(3).save(tmp_path / "elsewhere" / "three.png")
    rows = [
        {"prompt": "a", "image": picture(1), "answer": np.int64(5)},
        {"prompt": "b", "images": [buffer.getvalue(), tmp_path / "elsewhere" / "three.png"]},
        {"prompt": "c", "image": None, "image_note": "no picture"},
    ]
    file = write_rows(rows, tmp_path / "data")
    records = list(read_records(file))
    assert records[0].fields["answer"] == 5
    assert records[2].fields == {"prompt": "c", "image": None, "image_note": "no picture"}
    names = [records[0].fields["image"], *records[1].fields["images"]]
    seen = [np.asarray(Image.open(file.parent / name)).flat[0] for name in names]
    assert seen == [1, 2, 3]
    assert write_rows(rows, tmp_path / "data") == file
    assert write_rows(rows[:2], tmp_path / "data") != file
    assert len(list((tmp_path / "data").iterdir())) == 2


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("text", "row 2 of the data is str, not a mapping"),
        ({"image": "nowhere.png"}, "row 2 of the data: no picture at"),
        ({"image": 5}, "a picture is a PIL image, bytes or a path, not int"),
    ],
)
def test_a_row_that_cannot_be_kept_is_named(row: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        write_rows([{"prompt": "a"}, row], tmp_path / "data")
    assert said in str(error.value)
    assert not (tmp_path / "data").exists()


def test_a_function_is_found_by_its_name_or_given_by_value() -> None:
    assert load_function(name_of(abstains)) is abstains
    assert not custom.given()
    scale = 3.0

    def inner(completions: list[str], **columns: Any) -> list[float]:
        return [scale * len(text) for text in completions]

    name = name_of(inner)
    assert re.fullmatch(r"given-[0-9a-f]{12}:inner", name)
    # A worker is another process, which has neither this file nor `scale`.
    tasks = {"own": TaskSpec("custom", {"function": name})}
    gold = {"prompt": "?", "columns": {}, "media": {}, "shown": []}
    with Scorer(tasks, workers=1, timeout_seconds=60) as scorer:
        (score,) = scorer.score([ScoreJob("own", gold, Answer("ab"))])
    assert score.reward == 6.0, score.reason
    # A configuration alone does not bring it: no code comes from a file of the run.
    code = f"from mmrl.rewards.custom import load_function; load_function({name!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "was given by a program, not by its name" in done.stderr
    with pytest.raises(ConfigError, match=r"cannot be given to workers .*top of a .py file"):
        lock = threading.Lock()
        name_of(lambda completions: [lock])


def test_without_cloudpickle_it_must_have_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    with pytest.raises(ConfigError, match=r"write it at the top of a .py file, or `pip install"):
        name_of(lambda completions: [])


@pytest.mark.parametrize(
    ("config", "given", "said"),
    [
        ({}, {}, "'data' is required"),
        ({}, {"data": [{"prompt": "a"}]}, "needs the parameter 'function'"),
        ({}, {"data": [{"prompt": "a"}], "rewards": [abstains, abstains]}, "two reward functions"),
        ({"data": [{}, {}]}, {"rewards": [abstains]}, "are for one source, not several"),
    ],
)
def test_mistakes_are_one_line(
    config: dict[str, Any], given: dict[str, Any], said: str, tmp_path: Path
) -> None:
    base = {"run": str(tmp_path / "run"), "model": {"path": TINY}, "trainer": {"steps": 1}}
    with pytest.raises(ConfigError) as error:
        mmrl.train({**base, **config}, **given)
    assert said in str(error.value) and "\n" not in str(error.value)
