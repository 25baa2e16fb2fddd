"""The configurations that ship: each loads, and reads what the recipe it names writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmrl import plugins
from mmrl.config import load_config
from mmrl.data.stream import build_missing
from mmrl.data_config import DataConfig, RecipeConfig
from mmrl.scoring.tasks import load_task, resolve_weights
from tests.recipes.raw import LAYOUTS
from tests.runs import run_files

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize("path", run_files(), ids=lambda p: str(p.relative_to(CONFIGS)))
def test_configurations_load_and_fit_their_recipe(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(CONFIGS.parent / "tools"))  # where rewards of `real` are
    config = load_config(path)
    made = {s.recipe.out: s.recipe.name for s in config.data if s.recipe is not None}
    for source in config.data:
        resolve_weights(load_task(source.task, source.params), source.weights)
        for records in filter(None, (source.path, source.eval_path)):
            makers = {made[out] for out in made if records.is_relative_to(out)}
            if not makers and path.parent.name in ("papers", "real"):
                continue  # a paper's own records, or those a tool makes: no recipe does
            (name,) = makers
            assert source.task in plugins.load("recipe", name).ABOUT.task.split(", ")
            assert records.suffix == ".jsonl"


def test_a_missing_file_is_made_by_its_recipe_out_of_the_raw_folder(tmp_path: Path) -> None:
    LAYOUTS["geometry3k"](tmp_path / "raw")
    out = tmp_path / "out"
    source = DataConfig(
        task="geometry3k",
        path=out / "train.jsonl",
        recipe=RecipeConfig(name="geometry3k", source=tmp_path / "raw", out=out),
    )
    assert build_missing(source)
    assert source.path.is_file()
    assert not build_missing(source)
