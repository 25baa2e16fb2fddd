"""`mmrl rate`: rates are those of an evaluation, a killed call goes on, and runs draw a band."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mmrl.cli import main
from mmrl.config import RunConfig
from mmrl.errors import ConfigError, DataError
from mmrl.evaluate.pass_rates import rated_path, task_of
from mmrl.runlog.journal import Journal
from mmrl.scoring.tasks import fixture_path
from mmrl.train.run import train
from mmrl.validation import validate
from tests.conftest import TINY
from tests.runs import make_digits, run_config

ASKED = ["--model", TINY, "--samples", "4", "--temperature", "1", "--max-new-tokens", "8"]


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def shares(evaluation: Path) -> dict[str, float]:
    """What an evaluation's file says of each record, by hand."""
    found: dict[str, list[float]] = {}
    for answer in json.loads(evaluation.read_text())["answers"]:
        found.setdefault(answer["id"], []).append(answer["metric"])
    return {name: sum(values) / len(values) for name, values in found.items()}


def test_rates_equal_those_of_an_evaluation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = fixture_path("digit_count")
    out = tmp_path / "rated.jsonl"
    assert main(["rate", "--data", str(data), *ASKED, "--out", str(out)]) == 0
    assert "by tenth of the pass rate" in capsys.readouterr().out
    wanted = ["eval", "--task", "digit_count", "--data", str(data), *ASKED]
    assert main([*wanted, "--out", str(tmp_path / "eval.json")]) == 0
    rated, raw = rows_of(out), rows_of(data)
    assert {row["id"]: row["pass_rate"] for row in rated} == shares(tmp_path / "eval.json")
    assert len({row["pass_rate"] for row in rated}) > 1
    assert [{k: v for k, v in row.items() if k != "pass_rate"} for row in rated] == raw
    before = (tmp_path / "rated.answers" / "answers.jsonl").stat().st_mtime_ns
    assert main(["rate", "--data", str(data), *ASKED, "--out", str(out), "--json"]) == 0
    assert (tmp_path / "rated.answers" / "answers.jsonl").stat().st_mtime_ns == before


def test_parquet_keeps_its_columns_and_pictures(tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    import pyarrow as pa

    data = fixture_path("digit_count")
    rows = rows_of(data)[:3]
    for row in rows:
        row["image"] = {"bytes": (data.parent / row["image"]).read_bytes(), "path": None}
        row["id"] = "same"  # told apart as a run does
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "r.parquet")
    given = ["rate", "--task", "digit_count", "--data", str(tmp_path / "r.parquet"), *ASKED]
    assert main(given) == 0
    found = pq.read_table(tmp_path / "r.rated.parquet").to_pylist()
    assert [row["image"]["bytes"] for row in found] == [row["image"]["bytes"] for row in rows]
    rates = shares(tmp_path / "r.rated.json")
    assert [row["pass_rate"] for row in found] == [rates[f"same{n}"] for n in ("", "#2", "#3")]
    assert main([*given, "--out", str(tmp_path / "other.jsonl")]) == 2  # bytes are no JSON


def test_names_that_are_not_given(tmp_path: Path) -> None:
    assert task_of(Path("data/digit_count/train.jsonl")) == "digit_count"
    with pytest.raises(ConfigError, match="--task: no task is called"):
        task_of(tmp_path / "rows.jsonl")
    with pytest.raises(ConfigError, match="--out: say where"):
        rated_path(tmp_path)


def banded(tmp_path: Path, digits: Path, keep: dict[str, Any]) -> set[float]:
    """The pass rates of what a run drew."""
    config = run_config(tmp_path / "run", digits)
    config["data"] = {**config["data"], "keep": keep}
    del config["data"]["eval_path"]
    config["trainer"] |= {"steps": 2, "prompts_per_step": 4}
    train(validate(RunConfig, config, "test"))
    rates = {row["id"]: row.get("pass_rate") for row in rows_of(Path(config["data"]["path"]))}
    drawn = [i for row in Journal(tmp_path / "run" / "consumed.jsonl").rows() for i in row["ids"]]
    assert len(drawn) == 8
    return {rates[i] for i in drawn}


def test_a_band_changes_what_is_drawn(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    digits = make_digits(tmp_path / "digits", train=12, test=2)
    path = digits / "digit_count" / "train.jsonl"
    rows = rows_of(path)
    for i, row in enumerate(rows[:-1]):
        row["pass_rate"] = i / 10
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert banded(tmp_path / "a", digits, {"pass_rate": [0.1, 0.3]}) == {0.1, 0.2, 0.3}
    said = " ".join(capfd.readouterr().err.split())
    assert "data.keep draws 3 of 12 records, pass_rate 0.1 to 0.3; 1 have no such number" in said
    assert banded(tmp_path / "b", digits, {"pass_rate": [0.8, 1]}) == {0.8, 0.9, 1.0}
    both = {"pass_rate": [0.1, 0.9], "count": [rows[4]["count"], rows[4]["count"]]}
    wanted = {r["pass_rate"] for r in rows[1:10] if r["count"] == rows[4]["count"]}
    assert banded(tmp_path / "c", digits, both) <= wanted
    with pytest.raises(DataError, match=r"data\.keep leaves no record of .*: pass_rate 2 to 3"):
        banded(tmp_path / "d", digits, {"pass_rate": [2, 3]})


@pytest.mark.slow
def test_300_records_are_rated_over_a_kill(tmp_path: Path) -> None:
    digits = make_digits(tmp_path / "digits", train=300, test=2)
    data = digits / "digit_count" / "train.jsonl"
    out = data.with_name("train.rated.jsonl")
    command = [sys.executable, "-m", "mmrl.cli", "rate", "--data", str(data), *ASKED]
    answers = data.with_name("train.rated.answers") / "answers.jsonl"
    killed = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    while not answers.is_file() or answers.read_bytes().count(b"\n") < 60:
        assert killed.poll() is None, "it was over before it was killed"
        time.sleep(0.05)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    kept = answers.read_bytes()
    assert not out.exists() and 60 <= kept.count(b"\n") < 300
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    assert answers.read_bytes().startswith(kept[: kept.rfind(b"\n") + 1])  # none is asked again
    wanted = ["eval", "--task", "digit_count", "--data", str(data), *ASKED]
    assert main([*wanted, "--out", str(tmp_path / "eval.json")]) == 0
    rates = {row["id"]: row["pass_rate"] for row in rows_of(out)}
    assert len(rates) == 300 and rates == shares(tmp_path / "eval.json")
    print("mean pass rate", sum(rates.values()) / 300)
