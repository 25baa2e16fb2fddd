"""The tool that learns pages: words, settings, table; slow: from records to document."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from mmrl.algorithms.compose import compose
from mmrl.config import RunConfig
from mmrl.data_recipes.web_pages import known_pages
from mmrl.environments.devtools import browser_path
from mmrl.errors import UserError
from mmrl.frame import Frame
from mmrl.scoring.tasks import example_answer, fixture_path, load_task
from mmrl.types import Media, Text
from mmrl.validation import validate

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    sys.path.insert(0, str(ROOT / "tools"))
    import learn_pages

    return learn_pages


def row(name: str, seed: int, after: float, blind: float | None) -> dict[str, Any]:
    figures = {"before": 0.4, "after": after, "blind": blind, "seconds": 61.4}
    return {"page": "a", "algorithm": name, "seed": seed, **figures}


def test_every_run_has_a_line_and_every_algorithm_its_mean(tool: ModuleType) -> None:
    runs = [row("grpo", 0, 0.5, 0.25), row("grpo", 1, 0.75, None), row("arpo", 0, 1.0, 0.0)]
    _, rule, *lines = tool.table(runs).splitlines()
    assert [line.count("|") for line in (rule, *lines)] == [8] * 6
    assert lines[:3] == [
        "| a | grpo | 0 | 40.0% | 50.0% | 25.0% | 61 |",
        "| a | grpo | 1 | 40.0% | 75.0% |  | 61 |",
        "| **a** | **grpo** | mean | 40.0% | 62.5% |  | 61 |",
    ]
    assert lines[3] == "| a | arpo | 0 | 40.0% | 100.0% | 0.0% | 61 |"


def test_a_document_gets_the_table_between_its_marks_alone(tool: ModuleType) -> None:
    document = f"one\n{tool.BEGIN}\nold\n{tool.END}\ntwo\n"
    made = tool.written(document, "new")
    assert made == f"one\n{tool.BEGIN}\nnew\n{tool.END}\ntwo\n" == tool.written(made, "new")
    with pytest.raises(SystemExit, match="no <!-- pages learnt -->"):
        tool.written("one\ntwo\n", "new")
    tool.written((ROOT / "docs" / "episodes.md").read_text(encoding="utf-8"), "new")


def test_the_settings_are_those_of_a_run_and_one_page_takes_turns(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(tool, "train", lambda values: asked.append(values) or {})
    for name in tool.ALGORITHMS:
        tool.learn(tmp_path / "name_colours", tmp_path / name, tmp_path, name, 1, 5)
    for values in asked:
        made = validate(RunConfig, values, "test")
        assert compose(made.algorithm).name == made.algorithm_name
        assert made.data[0].eval_path == tmp_path / "name_colours" / "test.jsonl"
    assert {values["algorithm"]["name"] for values in asked} == {"grpo", "gigpo", "arpo"}
    assert set(tool.PAGES) <= set(known_pages()) and tool.TURNS > 2


def test_what_pages_ask_is_whole_words_and_an_answer_fits_its_turn(
    tool: ModuleType, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    folder = tmp_path / "name_colours"
    folder.mkdir()
    shutil.copy(fixture_path("web_page"), folder / "train.jsonl")
    shutil.copytree(fixture_path("web_page").parent / "screens", folder / "screens")
    made = tool.untrained(tmp_path, [folder])
    tokens = AutoTokenizer.from_pretrained(made)
    task = load_task("web_page")
    for sample in map(task.ask, task.records(folder / "train.jsonl")):
        (question,) = (part.text for part in sample.parts if isinstance(part, Text))
        assert len(tokens(question)["input_ids"]) < 400
        target = task.target(sample, example_answer(sample))
        assert len(tokens(target)["input_ids"]) < tool.WRITTEN
    assert tool.untrained(tmp_path, []) == made, "it is built once"


def test_a_blank_screen_shows_nothing_and_is_one_medium(tool: ModuleType) -> None:
    rng = np.random.default_rng(0)
    screens = [
        Media("screenshot", rng.integers(0, 255, (8, 8, 3), dtype=np.uint8), Frame(), f"{i}")
        for i in (0, 1)
    ]
    one, other = map(tool.blank, screens)
    assert (one.array == 255).all() and one.array.shape == (8, 8, 3)
    assert one.hash == other.hash and one.hash not in "01"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_one_step_of_each_algorithm_from_records_to_table(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        browser_path()
    except UserError:
        pytest.skip("no browser on this machine")
    monkeypatch.setattr(tool, "PAGES", dict.fromkeys(tool.PAGES, tool.Start(0.0, 1.0)))
    monkeypatch.setattr(tool, "EVERY", 1)
    monkeypatch.setattr(tool, "SIZES", {"train": 6, "validation": 2, "test": 2})
    document = tmp_path / "page.md"
    document.write_text(f"{tool.BEGIN}\n{tool.END}\n")
    flags = ["--out", str(tmp_path), "--steps", "1", "--seeds", "0", "--write", str(document)]
    monkeypatch.setattr(sys, "argv", ["learn_pages.py", *flags])
    tool.main()
    first = document.read_text()
    assert len(first.splitlines()) == 2 + 2 + 2 * 2 * 3
    runs = [path.stat().st_mtime_ns for path in sorted(tmp_path.glob("*/result.json"))]
    tool.main()
    assert document.read_text() == first
    assert runs == [path.stat().st_mtime_ns for path in sorted(tmp_path.glob("*/result.json"))]
