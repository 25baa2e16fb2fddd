"""`docs/algorithms.md` says what the code does: its examples run, its names are all of them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from mmrl.algorithms.compose import compose
from mmrl.algorithms.stages.credit import CREDITS
from mmrl.algorithms.stages.editors import EDITORS
from mmrl.algorithms.stages.refiners import REFINERS
from mmrl.algorithms.stages.shapers import SHAPERS
from mmrl.objectives.named import OBJECTIVES
from mmrl.train.algorithm_case import evaluate_case

TEXT = (Path(__file__).parents[2] / "docs" / "algorithms.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)
    assert found
    return found[1]


def test_examples_run() -> None:
    algorithm = compose(yaml.safe_load(block("yaml"))["algorithm"])
    assert len(algorithm.shape) == 2 and algorithm.kl is not None
    assert evaluate_case("grpo", json.loads(block("json")))["loss"] < 0


@pytest.mark.parametrize(
    ("stage", "table"),
    [
        ("shape", SHAPERS),
        ("edit", EDITORS),
        ("credit", CREDITS),
        ("refine", REFINERS),
        ("objective", OBJECTIVES),
    ],
)
def test_every_name_is_listed(stage: str, table: dict[str, object]) -> None:
    row = next(line for line in TEXT.split("\n") if line.startswith(f"| `{stage}` |"))
    assert set(re.findall(r"`(\w+)`", row.split("|")[3])) == set(table)
