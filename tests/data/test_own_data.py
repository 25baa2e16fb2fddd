"""What someone with data of their own meets first: `mmrl tasks` and `mmrl algorithms` on them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

from mmrl.cli import main


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Two pictures with a question and a number, as a CSV whose columns have names of their own."""
    for name in ("0", "1"):
        Image.new("RGB", (56, 56), "white").save(tmp_path / f"{name}.png")
    with (tmp_path / "train.csv").open("w", newline="") as file:
        rows = [("picture", "q", "number"), ("0.png", "How many?", 0), ("1.png", "And now?", 7)]
        csv.writer(file).writerows(rows)
    return tmp_path / "train.csv"


NAMES = ("columns.question=q", "columns.answer=number")


def said(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = main(arguments)
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize("form", [(), ("--preview", "seen.html")], ids=["shown", "preview"])
@pytest.mark.parametrize(
    ("task", "reason"),
    [("vqa_mix", "no column 'problem_type'"), ("counting", "columns.answer=NAME")],
)
def test_records_of_another_form_are_one_line(
    task: str, reason: str, form: tuple[str, ...], table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, error = said(["tasks", task, "--data", str(table), *form], capsys)
    assert code == 2 and error.count("\n") == 1
    assert reason in error and "train-1" in error and "mmrl data inspect" in error


def test_columns_are_mapped_wherever_a_task_is_looked_at(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["tasks", "counting", "--data", str(table), *NAMES]
    code, out, _ = said(asked, capsys)
    assert code == 0 and "How many?" in out and "gold: 0" in out
    page = tmp_path / "seen.html"
    assert said([*asked, "--preview", str(page)], capsys)[0] == 0
    assert "And now?" in page.read_text("utf-8")
    assert said([*asked, "--check"], capsys)[0] == 0


def test_a_part_without_weight_pays_junk_nothing(
    table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check = ["tasks", "counting", "--check", "--data", str(table), *NAMES, "params.think=none"]
    code, out, _ = said(check, capsys)
    assert code == 2 and "for 'format'" in out
    assert said([*check, "weights.format=0"], capsys)[0] == 0
    code, _, error = said([*check, "weights.frmat=0"], capsys)
    assert code == 2 and "has no reward part 'frmat'" in error


def test_a_weight_of_nothing_hides_no_other_part(
    table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check = ["tasks", "counting", "--check", "--data", str(table), *NAMES, "params.think=none"]
    code, out, _ = said([*check, "weights.accuracy=0"], capsys)
    assert code == 2 and "for 'format'" in out and "for 'accuracy'" not in out


def test_one_type_may_stand_for_all_records(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file in which no record says its `problem_type`; one that does keeps its own."""
    Image.new("RGB", (56, 56), "white").save(tmp_path / "a.png")
    turns = [{"from": "human", "value": "<image>Which?"}, {"from": "gpt", "value": "a dog"}]
    rows = [{"image": "a.png", "conversations": turns}]
    rows.append({**rows[0], "problem_type": "OCR"})
    (tmp_path / "a.json").write_text(json.dumps(rows))
    command = ["data", "inspect", str(tmp_path / "a.json"), "--task", "vqa_mix", "--json"]
    code, out, _ = said([*command, "params.problem_type=free-form"], capsys)
    assert code == 0
    assert [row["gold"]["kind"] for row in json.loads(out)["shown"]] == ["free-form", "OCR"]
    code, out, error = said([*command, "params.problem_type=freeform"], capsys)
    assert code == 2 and "free-form" in error


def test_options_of_an_algorithm_are_tried_on_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ratio e^1 of a right answer: clipped at 1.2 it has no gradient, without a clip it has one."""
    right = {"reward": 1.0, "logprobs": [-1.0], "old_logprobs": [-2.0]}
    wrong = {"reward": 0.0, "logprobs": [-1.0], "old_logprobs": [-1.0]}
    path = tmp_path / "case.json"
    path.write_text(json.dumps({"groups": [[right, wrong]]}))

    def gradient(*options: str) -> float:
        code, out, _ = said(["algorithms", "grpo", *options, "--case", str(path), "--json"], capsys)
        assert code == 0
        return float(json.loads(out)["gradient"][0][0][0])

    assert gradient() == 0.0
    assert gradient("objective.high=10") < 0.0
    code, out, _ = said(["algorithms", "grpo", "objective.name=cispo", "clip_low=0.1"], capsys)
    assert code == 0 and "Cispo" in out.replace("CISPO", "Cispo")
    code, _, error = said(["algorithms", "grpo", "objective.hihg=1"], capsys)
    assert code == 2 and "hihg" in error
    code, _, error = said(["algorithms", "objective.high=1"], capsys)
    assert code == 2 and error.count("\n") == 1
