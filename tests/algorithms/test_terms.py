"""Reward terms by the name a config uses: worked numbers, and what is left out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mmrl.algorithms.compose import compose
from mmrl.algorithms.stages.length_terms import LENGTH_TERMS
from mmrl.algorithms.stages.text_terms import TEXT_TERMS
from mmrl.errors import UserError
from mmrl.train.algorithm_case import evaluate_case
from tests.algorithms.cases import evaluate


def shaped(
    name: str, lengths: list[int], scores: list[float | None], limit: int = 1_024, **options: Any
) -> list[float | None]:
    """What a config's shaper makes of rewards that are 1 for right and 0 for wrong answers."""
    rows = [{"reward": r, "length": n} for r, n in zip(scores, lengths, strict=True)]
    params = {"shape": [{"name": name, **options}]}
    found = evaluate_case("grpo", {"groups": [rows], "params": params, "max_new_tokens": limit})
    return found["rewards"][0]


def added(name: str, lengths: list[int], scores: list[float | None], **options: Any) -> list[float]:
    rewards = shaped(name, lengths, scores, **options)
    return [new - old for new, old in zip(rewards, scores, strict=True)]


def test_cosine_by_hand() -> None:
    """VLM-R1: half a cosine from 1 to 0.5 for right answers, from -0.5 to 0 for wrong ones."""
    lengths = [0, 512, 1024, 2048]
    assert added("cosine_length", lengths, [1] * 4) == pytest.approx([1.0, 0.75, 0.5, 0.5])
    coded = added("cosine_length", lengths, [1] * 4, clamp=False)
    assert coded == pytest.approx([1.0, 0.75, 0.5, 1.0])
    assert added("cosine_length", lengths, [0] * 4) == pytest.approx([-0.5, -0.25, 0.0, 0.0])
    half = added("cosine_length", [0, 50], [1] * 2, weight=0.5, longest=100, right=[2.0, 0.0])
    assert half == pytest.approx([1.0, 0.5])


def test_relative_by_hand() -> None:
    """0.5 - (300 - 100) / 400 = 0 in the middle; a wrong shortest gets 0, not 0.5."""
    assert added("relative_length", [100, 300, 500], [1, 1, 1]) == pytest.approx([0.5, 0, -0.5])
    assert added("relative_length", [100, 200, 500], [0, 1, 0]) == pytest.approx([0, 0.25, -0.5])
    assert added("relative_length", [7, 7], [1, 0]) == [0, 0]


def test_difficulty_by_hand() -> None:
    """DAST: one of four right at 200 tokens: the budget is 0.25 * 200 + 0.75 * 1000 = 800."""
    found = added("difficulty_length", [200, 300, 900, 60], [1, 0, 0, 0], longest=1000)
    assert found == pytest.approx([0.875, -0.6625, -0.1, -0.9325])
    # All right: the budget is 1050, the excess 0.905 and -0.905.
    found = added("difficulty_length", [2000, 100], [1, 1], longest=1000)
    assert found == pytest.approx([0.1, 0.5 * (1 + 950 / 1050)])
    assert added("difficulty_length", [500], [0], longest=1000) == pytest.approx([-0.55])
    assert np.isfinite(added("difficulty_length", [0, 0], [1, 1])).all()


def test_window_needs_two_right_answers() -> None:
    lengths = [320, 512, 513, 400]
    given = {"limit": 768}
    assert added("length_window", lengths, [1, 1, 1, 0], **given) == pytest.approx([0.2, 0.2, 0, 0])
    assert added("length_window", lengths, [1, 0, 0, 0], **given) == [0, 0, 0, 0]
    wide = added("length_window", lengths, [1, 1, 1, 0], low=0, high=600, weight=1.0)
    assert wide == [1, 1, 1, 0]


def test_budget_multiplies() -> None:
    """PixelThink: the whole reward within 200 tokens, none of it 500 beyond."""
    found = shaped("length_budget", [100, 200, 450, 700, 9999], [1] * 5, budget=200, slope=500)
    assert found == pytest.approx([1, 1, 0.5, 0, 0])
    found = shaped("length_budget", [450], [1], budget=200, slope=500, weight=0.5)
    assert found == pytest.approx([0.75])


def test_long_is_better_by_hand() -> None:
    assert added("long_is_better", [0, 256, 512, 4096], [1, 0, 1, 0]) == [0, 0.5, 1, 1]


@pytest.mark.parametrize("name", LENGTH_TERMS)
def test_lengths_follow_the_longest_response_and_the_unscorable_are_left_out(name: str) -> None:
    """Twice the limit and lengths twice as long: the same terms. None stays None, not wrong."""
    lengths, right = [90, 300, 480, 340], [1.0, 1.0, 0.0, 1.0]
    once = shaped(name, lengths, right, limit=1_024)
    twice = shaped(name, [2 * n for n in lengths], right, limit=2_048)
    assert once == pytest.approx(twice)
    more = shaped(name, [*lengths, 5_000], [*right, None], limit=1_024)
    assert more[-1] is None and more[:-1] == pytest.approx(once)
    assert shaped(name, [3, 4], [None, None]) == [None, None]


def test_terms_of_text_by_hand() -> None:
    """Twelve words make 7 six-grams of which 6 differ; two of three steps; half the words."""
    texts = {
        "repeated_ngrams": ("a b c d e f a b c d e f", 6 / 7 - 1),
        "no_repeated_sentence": ("So it is. But no!", 1.0),
        "step_share": ("1. look\n2. count", 2 / 3),
        "script_share": ("\u732b cat", 0.5),
    }
    assert set(texts) == set(TEXT_TERMS)
    for name, (text, term) in texts.items():
        rows = [[{"reward": 0.25, "text": text}, {"reward": None, "text": text}]]
        found = evaluate("grpo", rows, shape=[{"name": name, "weight": 0.5}])["rewards"][0]
        assert found == [pytest.approx(0.25 + 0.5 * term), None]
    rows = [[{"reward": 0.0, "text": "a b c a b c"}]]
    found = evaluate("grpo", rows, shape=[{"name": "repeated_ngrams", "n": 3}])["rewards"]
    assert found == [[pytest.approx(3 / 4 - 1)]]


def test_an_unknown_script_is_refused() -> None:
    with pytest.raises(UserError, match="script"):
        compose({"name": "grpo", "shape": [{"name": "script_share", "script": "klingon"}]})
