"""The reference of the configuration is what the models say; every key is explained."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def reference() -> ModuleType:
    path = ROOT / "tools" / "config_reference.py"
    spec = importlib.util.spec_from_file_location("config_reference", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_todays(reference: ModuleType) -> None:
    written = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert written == reference.page(), (
        "python tools/config_reference.py --write docs/configuration.md"
    )


def test_every_key_says_what_it_means(reference: ModuleType) -> None:
    rows = [line for line in reference.page().splitlines() if line.startswith("| `")]
    silent = [row for row in rows if row.endswith("|  |") and "[a section](#" not in row]
    assert rows and not silent


def test_no_value_is_left_unexplained(reference: ModuleType) -> None:
    assert "see there" not in reference.page()
