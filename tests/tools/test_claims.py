"""Claims: every file makes two runs of one paper, and the page says what their results say."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from mmrl.algorithms.compose import compose
from mmrl.config import RunConfig
from mmrl.papers.paper_files import find_papers
from mmrl.scoring.tasks import load_task
from mmrl.train.phases import phases_of
from mmrl.validation import validate

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import claims  # noqa: E402
from claims_measures import MEANS, measured  # noqa: E402
from claims_page import page, spread  # noqa: E402

NAMES = claims.names()


@pytest.mark.parametrize("name", NAMES)
def test_a_claim_is_two_runs_of_a_paper(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    claim = claims.read_claim(name)
    (paper,) = find_papers([claim.paper])
    assert paper.runs
    assert {m.name for m in (claim.metric, *claim.also)} <= MEANS.keys()
    made = [claims.sections(claim, arm) for arm in claims.ARMS]
    assert claims.fingerprint(made[0]) != claims.fingerprint(made[1])
    for values in made:
        for phase in phases_of(validate(RunConfig, values, name)):
            compose(phase.config.algorithm)
            for source in phase.config.data:
                load_task(source.task, source.params)
        start = values["model"]["path"].removeprefix(claims.START)
        assert start == "asset:tiny_qwen2_5_vl" or claims.ground_file(start).is_file()


def test_results_are_of_the_claims_as_they_are() -> None:
    results = claims.stored()
    assert results.keys() <= set(NAMES)
    for name, row in results.items():
        claim = claims.read_claim(name)
        assert row["settings"] == claims.settings(claim), f"run: python tools/claims.py {name}"
        assert len(row["system"]) == len(row["control"]) == len(row["seeds"]) >= 3
        held = True
        if claim.guard:
            held = claims.keeps(row["beside"][claim.guard.name], claim.guard.within)
        assert row["verdict"] == claims.judged(claim, row["system"], row["control"], held=held)


def test_the_page_is_true() -> None:
    made = page({name: claims.read_claim(name) for name in NAMES}, claims.stored())
    assert claims.PAGE.read_text(encoding="utf-8") == made, "run: python tools/claims.py --page"
    assert len(claims.stored()) >= 15


def test_a_verdict_needs_every_seed() -> None:
    assert claims.verdict([3, 5, 4], [2, 4, 3], "higher") == "shows"
    assert claims.verdict([3, 5, 4], [2, 4, 3], "lower") == "opposite"
    assert claims.verdict([3, 5, 2], [2, 4, 3], "higher") == "does not show"
    assert claims.verdict([3, 5, 4], [3, 4, 3], "higher") == "does not show"
    assert claims.verdict([1, 1, 1], [2, 2, 2], "lower", held=False) == "shows, at a cost"
    assert claims.verdict([3, 3, 3], [2, 2, 2], "lower", held=False) == "opposite"


def test_a_number_that_must_be_reached_is_asked_of_every_seed() -> None:
    claim = claims.read_claim("pixelthink")
    assert claim.beyond == 0 and claim.better == "higher"
    assert claims.judged(claim, [1, 2, 3], [0, -1, 2], held=True) == "shows"
    assert claims.judged(claim, [1, 2, -1], [0, -1, -2], held=True) == "does not show"
    assert claims.judged(claim, [-1, -1, -1], [0, 0, 0], held=True) == "opposite"


def test_what_must_not_fall_is_compared_by_medians() -> None:
    within = {"system": [0.5, 0.9, 0.86], "control": [0.9, 0.9, 0.1]}
    assert claims.keeps(within, 0.05) and not claims.keeps(within, 0.03)


def test_spreads_are_medians_with_their_ends() -> None:
    assert spread([0.5, 0.1234567, 0.25]) == "0.25 (0.123 to 0.5)"
    assert spread([2048.0, 2048.0]) == "2,048"


def test_sections_stand_over_the_ground_key_by_key() -> None:
    ground = {"a": {"b": 1, "c": 2}, "d": [1]}
    assert claims.over(ground, {"a": {"c": None}, "d": [2]}) == {"a": {"b": 1, "c": None}, "d": [2]}


def answer(length: int, metric: float) -> dict[str, Any]:
    return {"length": length, "metric": metric, "reward": metric}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two steps; an easy question with two variants in each, a hard one in the last."""
    easy = [answer(4, 1.0), answer(8, 1.0)]
    hard = [answer(20, 0.0), answer(30, 1.0)]
    groups = [
        {"step": 1, "id": "a", "gold": 1, "responses": easy},
        {"step": 1, "id": "a", "gold": 1, "responses": [answer(6, 0.0)]},
        {"step": 2, "id": "a", "gold": 2, "responses": easy},
        {"step": 2, "id": "b", "gold": 6, "responses": hard},
    ]
    steps = [
        {"step": 1, "train/grad_norm": 3.0, "train/entropy": 0.5, "train/clip_share": None},
        {"step": 2, "train/grad_norm": 1.0, "train/entropy": 0.1, "train/clip_share": 0.25},
    ]
    for name, rows in (("rollouts", groups), ("metrics", steps)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "result.json").write_text(json.dumps({"after": 0.75}))
    return tmp_path


def test_measures_by_hand(run: Path) -> None:
    assert measured(run, "accuracy") == 0.75
    assert measured(run, "train/entropy") == pytest.approx(0.3)
    assert measured(run, "train/entropy", 1) == pytest.approx(0.1)
    assert measured(run, "train/clip_share") == 0.25
    assert measured(run, "gradient_power") == pytest.approx(5.0)
    assert measured(run, "right_length") == pytest.approx((4 + 8 + 4 + 8 + 30) / 5)
    assert measured(run, "right_length", 1) == pytest.approx((4 + 8 + 30) / 3)
    assert measured(run, "wrong_length") == pytest.approx((6 + 20) / 2)
    assert measured(run, "longer_where_hard") == pytest.approx(25 - (4 + 8 + 6 + 4 + 8) / 5)
    # Variants count together: in the first step their rewards differ, in the second none do.
    assert measured(run, "without_signal") == pytest.approx(1 / 3)
