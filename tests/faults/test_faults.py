"""Some of the faults, drawn anew each time; all of them: `make faults`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.faults.kills import Bench, boundaries, killed
from tests.faults.mishaps import MISHAPS
from tests.faults.subjects import SUBJECTS, Subject, Traces, make_workspace
from tests.faults.table import PAGE, known, rows
from tests.faults.trapped import Zygote

ROOT = Path(__file__).resolve().parents[2]
QUICK = ("SIGTERM", "disk full in a checkpoint", "weights with a flipped bit", "a clock that jumps")
PAINS = re.findall(r"^\| .*::.* \| (?:held|partly: .*) \|$", PAGE.read_text("utf-8"), re.MULTILINE)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    zygote = Zygote()
    workspace = make_workspace(tmp_path_factory.mktemp("faults"))
    yield Bench(workspace, zygote, np.random.default_rng())
    zygote.close()


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.name)
def test_a_killed_run_goes_on_exactly(bench: Bench, subject: Subject) -> None:
    moment = boundaries(bench, subject, 8)[int(bench.rng.integers(8))]
    assert not killed(bench, subject, *moment), moment


def test_another_run_is_not_taken_for_the_same(bench: Bench) -> None:
    """The comparison sees one number in one tensor, and another sample."""
    traces, _ = bench.whole(SUBJECTS[0])
    name, weight = next(iter(traces.weights.items()))
    other = weight.clone()
    first = other.view(-1)[0]
    first.copy_(torch.nextafter(first, torch.tensor(9.0)))
    changed = Traces(**{**vars(traces), "weights": {**traces.weights, name: other}})
    assert traces.difference(changed) == f"weights {name}"
    elsewhere = [*traces.consumed[:-1], (traces.consumed[-1][0], ["another"])]
    assert traces.difference(Traces(**{**vars(traces), "consumed": elsewhere})) == "consumed"
    assert traces.difference(bench.whole(SUBJECTS[3])[0]) != ""


@pytest.mark.parametrize("name", QUICK)
def test_a_fault_ends_as_promised(bench: Bench, name: str) -> None:
    mishap, _ = MISHAPS[name]
    assert not mishap(bench)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(MISHAPS.keys() - set(QUICK)))
def test_every_fault_ends_as_promised(bench: Bench, name: str) -> None:
    mishap, _ = MISHAPS[name]
    assert not mishap(bench)


def test_the_page_shows_what_was_tried_last() -> None:
    outcomes = known()
    assert rows(outcomes) in PAGE.read_text("utf-8")
    assert all(outcome.right for outcome in outcomes)
    assert {outcome.fault for outcome in outcomes} >= MISHAPS.keys()
    assert sum(o.tried for o in outcomes if o.fault.startswith("kill -9")) >= 60


def test_every_trouble_names_tests_that_exist() -> None:
    assert len(PAINS) == 25
    for row in PAINS:
        for file, test in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row):
            assert f"def {test}(" in (ROOT / file).read_text("utf-8"), f"{file}::{test}"
