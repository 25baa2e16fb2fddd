"""`mmrl doctor CONFIG --data`: every record is looked at as the run will see it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mmrl.cli import main
from mmrl.config import RunConfig
from mmrl.doctor.dataset import Surveyed, histogram, refuse, spread, survey
from mmrl.errors import ConfigError
from mmrl.validation import validate
from tests.runs import make_digits, run_config, write_config


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    return make_digits(tmp_path / "digits", train=30, test=6)


def config(folder: Path, digits: Path, **sections: Any) -> RunConfig:
    return validate(RunConfig, run_config(folder / "run", digits, **sections), "test")


def rows_of(digits: Path, split: str = "train") -> tuple[Path, list[dict[str, Any]]]:
    file = digits / "digit_count" / f"{split}.jsonl"
    return file, [json.loads(line) for line in file.read_text().splitlines()]


def write(file: Path, rows: list[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_sound_records_have_nothing_wrong(tmp_path: Path, digits: Path) -> None:
    seen: list[tuple[int, int]] = []
    training, held_out = survey(
        config(tmp_path, digits), on_progress=lambda *where: seen.append(where)
    )
    assert (training.split, training.records) == ("training", 30)
    assert (held_out.split, held_out.records) == ("held-out", 6)
    assert not training.unusable and not training.golds and not held_out.twice
    assert len(training.tokens) == len(training.media["image"]) == 30
    tokens, pixels = training.media["image"][0]
    assert 0 < tokens < training.tokens[0] and pixels > 28 * 28
    assert seen[-1] == (6, 6) and (30, 30) in seen
    assert sum(training.figures()["tokens"]["counts"]) == 30


def test_whatever_is_wrong_is_found_with_its_ids(tmp_path: Path, digits: Path) -> None:
    file, rows = rows_of(digits)
    folder = file.parent
    (folder / rows[0]["image"]).write_bytes(b"no picture")
    Image.new("RGB", (6000, 12)).save(folder / rows[1]["image"])
    rows[2]["count"] = "several"
    # The same picture stored in another file, and a picture of the held-out records.
    shutil.copy(folder / rows[3]["image"], folder / rows[4]["image"])
    rows[4]["count"] = rows[3]["count"]
    _, others = rows_of(digits, "test")
    shutil.copy(folder / rows[5]["image"], folder / others[0]["image"])
    write(file, rows)
    training, held_out = survey(config(tmp_path, digits))
    reasons = {ids[0]: reason for reason, ids in training.unusable.items()}
    assert "not a readable image" in reasons[rows[0]["id"]]
    assert "max_aspect_ratio" in reasons[rows[1]["id"]]
    assert "several" in reasons[rows[2]["id"]]
    assert training.records == 30 and len(training.tokens) == 27
    assert training.twice == {
        "the same question in training records": [f"{rows[4]['id']} = {rows[3]['id']}"]
    }
    shared = [
        pair for what, pairs in held_out.twice.items() if "training" in what for pair in pairs
    ]
    assert f"{others[0]['id']} = {rows[5]['id']}" in shared


def test_a_gold_that_its_own_task_does_not_pay_is_shown(tmp_path: Path, digits: Path) -> None:
    _, rows = rows_of(digits)
    asked = [
        {"id": str(i), "image": row["image"], "prompt": "How many?", "target": "ab" * (i % 3)}
        for i, row in enumerate(rows)
    ]
    file = digits / "digit_count" / "asked.jsonl"
    write(file, asked)
    params = {"function": "tests.verifiers:abstains"}
    data = {"task": "custom", "path": str(file), "params": params, "eval_path": None}
    (training,) = survey(config(tmp_path, digits, data=data))
    (problem,) = training.golds
    assert problem.startswith("unscorable: ")
    # Those without a target have no right answer to score.
    assert training.golds[problem] == [row["id"] for row in asked if row["target"]]


def test_too_many_useless_records_are_a_users_mistake(tmp_path: Path, digits: Path) -> None:
    found = Surveyed(digits / "digit_count" / "train.jsonl", "training", 10)
    found.unusable["why"] = ["1", "2"]
    refuse(config(tmp_path, digits, data={"max_unusable_share": 0.2}), [found])
    with pytest.raises(ConfigError, match=r"2 of 10 records cannot be used.*=0.1 allows fewer"):
        refuse(config(tmp_path, digits, data={"max_unusable_share": 0.1}), [found])


def test_a_histogram_counts_every_number() -> None:
    assert histogram([]) == {"edges": [], "counts": []}
    assert histogram([3, 3, 3])["counts"] == [3]
    assert sum(histogram([1, 2, 700])["counts"]) == 3


def test_a_spread_is_true_of_equal_numbers() -> None:
    assert spread([52, 52, 52]).startswith("52 to 52, half at most 52, 95 % at most 52 |")


def test_the_command_prints_it(
    tmp_path: Path, digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(write_config(tmp_path / "c.yaml", run_config(tmp_path / "run", digits)))
    assert main(["doctor", path, "--data", "--limit", "5", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert [each["records"] for each in value["data"]] == [5, 5]
    assert main(["doctor", path, "--data", "--limit", "5"]) == 0
    said = capsys.readouterr().out
    assert "training" in said and "half at most" in said
    assert main(["doctor", "--data"]) == 2
