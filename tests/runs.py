"""Small real runs for tests: the shipped tiny model on freshly made digits."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import yaml

from mmrl.papers.paper_files import all_papers
from tests.conftest import TINY

WARM_UP = {
    "name": "warm-up",
    "algorithm": {"name": "sft"},
    "rollout": {"engine": "targets"},
    "optimizer": {"learning_rate": 2e-3},
    "trainer": {"steps": 10, "prompts_per_step": 6},
}
"""A phase after which turns end, so that episodes have some."""


def make_digits(out: Path, *, train: int = 40, test: int = 8) -> Path:
    """Build small digit data sets under `out`."""
    importlib.import_module("mmrl.data_recipes.digits").build(
        None, out, train=train, validation=4, test=test
    )
    return out


def run_config(folder: Path, digits: Path, **sections: Any) -> dict[str, Any]:
    """A configuration of a few fast steps; keyword arguments update its sections."""
    config: dict[str, Any] = {
        "run": str(folder),
        "model": {"path": TINY},
        "data": {
            "task": "digit_count",
            "path": str(digits / "digit_count" / "train.jsonl"),
            "eval_path": str(digits / "digit_count" / "test.jsonl"),
        },
        "algorithm": {"name": "grpo", "group_size": 4},
        # On a busy machine a scorer may not get its turn for a while.
        "rollout": {"max_new_tokens": 8, "scoring_workers": 1, "scoring_timeout_seconds": 300},
        "optimizer": {"learning_rate": 1e-4},
        "trainer": {"steps": 3, "prompts_per_step": 3},
    }
    for name, values in sections.items():
        section = config[name]
        config[name] = {**section, **values} if isinstance(section, dict) else values
    return config


def write_config(path: Path, config: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(config))
    return path


def run_files() -> list[Path]:
    """The shipped configurations, without claims and papers that only say why nothing runs."""
    configs = Path(__file__).parents[1] / "configs"
    silent = {paper.path.name for paper in all_papers() if not paper.runs}
    files = sorted(f for f in configs.rglob("*.yaml") if "claims" not in f.parts)
    return [f for f in files if f.parent.name != "papers" or f.name not in silent]
