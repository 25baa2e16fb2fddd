"""Second questions: who is asked what, that a verifier finds the answer, and nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mmrl.engines.engine import Sampling
from mmrl.errors import MediaError
from mmrl.evaluate.answers import Asked, asked_of
from mmrl.rollout.follow_ups import FollowUps, following
from mmrl.scoring.groups import answer_of
from mmrl.scoring.tasks import fixture_path, load_task
from mmrl.types import Answer, Group, Prompt, Response, Sample, Text

NOTHING = np.zeros(0, dtype=np.int64)
CANOE = load_task("faithful_qa", {"influence": "asked"})
RECORD = next(iter(CANOE.records(fixture_path("faithful_qa"))))


def prompt_of(sample: Sample) -> Prompt:
    return Prompt(sample, (), NOTHING, NOTHING[None], 0, (), "unit")


class Encoding:
    """Makes prompts without a model; texts with `long` in them are too long."""

    def encode(self, variants: Sequence[Sequence[Sample]]) -> list[Any]:
        return [self._one(samples) for samples in variants]

    def _one(self, samples: Sequence[Sample]) -> Any:
        (sample,) = samples
        return MediaError("too long") if "tedious" in text_of(sample) else [prompt_of(sample)]


def text_of(sample: Sample) -> str:
    (part,) = sample.parts
    assert isinstance(part, Text)
    return part.text


class Saying:
    """Gives the answers it was made with, then answers about passages by whether they tell."""

    def __init__(self, *texts: str) -> None:
        self.texts, self.asked = texts, list[tuple[str, Sampling]]()

    def generate(
        self, prompts: Sequence[Prompt], counts: Sequence[int], sampling: Sampling, seed: int
    ) -> list[list[Response]]:
        if prompts[0].sample.variant != "passage":
            return [[self._said(text) for text in self.texts] for _ in prompts]
        self.asked += [(text_of(prompt.sample), sampling) for prompt in prompts]
        right = ["Weiss" in text_of(p.sample).split("Question:")[0] for p in prompts]
        answers = ["Clara Weiss" if each else "nobody" for each in right]
        return [[self._said(f"<think>so</think><answer>{a}</answer>")] for a in answers]

    def _said(self, text: str) -> Response:
        return Response(NOTHING, np.zeros(0), text, "stop")

    def sync(self, weights: Any) -> None: ...

    def close(self) -> None: ...


def answer(passage: str) -> str:
    return f"<think>so</think><long_answer>{passage}</long_answer><answer>Clara Weiss</answer>"


TELLS = "The bridge is the work of Clara Weiss, as the text has it."
HIDES = "The bridge is the work of an engineer, as the text has it."


def test_the_policy_is_asked_about_each_passage_and_the_verifier_finds_what_it_says() -> None:
    inner = Saying(answer(TELLS), answer(HIDES), answer("tedious"), "no passage")
    sample = CANOE.ask(RECORD)
    engine = FollowUps(inner, {"faithful_qa": CANOE}, Encoding())  # type: ignore[arg-type]
    (drawn,) = engine.generate([prompt_of(sample)], [4], Sampling(50, 0.9), 0)
    assert [text.split("\n")[0] for text, _ in inner.asked] == [
        f"Context: {TELLS}",
        f"Context: {HIDES}",
    ]
    assert all("Who built the bridge?" in text for text, _ in inner.asked)
    assert {how for _, how in inner.asked} == {Sampling(50, 0.0)}, "greedily"
    assert [r.followed is None for r in drawn] == [False, False, True, True]
    group = Group(prompt_of(sample), tuple(drawn), ())
    scores = [CANOE.score(sample.gold, answer_of(group, r)) for r in drawn[:2]]
    assert [score.parts["influence"] for score in scores] == [1.0, 0.0]
    with pytest.raises(ValueError, match="was not asked"):
        CANOE.score(sample.gold, answer_of(group, drawn[2]))
    assert CANOE.score(sample.gold, answer_of(group, drawn[3])).parts["influence"] == 0.0


def test_an_evaluation_keeps_what_was_said() -> None:
    from dataclasses import asdict

    row = Asked("1", "q", texts=("a", "b"), truncated=(False, False), followed=("x", None))
    assert [a.followed for a in asked_of(asdict(row)).answers()] == ["x", None]
    assert [a.followed for a in replace(row, followed=()).answers()] == [None, None]


def test_tasks_without_second_questions_leave_the_engine_as_it_is() -> None:
    inner = Saying()
    assert following(inner, {"math": load_task("math")}, Encoding()) is inner  # type: ignore[arg-type]
    stated = load_task("faithful_qa")
    sample = stated.ask(RECORD)
    assert stated.follow_up(sample, answer(TELLS)) is None
    assert stated.score(sample.gold, Answer(answer(TELLS))).parts["influence"] == 1.0
