"""`mmrl tasks`, `mmrl score`: what a task's author sees, and that the check can fail."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from mmrl import task as contract
from mmrl.cli import main
from mmrl.errors import UserError
from mmrl.evaluate.score_file import score_file
from mmrl.scoring.check import check
from mmrl.scoring.tasks import example_answer, fixture_path, load_task
from mmrl.task import RewardPart, Task
from mmrl.types import Answer, Record, Sample, Score, Text


@dataclass(frozen=True)
class Careless(contract.Task):
    """Counts an answer as right if it holds the gold, or is part of it."""

    target_text: str | None = "7"
    name: ClassVar[str] = "careless"
    summary: ClassVar[str] = "a task to be found out"
    parts: ClassVar[Mapping[str, RewardPart]] = {"accuracy": RewardPart(0.0, 1.0)}
    metric: ClassVar[str] = "accuracy"

    def sample(self, record: Record) -> Sample:
        if "answer" not in record.fields:
            raise ValueError("no answer")
        return Sample(record.id, self.name, (Text("3 + 4?"),), "7", target=self.target_text)

    def score(self, gold: Any, answer: Answer) -> Score:
        right = float(gold in answer.text or answer.text in gold)
        return Score({"accuracy": right}, right)


def problems(task: Task, tmp_path: Path, **fields: Any) -> str:
    (tmp_path / "r.jsonl").write_text(json.dumps({"id": "r", **fields}) + "\n")
    return "\n".join(check(task, tmp_path / "r.jsonl").problems)


def test_a_careless_task_is_found_out(tmp_path: Path) -> None:
    found = problems(Careless(), tmp_path, answer=1)
    assert "'' (0 characters) earns 1 for 'accuracy'" in found
    assert r"'7\n7' (3 characters) earns 1" in found


class Credulous(Careless):
    """Believes an answer that says it is right, and any list that holds the gold."""

    def score(self, gold: Any, answer: Answer) -> Score:
        listed = re.split(r"[<>, {}]+", answer.text)
        right = float(gold in listed or "reward 1.0" in answer.text or "1e308" in listed)
        return Score({"accuracy": right}, right)


def test_hedges_huge_numbers_and_injected_verdicts_are_tried(tmp_path: Path) -> None:
    found = problems(Credulous(), tmp_path, answer=1)
    for text in (
        "'<answer>0, 1, 2", r"'\\boxed{0, 1, 2", "'<answer>0</answer><answer>1<", "'<!-- system:",
        "'<answer><!-- system", "'<answer>1e308<", "'<answer>-1e308<",
    ):  # fmt: skip
        assert (text in found) == (text != "'<answer>-1e308<"), text


def test_a_slow_answer_is_found_unless_only_its_first_time_was_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("mmrl.scoring.check.time.process_time", lambda: clock[0])

    class Importing(Careless):
        def score(self, gold: Any, answer: Answer) -> Score:
            nonlocal costly
            clock[0] += 3.0 if answer.text == "null" and costly else 0.0
            costly = costly and (always or answer.text != "null")
            return Score({"accuracy": float(gold == answer.text)}, 0.0)

    for always in (True, False):
        costly = True
        assert (
            "'null' (4 characters) took 3.0 s" in problems(Importing(), tmp_path, answer=1)
        ) == always


def test_a_gold_that_does_not_pay_is_found(tmp_path: Path) -> None:
    assert "the gold earns 0 of 1" in problems(Careless("eight"), tmp_path, answer=1)
    assert "no target" in problems(Careless(None), tmp_path, answer=1)
    assert "r: cannot be asked: no answer" in problems(Careless(), tmp_path)


def test_the_command_checks_and_fails(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["tasks", "intent", "--check", "--limit", "2"]) == 0
    assert "2 records" in capsys.readouterr().out
    data = tmp_path / "r.jsonl"
    data.write_text('{"id": "1", "utterance": "x"}\n')
    assert main(["tasks", "intent", "--check", "--data", str(data)]) == 2
    out, err = capsys.readouterr()
    assert "cannot be asked" in out and "1 problems" in err


def test_tasks_are_listed_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tasks", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["crowd_counting"]["better"] == "lower"
    assert rows["mmmu"]["official"] == {"extractor": "official"}
    part = {"low": 0.0, "high": 1.0, "weight": 1.0, "optional": False}
    assert rows["chart_qa"]["parts"]["accuracy"] == part


def test_one_task_is_shown_with_its_choices(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tasks", "mmmu", "params.extractor=official"]) == 0
    assert "extractor = 'official'  (or strict)" in capsys.readouterr().out


def test_the_preview_draws_the_right_answer_over_the_picture(tmp_path: Path) -> None:
    out = tmp_path / "p.html"
    assert main(["tasks", "referring_box", "--preview", str(out)]) == 0
    page = out.read_text()
    assert page.count("data:image/jpeg;base64,") == page.count('class="box n0"') == 5
    assert page.count('class="box n1"') == 5, "the right answer; junk has no place"
    assert main(["tasks", "mathvista", "--preview", str(out)]) == 0
    assert "<path" not in out.read_text()


def score(tmp_path: Path, *lines: dict[str, Any], **options: Any) -> Any:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    task = options.pop("task", "intent")
    return score_file(task, fixture_path(task), tmp_path / "a.jsonl", workers=1, **options)


def test_answers_of_a_file_are_scored_in_order(tmp_path: Path) -> None:
    task = load_task("intent")
    samples = [task.sample(record) for record in task.records(fixture_path("intent"))]
    lines = [{"id": s.id, "answer": s.target} for s in samples[1:]]
    lines[-1]["answer"] = "no tags"
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    flags = ["--answers", str(tmp_path / "a.jsonl"), "--out", str(tmp_path / "s.jsonl")]
    assert main(["score", "intent", *flags]) == 0
    rows = [json.loads(line) for line in (tmp_path / "s.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == [line["id"] for line in lines]
    assert all(set(row) == {"id", "status", "parts", "reward", "metric"} for row in rows)
    assert [row["metric"] for row in rows] == [1.0] * (len(rows) - 1) + [0.0]
    found = score(tmp_path, *lines)
    assert found.unanswered == [samples[0].id]
    assert found.evaluation.metric == pytest.approx((len(lines) - 1) / len(samples))


def test_a_record_that_cannot_be_asked_stops_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records, answers, out = (tmp_path / f"{name}.jsonl" for name in ("r", "a", "s"))
    row = {"problem": "q", "image": "a.png"}
    rows = [
        {"id": "good", "problem_type": "numerical", "solution": "1/2", **row},
        {"id": "bad", "problem_type": "numerical", "solution": "a half", **row},
    ]
    lines = [
        {"id": name, "answer": "<think></think><answer>0.5</answer>"} for name in ("bad", "good")
    ]
    for path, content in ((records, rows), (answers, lines)):
        path.write_text("".join(json.dumps(line) + "\n" for line in content))
    flags = ["--data", str(records), "--answers", str(answers), "--out", str(out)]
    assert main(["score", "vqa_mix", *flags]) == 0
    shown = capsys.readouterr()
    assert "record 'bad' cannot be asked" in shown.err and "1 more rejected" in shown.out
    bad, good = (json.loads(line) for line in out.read_text().splitlines())
    assert (bad["id"], bad["status"], bad["metric"]) == ("bad", "unscorable", None)
    assert (good["id"], good["status"], good["metric"]) == ("good", "ok", 1.0)


def test_coordinates_of_a_file_are_in_the_space_that_is_named(tmp_path: Path) -> None:
    task = load_task("referring_box")
    sample = task.sample(next(iter(task.records(fixture_path("referring_box")))))
    x0, y0, x1, y1 = sample.gold[0]
    width, height = example_answer(sample).frames[0].source_size
    unit = [x0 / width, y0 / height, x1 / width, y1 / height]
    line = {"id": sample.id, "answer": f"<think></think><answer>{unit}</answer>"}
    ((_, found),) = score(tmp_path, line, task="referring_box", space="unit").scores
    assert found.parts["iou"] == pytest.approx(1.0, abs=1e-3)
    ((_, found),) = score(tmp_path, line, task="referring_box").scores
    assert found.parts["iou"] < 0.1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"id": "nobody", "answer": ""}, "no record has the id 'nobody'"),
        ({"answer": ""}, "a line is"),
        ({"id": "nobody", "answer": 3}, "the answer is no text"),
    ],
)
def test_mistakes_in_the_answers_are_told(
    line: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        score(tmp_path, line)
