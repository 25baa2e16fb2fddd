"""The cost model finds the terms that made the times; the simulated schedule keeps its rules."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module


TERMS = {
    "rollout": {
        "overhead": 0.05,
        "patches": 2e-4,
        "prompt_tokens": 3e-4,
        "new_tokens": 5e-5,
        "decode_steps": 8e-3,
    },
    "update": {"overhead": 0.02, "patches": 4e-4, "trained_tokens": 6e-4},
}
SIZES = ((2, 4, 16, 300), (4, 8, 64, 300), (4, 8, 64, 1200), (8, 2, 32, 700), (1, 8, 128, 90))
SIZES += ((6, 6, 24, 2000), (3, 1, 200, 500))


def bench_file(tool: Any, folder: Path, number: int, noise: float) -> Path:
    """What bench_step.py would write where steps took exactly what the terms say."""
    prompts, group, new, tokens = SIZES[number]
    sample: dict[str, Any] = {
        "prompt_tokens": [tokens] * prompts,
        "work": {"tower_patches": 2 * prompts * (tokens - 30) * (3 + number % 2)},
        "rollout": 0.0,
        "update": 0.0,
    }
    report = {
        "workload": {"prompts": prompts, "group": group, "new_tokens": new},
        "samples": {"mmrl": [sample]},
    }
    file = folder / f"{number}.json"
    file.write_text(json.dumps(report))
    model = tool("cost_model")
    for stage, terms in TERMS.items():
        sample[stage] = model.predict(terms, model.read(file).work) * (1 + noise * (-1) ** number)
    file.write_text(json.dumps(report))
    return file


def test_the_cost_model_finds_the_terms(tool: Any, tmp_path: Path) -> None:
    model = tool("cost_model")
    measured = [model.read(bench_file(tool, tmp_path, i, 0.0)) for i in range(len(SIZES))]
    for stage, terms in TERMS.items():
        found = model.fit(measured, stage)
        assert found == pytest.approx(terms, rel=1e-6)
        assert max(map(abs, model.left_out(measured, stage).values())) < 1e-6


def test_a_file_left_out_is_not_fitted(
    tool: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tool("cost_model")
    files = [str(bench_file(tool, tmp_path, i, 0.05)) for i in range(len(SIZES))]
    monkeypatch.setattr(sys, "argv", ["cost_model.py", *files, "--out", str(tmp_path / "out.json")])
    assert model.main() == 0
    assert "worst error" in capsys.readouterr().out
    written = json.loads((tmp_path / "out.json").read_text())
    assert all(abs(e) > 0.01 for e in written["update"]["left_out_error"].values())
    monkeypatch.setattr(sys, "argv", ["cost_model.py", *files[:3]])
    assert model.main() == 2


@pytest.mark.parametrize(("rollout", "update"), [(3.0, 1.0), (1.0, 1.0), (1.0, 4.0)])
def test_overlap_of_even_steps_is_the_longer_stage(
    tool: Any, rollout: float, update: float
) -> None:
    simulate = tool("simulate_overlap")
    rollouts, updates = [rollout] * 20, [update] * 20
    assert simulate.step_seconds(rollouts, updates, 0) == pytest.approx(rollout + update)
    for staleness in (1, 2, 4):
        found = simulate.step_seconds(rollouts, updates, staleness)
        assert found == pytest.approx(max(rollout, update))


def test_no_batch_is_sampled_with_older_weights_than_allowed(tool: Any) -> None:
    simulate, rng = tool("simulate_overlap"), np.random.default_rng(0)
    rollouts, updates = rng.exponential(1.0, 60), rng.exponential(1.0, 60)
    before = np.inf
    for staleness in (0, 1, 2, 4):
        times = list(simulate.schedule(rollouts, updates, staleness))
        for n, (begun, sampled, start, _) in enumerate(times):
            assert start >= sampled
            if n:
                assert begun >= times[n - 1][1] and start >= times[n - 1][3]
            if n > staleness:
                assert begun >= times[n - 1 - staleness][3]
        assert times[-1][3] <= before  # more staleness never takes longer
        before = times[-1][3]


def test_decoding_costs_the_weights_each_step_and_a_cache_for_each_answer(tool: Any) -> None:
    simulate = tool("simulate_overlap")
    shape = simulate.shape_of("3B")
    cluster = simulate.Cluster(1e12, 1e15, 1e10, 1.0, 1.0, places=2)
    load = simulate.Load(shape, 4, 1, 0, 10.0, 0.0, 100)
    weights = shape.parameters * 2 / 1e12
    cache = shape.layers * 2 * shape.keys * 2 * 5.0 / 1e12
    # Two stand side by side: 10 and 30 tokens; the third, of 20, takes the first one's place.
    found = simulate._decode(load, cluster, np.array([10.0, 30.0, 20.0]))
    assert found == pytest.approx(30 * (weights + 2 * cache))
    alone = simulate.Cluster(1e12, 1e15, 1e10, 1.0, 1.0, places=1)
    assert simulate._decode(load, alone, np.array([10.0, 30.0])) == pytest.approx(
        40 * (weights + cache)
    )


@pytest.mark.slow
def test_the_document_has_the_tables_of_today(tool: Any) -> None:
    """`python tools/plan_table.py` prints them; a recipe that does not fit fails there."""
    planned = tool("plan_table")
    said = (TOOLS.parent / "docs" / "scaling.md").read_text()
    assert [line for line in (*planned.spreads(), *planned.recipes()) if line not in said] == []
