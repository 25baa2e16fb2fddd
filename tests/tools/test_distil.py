"""A student reaches its teacher in a third of the steps, and the table says when."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "distil.py"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("distil", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["distil"] = module
    spec.loader.exec_module(module)
    return module


def made(folder: Path, steps: int, before: float, after: float, between: dict[int, float]) -> Path:
    folder.mkdir()
    result = {"before": before, "after": after, "steps": steps}
    (folder / "result.json").write_text(json.dumps(result))
    rows = ({"step": s, "eval/digit_count": v} for s, v in between.items())
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_the_table_has_a_row_a_step(tool: ModuleType, tmp_path: Path) -> None:
    teacher = made(tmp_path / "teacher", 22, 0.5, 0.9, {11: 0.7})
    student = made(tmp_path / "student-3", 11, 0.5, 0.89, {})
    assert tool.table(teacher, [student]).splitlines() == [
        "| step | GRPO, the teacher | `opd`, seed 3 |",
        "|---|---|---|",
        "| 0 | 50.0% | 50.0% |",
        "| 11 | 70.0% | 89.0% |",
        "| 22 | 90.0% |  |",
    ]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_students_reach_their_teacher_in_a_third_of_the_steps(
    tool: ModuleType, tmp_path: Path
) -> None:
    """By the mean of two seeds: 300 canvases are three points wide, and so is a seed."""
    teacher = tool.teach(tmp_path)
    students = [tool.distil(tmp_path, teacher, seed) for seed in (0, 1)]
    print(tool.table(teacher, students))
    taught, learnt = tool.curve(teacher), [tool.curve(student) for student in students]
    assert all(3 * max(each) <= max(taught) for each in learnt)
    mean = sum(each[max(each)] for each in learnt) / len(learnt)
    assert mean >= taught[max(taught)] - 0.02
