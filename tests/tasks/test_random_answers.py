"""Random answers put together from what the grammars look for: no crash, no score out of range."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmrl.scoring.tasks import (
    example_answer,
    find_defect,
    fixture_path,
    load_task,
    resolve_weights,
    weigh,
)
from mmrl.types import Text

VARIANTS: dict[str, list[dict[str, Any]]] = {
    "mmmu": [{}, {"extractor": "official"}],
    "mathvista": [{}, {"extractor": "official"}],
    "math_vision": [{}, {"extractor": "official"}],
    "mathverse": [{}, {"relative_tolerance": 0.01}],
    "counting": [{}, {"variant": "code"}],
    "trance": [{}, {"variant": "code", "matching": "penalty"}],
    "vqa_mix": [{}, {"variant": "code"}],
    "fine_grained": [{}, {"variant": "code"}],
    "crowd_counting": [{}, {"variant": "code"}],
    "image_quality": [{}],
    "medical_vqa": [{}, {"variant": "code"}],
    "chart_qa": [{}, {"variant": "code"}],
    "visual_judge": [{}, {"variant": "code"}],
    "text_judge": [{}],
    "json_schema": [{}],
    "instruction_following": [{}, {"variant": "code"}],
    "intent": [{}],
    "faithful_qa": [{}, {"variant": "code"}],
}
CASES = [(name, params) for name, variants in VARIANTS.items() for params in variants]
PIECES = (
    "<think>", "</think>", "<answer>", "</answer>", "<long_answer>", "</long_answer>", "\\boxed{",
    "}", "{", "[", "]", "(A)", "B", " or ", ",", ".", "3", "-0.5", "1e308", "NaN", "inf", "%",
    "\\%", "\uff13", "\u0663", "9" * 40, "9^{9^9}", "\\frac{1}{0}", '{"rating": 3}', "null", "true",
    "change_color(0, 'red')", "Image 1 is better", "the answer is ", "\n", " ", "\x00", "\ud800",
    "<script>alert(1)</script>", "__import__('os')", "\\text{", "$", "\\infty",
)  # fmt: skip


@pytest.mark.parametrize(("name", "params"), CASES)
@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_random_answers_are_scored_within_range(name: str, params: Any, data: Any) -> None:
    task = load_task(name, params)
    samples = [task.sample(record) for record in task.records(fixture_path(name))]
    sample = data.draw(st.sampled_from(samples))
    target = str(sample.target)
    asked = "".join(part.text for part in sample.parts if isinstance(part, Text))
    pieces = st.one_of(st.sampled_from((*PIECES, target, asked)), st.text(max_size=8))
    text = "".join(data.draw(st.lists(pieces, max_size=12)))
    if data.draw(st.booleans()):
        text = f"<think>\n</think><answer>{text}</answer>"
    blank = dataclasses.replace(example_answer(sample), truncated=data.draw(st.booleans()))
    started = time.process_time()
    score = task.score(sample.gold, dataclasses.replace(blank, text=text))
    assert time.process_time() - started < 2.0
    assert find_defect(task, score) == ""
    best = task.score(sample.gold, dataclasses.replace(blank, text=target))
    weights = resolve_weights(task, {})
    reward, most = weigh(score, weights).reward, weigh(best, weights).reward
    assert reward is not None and most is not None and reward <= most + 1e-9
