from __future__ import annotations

import time

import numpy as np
import pytest

from mmrl.rewards import shaping


def test_vlm_r1_repetition_worked_examples() -> None:
    assert shaping.repeated_ngrams("a b c d e f g h i j") == 0
    assert shaping.repeated_ngrams("ok") == 0 and shaping.repeated_ngrams("") == 0
    # 12 words make 7 six-grams of which 6 differ
    assert shaping.repeated_ngrams("a b c d e f a b c d e f") == pytest.approx(6 / 7 - 1)
    assert shaping.repeated_ngrams("A b C a b c", n=3) == pytest.approx(3 / 4 - 1)


def test_sentences_that_occur_twice() -> None:
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
