"""An objective that reads more than advantages goes with the credit that gives it, and no other."""

from __future__ import annotations

import pytest

from mmrl import plugins
from mmrl.algorithms.compose import compose
from mmrl.errors import UserError
from mmrl.objectives.named import OBJECTIVES

READERS = sorted(name for name, objective in OBJECTIVES.items() if objective.reads)


def test_there_are_such_objectives() -> None:
    assert {"wpo", "kto", "modpo", "bmc", "dmpo", "hypo", "gr_dpo", "mdpo"} <= set(READERS)


@pytest.mark.parametrize("name", READERS)
def test_grpo_does_not_give_what_it_reads(name: str) -> None:
    with pytest.raises(UserError, match=r"reads .*, which its credit does not give"):
        compose({"name": "grpo", "objective": name})


@pytest.mark.parametrize("name", sorted(plugins.available("algorithm")))
def test_every_algorithm_gives_what_its_objective_reads(name: str) -> None:
    algorithm = compose({"name": name})
    given = getattr(algorithm.credit, "gives", "")
    assert given == algorithm.objective.reads or not algorithm.objective.reads
    assert not given or given == algorithm.objective.reads
