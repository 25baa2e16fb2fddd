"""The wheel, built through the sdist, holds tasks, recipes and their data, and only `mmrl`."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names of the files in the wheel."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = out.glob("*.whl")
    assert wheel.stat().st_size < 20 * 2**20
    return set(zipfile.ZipFile(wheel).namelist())


def test_nothing_but_mmrl_at_the_top(names: set[str]) -> None:
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"mmrl"}


@pytest.mark.parametrize("folder", ["tasks", "data_recipes"])
def test_linked_folders_are_inside(names: set[str], folder: str) -> None:
    kinds = {".py", ".md", ".jsonl", ".png"}
    for path in (ROOT / folder).rglob("*"):
        if path.suffix in kinds and path.is_file():
            assert f"mmrl/{folder}/{path.relative_to(ROOT / folder).as_posix()}" in names


def test_assets_and_templates_are_inside(names: set[str]) -> None:
    for folder in ("assets", "report/templates"):
        for path in (ROOT / "mmrl" / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert f"mmrl/{path.relative_to(ROOT / 'mmrl').as_posix()}" in names
    assert "mmrl/py.typed" in names
