"""The figures of vLLM's parity are complete, small enough, and those of the page."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.engines.models import MODELS, tolerance
from tests.families.cases import cases

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("vllm_parity", ROOT / "tools" / "vllm_parity.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_every_question_to_a_measured_model_has_a_figure_below_the_limit(tool: ModuleType) -> None:
    figures = tool.stored()
    assert len(figures) >= 8
    for name, gaps in figures.items():
        assert set(gaps) == set(cases(MODELS[name])), name
        assert max(gaps.values()) < tolerance(name), name


def test_every_question_has_a_column(tool: ModuleType) -> None:
    shown = {label for labels in tool.COLUMNS.values() for label in labels}
    assert {label for kinds in MODELS.values() for label in cases(kinds)} <= shown


def test_the_page_shows_the_figures(tool: ModuleType) -> None:
    page = tool.PAGE.read_text("utf-8")
    assert page == tool.with_table(page, tool.stored()), "run: python tools/vllm_parity.py --page"
