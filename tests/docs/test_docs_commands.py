"""Every command of the pages is run, every configuration in them is taken, or a reason stands by.

A block right below `<!-- not run: REASON -->` is passed over; below a line with a file's name and a
colon it is written into the page's folder; below `<!-- slow -->` it runs with the marker `slow`
only. The blocks of a page run in order, in one folder: an empty one, or a picture of the repository
for pages that say `<!-- in the repository -->`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from mmrl.algorithms.compose import compose
from mmrl.config import RunConfig
from mmrl.validation import validate
from tests.conftest import TINY
from tests.docs.docs_pages import ROOT, Block, blocks, pages

RUN = ("bash", "python")
SHOWN = ("text", "markdown", "{toctree}", "{eval-rst}")
KNOWN = (*RUN, *SHOWN, "yaml", "json", "toml")
LEFT_OUT = {".git", ".venv", "runs", "data"}
PAGES = [page for page in pages() if any(b.language in (*RUN, "yaml") for b in blocks(page))]
PIP = Path(__file__).with_name("pip_here.py")
COMMANDS = {"python": "", "mmrl": " -m mmrl.cli", "pip": f' "{PIP}"'}
"""What the words of a page call, after the interpreter of the test."""


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_every_block_is_run_or_says_why_not(page: Path) -> None:
    for block in blocks(page):
        assert block.language in KNOWN, f"{block}: language '{block.language}'"
        for note in block.notes:
            word, _, said = note.partition(":")
            known = word in ("slow", "file", "not run")
            assert known or block.language in SHOWN, f"{block}: note '{note}'"
            assert word not in ("file", "not run") or said.strip(), f"{block}: '{word}' of what?"
        if block.language in ("json", "toml"):
            assert block.note("file") or block.note("not run"), f"{block}: neither file nor excuse"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_quick_commands(page: Path, tmp_path: Path) -> None:
    _run_page(page, tmp_path, slow=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if any(b.note("slow") is not None for b in blocks(page))],
    ids=lambda page: page.name,
)
def test_all_commands(page: Path, tmp_path: Path) -> None:
    _run_page(page, tmp_path, slow=True)


def _run_page(page: Path, folder: Path, *, slow: bool) -> None:
    work, tools = folder / "work", folder / "bin"
    work.mkdir()
    if "<!-- in the repository -->" in page.read_text("utf-8"):
        for entry in sorted(ROOT.iterdir()):
            if entry.name not in LEFT_OUT:
                (work / entry.name).symlink_to(entry)
    environment = _environment(tools, work)
    for block in blocks(page):
        if block.note("not run") is not None or (block.note("slow") is not None and not slow):
            continue
        name = block.note("file")
        if name is not None:
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            (work / name).write_text(block.text, encoding="utf-8")
        elif block.language in RUN:
            _run(block, work, environment)
        elif block.language == "yaml":
            _take(block)


def _environment(tools: Path, work: Path) -> dict[str, str]:
    """`mmrl` and `python` are those of the test, `pip install .` goes into a folder of the page."""
    tools.mkdir()
    for name, command in COMMANDS.items():
        script = tools / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}"{command} "$@"\n')
        script.chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(tools / "installed"), str(work), str(ROOT)]),
        "INSTALLED": str(tools / "installed"),
        "OMP_NUM_THREADS": "1",
    }


def _run(block: Block, work: Path, environment: Mapping[str, str]) -> None:
    command = ["bash", "-euo", "pipefail", "-c"] if block.language == "bash" else [sys.executable]
    command += [block.text] if block.language == "bash" else ["-c", block.text]
    done = subprocess.run(
        command,
        cwd=work,
        env=dict(environment),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, f"{block}\n{block.text}\n{done.stdout}"


def _take(block: Block) -> None:
    """Validate a part of a configuration, put over the smallest whole one."""
    values: dict[str, Any] = {
        "run": "runs/page",
        "model": {"path": TINY},
        "data": {"task": "digit_count", "path": "train.jsonl"},
        "trainer": {"steps": 10},
    }
    part = yaml.safe_load(block.text)
    for name, section in part.items():
        whole = isinstance(values.get(name), dict) and isinstance(section, dict)
        values[name] = {**values[name], **section} if whole else section
    config = validate(RunConfig, values, str(block))
    compose(config.algorithm)
