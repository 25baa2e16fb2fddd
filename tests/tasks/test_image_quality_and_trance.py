"""Image quality (three kinds of record, correlations) and transformation sequences."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest

from mmrl.rewards.correlation import pearson, spearman
from mmrl.scoring.tasks import load_task
from mmrl.tasks.image_quality.task import Comparison, Degradation, Rating
from mmrl.tasks.trance.reward import Change, parse_changes, set_score
from tests.grading import asked, graded, reward

GOLD = (Change("c", "0", "red"), Change("s", "1", "big"))


def tagged(text: str) -> str:
    return f"<think>hm</think> <answer>{text}</answer>"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"rating": 3.8}', 2.0), ('{"rating": 3.84}', 2.0), ('{"rating": 3.86}', 1.0),
        ('{"rating": 3.5}', 2.0), ('{"rating": "3.5"}', 1.0), ('{"rating": NaN}', 1.0),
        ('{"rating": 1e400}', 1.0), ("3.5", 1.0), ('{"rating": 3.5, "rating": 3.5}', 1.0),
        ('{"rating": [3.5]}', 1.0), ('{"rating": true}', 1.0), ("", 0.0),
        ('{"rating": 3.5} {"rating": 1}', 1.0),
    ],
)  # fmt: skip
def test_rating(text: str, expected: float) -> None:
    assert reward("image_quality", Rating(3.5), tagged(text)) == expected


def test_a_rating_stays_on_the_scale() -> None:
    for text in ('{"rating": 0.99}', '{"rating": 5.01}', '{"rating": -3}'):
        assert graded("image_quality", Rating(1.0), tagged(text)).status == "malformed"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"distortion_class": "blur", "severity": "slight"}', 1.0),
        ('{"distortion_class": "blur", "severity": "serious"}', 0.25),
        ('{"distortion_class": "noise", "severity": "slight"}', 0.0),
        ('{"distortion_class": "blur", "severity": null}', 0.25),
        ('{"distortion_class": "blur"}', 0.0),
        ('{"distortion_class": ["blur", "noise"], "severity": "slight"}', 0.0),
        ('{"distortion_class": "blurry", "severity": "slight"}', 0.0),
    ],
)
def test_degradation(text: str, expected: float) -> None:
    score = graded("image_quality", Degradation("blur", "slight"), tagged(text))
    assert (score.parts["accuracy"], score.metric) == (expected, float(expected == 1.0))


def test_clean_pictures_and_comparisons() -> None:
    clean = Degradation("null", "null")
    for text in (
        '{"distortion_class": "null", "severity": "null"}',
        '{"distortion_class": null, "severity": null}',
    ):
        assert reward("image_quality", clean, tagged(text)) == 2.0
    better = Comparison("Image A")
    assert reward("image_quality", better, tagged("image a")) == 2.0
    for text in ("Image B", "Image A or Image B", "A", "Image A is better", ""):
        assert graded("image_quality", better, tagged(text)).parts["accuracy"] == 0.0


def test_records_are_typed_by_their_columns() -> None:
    assert asked("image_quality", {"gt_score_norm": 3.5}).gold == Rating(3.5)
    pair = {"ref_image": "r.png", "ImageA": "a.png", "ImageB": "b.png"}
    assert len(asked("image_quality", {**pair, "result": "Similar"}).parts) == 4
    for fields in ({"gt_score_norm": 0.5}, {"gt_score_norm": "3"}, {**pair, "result": "A"},
                   {"distortion_class": "rain", "severity": "slight"}):  # fmt: skip
        with pytest.raises(ValueError, match=r"gold|result"):
            asked("image_quality", fields)


def test_correlations_equal_scipys() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = random.Random(0)
    for _ in range(50):
        n = rng.randint(3, 40)
        a = [round(rng.gauss(3, 1), rng.choice([0, 2])) for _ in range(n)]
        b = [x + round(rng.gauss(0, 1), 1) for x in a]
        if len(set(a)) > 1 and len(set(b)) > 1:
            assert pearson(a, b) == pytest.approx(stats.pearsonr(a, b)[0])
            assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b)[0])
    assert pearson([3, 3, 3], [1, 2, 3]) == spearman([1], [1]) == 0.0


def test_agreement_over_the_set() -> None:
    task = load_task("image_quality")
    ratings = [(2.0, 1.5), (3.0, 3.5), (4.0, 4.5), (5.0, 4.9)]
    metas: list[dict[str, Any]] = []
    for true, said in ratings:
        score = graded("image_quality", Rating(true), tagged(f'{{"rating": {said}}}'))
        metas.append({"kind": "rating", "true_rating": true, **score.evidence})
    golds, said_all = [t for t, _ in ratings], [s for _, s in ratings]
    values = [0.0, 0.0, 0.0, 1.0]
    expected = (pearson(said_all, golds) + 1.0) / 2
    assert task.aggregate(values, metas) == pytest.approx(expected)
    # No rating is the far end of the scale, so silence never helps.
    silent = [*metas[:3], {"kind": "rating", "true_rating": 5.0}]
    assert task.breakdown(values, silent)["srcc"] == pytest.approx(
        spearman([*said_all[:3], 1.0], golds)
    )
    mixed = [*metas, {"kind": "comparison"}, {"kind": "comparison"}]
    both = task.aggregate([*values, 1.0, 0.0], mixed)
    assert both == pytest.approx((expected + 0.5) / 2)
    assert task.breakdown([*values, 1.0, 0.0], mixed)["within_tolerance"] == 0.25


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("c(0,'red'), s(1,'big')", 1.0),
        ("s(1,'big'); c(0,'red')", 1.0),
        ("c(0,'blue'), s(1,'big')", 0.75),
        ("c(0,'red'), c(0,'red')", 0.25),
        ("c(5,'red'), s(1,'big')", 0.75),
        ("c(5,'blue'), s(1,'big')", 0.625),
        ("c(0,'red')", 0.5),
        ("x(0,'red')", 0.0),
        ("c(0,'red'), s(1,'big'), x(1,'y'), z(1,'y')", 0.5),
    ],
)
def test_trance_graded(text: str, expected: float) -> None:
    assert graded("trance", GOLD, tagged(text)).parts["accuracy"] == pytest.approx(expected)


def test_trance_metric_forgives_repetition_and_code_forgives_prose() -> None:
    repeated = graded("trance", GOLD, tagged("c(0,'red'), c(0,'red')"))
    assert (repeated.parts["accuracy"], repeated.metric) == (0.25, 0.5)
    prose = tagged("First c(0,'red') and then s(1,'big').")
    assert graded("trance", GOLD, prose).status == "malformed"
    assert graded("trance", GOLD, prose, variant="code").parts["accuracy"] == 1.0


def test_trance_matchings() -> None:
    half = tagged("c(0,'blue'), s(1,'big')")
    assert graded("trance", GOLD, half, matching="full").parts["accuracy"] == 0.5
    assert graded("trance", GOLD, half, matching="penalty").parts["accuracy"] == 0.375
    wrong = tagged("c(7,'blue'), s(7,'small')")
    assert graded("trance", GOLD, wrong, matching="penalty").parts["accuracy"] == -0.5
    assert load_task("trance", {"matching": "penalty"}).parts["accuracy"].low == -0.5
    assert load_task("trance").parts["accuracy"].low == 0.0


def test_trance_reads_nothing_but_calls() -> None:
    assert parse_changes("c(0, 'a')\ns(1, \"b\")").value == (
        Change("c", "0", "a"),
        Change("s", "1", "b"),
    )
    for text in ("c(0,'a') s(1,'b')", "c(0)", "c(0,1,2)", "c((0),1)", "c(0,'a'", "c" * 5000):
        assert parse_changes(text).status == "malformed", text
    assert parse_changes(",".join(["c(0,'a')"] * 65)).status == "malformed"
    assert set_score((), GOLD) == 0.0
    started = time.process_time()
    for unit in ("c(", "c( ", "c(0,", "_", "c(0,'a') "):
        graded("trance", GOLD, tagged(unit * (4_000 // len(unit))), variant="code")
        parse_changes(unit * (500_000 // len(unit)))
    assert time.process_time() - started < 2.0
    with pytest.raises(ValueError, match="no list of calls"):
        asked("trance", {"problem": "?", "solution": "nothing changed"})
