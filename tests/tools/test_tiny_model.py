"""Where the supervised phase of the shipped start is stopped."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "make_tiny_model.py"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_tiny_model", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows(*evaluated: tuple[int, float, float]) -> list[dict[str, float]]:
    unevaluated = {"step": 1, "reward/mean": 1.0}
    return [unevaluated, *({"step": s, "eval/a": a, "eval/b": b} for s, a, b in evaluated)]


def test_the_first_step_at_which_every_task_has_reached_its_floor(tool: ModuleType) -> None:
    found = rows((20, 0.5, 0.1), (40, 0.3, 0.9), (60, 0.4, 0.2), (80, 0.9, 0.9))
    assert tool.first_ready(found, {"a": 0.4, "b": 0.2}) == 60
    assert tool.first_ready(found, {"a": 0.95, "b": 0.2}) is None
