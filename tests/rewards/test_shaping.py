from __future__ import annotations

import time

import numpy as np
import pytest

from mmrl.rewards import shaping
from mmrl.types import Bools, Floats


def of(*values: float) -> Floats:
    return np.array(values, dtype=float)


def right(*values: int) -> Bools:
    return np.array(values, dtype=bool)


def test_vlm_r1_cosine_worked_examples() -> None:
    lengths, correct = of(0, 512, 1024, 2048), right(1, 1, 1, 1)
    assert shaping.cosine_length(lengths, correct) == pytest.approx([1.0, 0.75, 0.5, 0.5])
    coded = shaping.cosine_length(lengths, correct, clamp=False)
    assert coded == pytest.approx([1.0, 0.75, 0.5, 1.0])
    wrong = shaping.cosine_length(lengths, right(0, 0, 0, 0))
    assert wrong == pytest.approx([-0.5, -0.25, 0.0, 0.0])


def test_relative_length() -> None:
    # 0.5 - (300 - 100) / 400 = 0 in the middle; the wrong shortest gets 0, not 0.5
    assert shaping.relative_length(of(100, 300, 500), right(1, 1, 1)) == pytest.approx(
        [0.5, 0, -0.5]
    )
    assert shaping.relative_length(of(100, 200, 500), right(0, 1, 0)) == pytest.approx(
        [0, 0.25, -0.5]
    )
    assert shaping.relative_length(of(7, 7), right(1, 0)).tolist() == [0, 0]
    assert shaping.relative_length(of(), right()).tolist() == []


def test_pixelthink_budget() -> None:
    factor = shaping.budget_factor(of(100, 200, 450, 700, 9999), 200)
    assert factor == pytest.approx([1, 1, 0.5, 0, 0])


def test_dast_by_hand() -> None:
    # one of four right, mean right length 200: budget 0.25 * 200 + 0.75 * 1000 = 800
    # lambda: -0.75, -0.625, 0.125, -0.925
    term = shaping.dast(of(200, 300, 900, 60), right(1, 0, 0, 0), 1000)
    assert term == pytest.approx([0.875, -0.6625, -0.1, -0.9325])
    long_right = shaping.dast(of(2000, 100), right(1, 1), 1000)
    # all right: budget 1050, lambda 0.905 and -0.905
    assert long_right == pytest.approx([0.1, 0.5 * (1 + 950 / 1050)])
    assert shaping.dast(of(500), right(0), 1000) == pytest.approx([0.9 * -0.5 - 0.1])


def test_video_r1_window_needs_two_right_answers() -> None:
    lengths = of(320, 512, 513, 400)
    assert shaping.length_window(lengths, right(1, 1, 1, 0)) == pytest.approx([0.2, 0.2, 0, 0])
    assert shaping.length_window(lengths, right(1, 0, 0, 0)).tolist() == [0, 0, 0, 0]


def test_overlong_and_toolrl() -> None:
    assert shaping.overlong(of(0, 800, 900, 1000, 5000), 1000, 200) == pytest.approx(
        [0, 0, -0.5, -1, -1]
    )
    assert shaping.long_is_better(of(0, 256, 512, 4096)) == pytest.approx([0, 0.5, 1, 1])


def test_canoe_length_ratio_excludes_its_ends() -> None:
    context = "c" * 100
    cases = ((19, 0), (20, 0), (21, 1), (79, 1), (80, 0), (90, 0), (0, 0))
    assert [shaping.length_ratio("l" * n, context) for n, _ in cases] == [e for _, e in cases]
    assert shaping.length_ratio("x", "") == 0
    assert shaping.length_ratio("l\n" * 25, context) == 1


def test_vlm_r1_repetition_worked_examples() -> None:
    assert shaping.repeated_ngrams("a b c d e f g h i j") == 0
    assert shaping.repeated_items(["[1,2,3,4]_car"] * 4) == -0.75
    assert shaping.repeated_ngrams("ok") == 0 and shaping.repeated_ngrams("") == 0
    # 12 words make 7 six-grams of which 6 differ
    assert shaping.repeated_ngrams("a b c d e f a b c d e f") == pytest.approx(6 / 7 - 1)
    assert shaping.repeated_ngrams("A b C a b c", n=3) == pytest.approx(3 / 4 - 1)


def test_other_repetition_terms() -> None:
    assert shaping.distinct_share(["a", "a", "b", "b"]) == 0.5
    assert shaping.distinct_share([]) == 0
    assert shaping.no_repeated_sentence("It is 3.5 m. It is 3.7 m.") == 1
    assert shaping.no_repeated_sentence("So it is. But no! So  it IS.") == 0
    assert shaping.no_repeated_sentence("") == 0


def test_steps_worked_examples() -> None:
    assert shaping.step_share("- look\n- count\n- answer") == 1
    assert shaping.step_share("- look") == pytest.approx(1 / 3)
    assert shaping.step_share("It is a cat.") == 0
    assert shaping.step_share("Step 1: look\n### Step 2: count\n3. say\nFirst, no") == 1
    assert shaping.step_share("- \n- \n- ") == 0
    assert shaping.step_share("- a\n- a\n- a") == pytest.approx(1 / 3)
    assert shaping.step_share("- \n- \n- ", distinct=False) == 1


def test_format_terms() -> None:
    tags = ("<think>", "</think>")
    assert shaping.tags_once("<think>a</think>", tags, each=0.125) == 0.25
    assert shaping.tags_once("<think>a", tags, each=0.125) == 0.125
    assert shaping.tags_once("<think><think>a</think>", tags) == 0.5


def test_language_is_the_share_of_words() -> None:
    assert shaping.script_share("\u732b cat \u72ac dog") == 0.5
    assert shaping.script_share("\u043a\u043e\u0442 cat", "cyrillic") == 0.5
    assert shaping.script_share("12 + 3") == 0
    with pytest.raises(ValueError, match="latin"):
        shaping.script_share("x", "klingon")


def test_z_scores_stay_in_the_group() -> None:
    assert shaping.z_scores(of(1, 3)) == pytest.approx([-1, 1], abs=1e-5)
    assert shaping.z_scores(of(2, 2)).tolist() == [0, 0]
    assert shaping.z_scores(of()).tolist() == []


def test_a_megabyte_takes_a_moment() -> None:
    for unit in ("a ", "- \n", "step 1", "   ", "1. ", "\n", "\u4e00", ". "):
        text = unit * (10**6 // len(unit))
        started = time.process_time()
        for term in (
            shaping.repeated_ngrams, shaping.no_repeated_sentence, shaping.step_share,
            shaping.script_share,
        ):  # fmt: skip
            assert np.isfinite(term(text))
        assert time.process_time() - started < 2.0, unit
