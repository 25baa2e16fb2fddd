"""A pair in the other order is the same question with the other letter, for judges in training."""

from __future__ import annotations

import numpy as np

from mmrl.algorithms.compose import compose
from mmrl.scoring.tasks import fixture_path, load_task
from mmrl.stage import Context
from mmrl.types import Answer, Sample, Text


def first() -> Sample:
    task = load_task("text_judge", {"order": "as_is"})
    return task.ask(next(iter(task.records(fixture_path("text_judge")))))


def text(sample: Sample) -> str:
    return "".join(part.text for part in sample.parts if isinstance(part, Text))


def test_the_other_order_has_the_other_gold() -> None:
    task, sample = load_task("text_judge", {"order": "as_is"}), first()
    swapped = task.changed(sample, {"swap_answers": True})
    assert swapped is not None and (sample.gold, swapped.gold) == ("A", "B")
    a, b = "7 times 8 is 56.", "It is 54."
    assert f"[Response A]\n{a}\n[Response B]\n{b}\n" in text(sample)
    assert f"[Response A]\n{b}\n[Response B]\n{a}\n" in text(swapped)
    assert task.score(swapped.gold, Answer(swapped.target or "")).metric == 1.0
    assert task.score(swapped.gold, Answer(sample.target or "")).metric == 0.0
    again = task.changed(swapped, {"swap_answers": True})
    assert again == sample
    assert task.changed(sample, {"noise": 10.0}) is None


def test_a_group_has_both_orders_each_with_its_gold() -> None:
    task = load_task("text_judge", {"order": "as_is"})
    algorithm = compose({"name": "eis_grpo", "variants": 2, "changes": ["swap_answers"]})

    def change(sample: Sample, options: object) -> Sample:
        changed = task.changed(sample, options)  # type: ignore[arg-type]
        assert changed is not None
        return changed

    context = Context(1, 1, 1, np.random.default_rng(0), {}, change=change)
    asked = algorithm.expand(first(), context)
    assert [sample.gold for sample in asked] == ["A", "B"]
    assert asked[1].variant == "swap_answers" and "The picture" not in text(asked[1])
