"""The configurations that ship: each loads, and reads what the recipe it names writes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mmrl import plugins
from mmrl.config import load_config
from mmrl.tasking import load_task, resolve_weights

CONFIGS = Path(__file__).parents[2] / "configs"
_MADE_BY = re.compile(r"mmrl data (\w+) --in RAW --out (\S+)")


@pytest.mark.parametrize(
    "path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda p: str(p.relative_to(CONFIGS))
)
def test_configurations_load_and_fit_their_recipe(path: Path) -> None:
    config = load_config(path)
    outs = {out: name for name, out in _MADE_BY.findall(path.read_text())}
    made = [source.recipe.out for source in config.data if source.recipe is not None]
    for source in config.data:
        task = load_task(source.task, source.params)
        resolve_weights(task, source.weights)
        if any(source.path.is_relative_to(out) for out in made):
            continue
        name = outs[str(source.path.parent)]
        assert plugins.load("recipe", name).ABOUT.task == source.task
        assert source.path.suffix == ".jsonl"
