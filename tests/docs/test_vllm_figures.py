"""The figures of vLLM's parity are complete, small enough, and those of the page."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.engines.models import MODELS, NOT_SERVED, TOLERANCE, tiny_name
from tests.families.cases import cases
from tests.families.tiny import TINY

ROOT = Path(__file__).parents[2]
FAMILIES = 10  # that are promised to be aligned with vLLM


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
    assert set(figures) == set(MODELS), "run: python tools/vllm_parity.py MODEL"
    assert len({TINY[tiny_name(name)].family for name in figures}) >= FAMILIES
    for name, gaps in figures.items():
        assert set(gaps) == set(cases(MODELS[name])), name
        assert max(gaps.values()) < TOLERANCE, name


def test_every_question_has_a_column(tool: ModuleType) -> None:
    shown = {label for labels in tool.COLUMNS.values() for label in labels}
    assert {label for kinds in MODELS.values() for label in cases(kinds)} <= shown


def test_the_page_shows_the_figures(tool: ModuleType) -> None:
    page = tool.PAGE.read_text("utf-8")
    assert page == tool.with_table(page, tool.stored()), "run: python tools/vllm_parity.py --page"


def test_a_row_says_what_is_not_shown_apart_from_what_is_not_there(tool: ModuleType) -> None:
    gaps = {"text": 1e-6, "image": 2e-6, "two image": 4e-6}
    some = "`internvl` 1.0e-06 2.0e-06 **no** - 4.0e-06 **no** -"
    assert tool.row("internvl", gaps) == tuple(some.split())
    none = "`gemma3` **no** **no** - - **no** - -"
    assert tool.row("gemma3", {}) == tuple(none.split())


def test_every_no_has_its_reason(tool: ModuleType) -> None:
    explained = {name for name, _ in NOT_SERVED}
    for name in (*MODELS, *tool.UNMEASURED):
        if "**no**" in tool.row(name, tool.stored().get(name, {})):
            assert tiny_name(name) in explained, name
