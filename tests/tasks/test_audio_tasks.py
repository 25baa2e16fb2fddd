"""Questions about a sound, and about a picture and a sound."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from mmrl.frame import Frame
from mmrl.rewards.choices import Choice
from mmrl.rewards.intervals import Interval
from mmrl.rewards.typed import TypedGold
from mmrl.scoring.tasks import load_task, resolve_weights, weigh
from mmrl.types import Answer, MediaRef, Record, Score

VOICES = Choice(("Man", "Woman", "Child", "Robot"), "A")
PICTURE, SOUND = Frame((64, 64), (32, 32)), Frame(seconds=(10.0, 40.0))


def graded(name: str, gold: Any, text: str, **params: Any) -> Score:
    task = load_task(name, params)
    answer = Answer(text, frames=(PICTURE, SOUND))
    return weigh(task.score(gold, answer), resolve_weights(task, {}))


@pytest.mark.parametrize(
    ("said", "strict", "official"),
    [
        ("Man", 1.0, 1.0),
        ("man.", 1.0, 1.0),
        ("Man or Woman", 0.0, 0.0),
        ("A man speaks", 0.0, 1.0),
        ("Woman", 0.0, 0.0),
        ("human", 0.0, 0.0),
        ("...", 0.0, 0.0),
        ("\uff2d\uff41\uff4e", 1.0, 1.0),
    ],
)
def test_audio_choices(said: str, strict: float, official: float) -> None:
    text = f"<answer>{said}</answer>"
    score = graded("audio_qa", VOICES, text, extractor="official")
    assert (score.parts["accuracy"], score.metric) == (strict, official)
    assert score.parts["format"] == strict or said == "Woman"
    assert graded("audio_qa", VOICES, text).metric == strict


@pytest.mark.parametrize(
    "text", ["", "Man", "<answer>Man", "<answer>Man</answer>" * 2, "<answer></answer>",
             "<answer>" + "Man " * 2_000 + "</answer>", "Man" * 300_000]
)  # fmt: skip
def test_not_an_audio_answer(text: str) -> None:
    assert graded("audio_qa", VOICES, text).reward == 0.0


def test_words_of_the_gold_that_others_share_are_allowed_by_the_official_rule() -> None:
    gold = Choice(("a high tone", "a low tone"), "B")
    params = {"extractor": "official"}
    assert graded("audio_qa", gold, "It is a low tone", **params).metric == 1.0
    assert graded("audio_qa", gold, "a high or a low tone", **params).metric == 0.0
    assert graded("audio_qa", gold, "low", **params).metric == 0.0


def sample_of(name: str, fields: Any, root: Path) -> Any:
    return load_task(name).sample(Record("1", fields, root))


def test_avqa_counts_from_zero_and_speaks_of_audio(tmp_path: Path) -> None:
    fields = {"question_text": "What is in the video?", "multi_choice": ["x", "y"], "answer": 0,
              "audio_path": "a.wav"}  # fmt: skip
    sample = sample_of("audio_qa", fields, tmp_path)
    assert sample.gold == Choice(("x", "y"), "A")
    assert sample.parts[0] == MediaRef("audio", tmp_path / "a.wav")
    assert "in the audio?" in sample.parts[1].text
    for broken in ({**fields, "answer": 2}, {**fields, "answer": -1}):
        with pytest.raises(ValueError):
            sample_of("audio_qa", broken, tmp_path)


def test_all_of_mmau_test_mini_is_read() -> None:
    folder = os.environ.get("MMRL_TEST_DATA")
    path = Path(folder or "", "Sakshi113__MMAU/mmau-test-mini.json")
    if not folder or not path.is_file():
        pytest.skip("MMRL_TEST_DATA does not hold MMAU's test-mini records")
    task = load_task("audio_qa")
    samples = [task.sample(record) for record in task.records(path)]
    assert len(samples) == 1000
    for sample in samples:
        assert task.score(sample.gold, Answer(sample.target)).metric == 1.0
    official = load_task("audio_qa", {"extractor": "official"})
    agreed = sum(official.score(s.gold, Answer(s.target)).metric or 0.0 for s in samples)
    assert agreed == 1000


def test_choices_that_read_alike_are_one(tmp_path: Path) -> None:
    fields = {"question": "?", "choices": ["one", "two", "Two.", "zero"], "answer": "Two.",
              "audio_id": "a.wav"}  # fmt: skip
    gold = sample_of("audio_qa", fields, tmp_path).gold
    assert gold == Choice(("one", "two", "zero"), "B")
    with pytest.raises(ValueError):
        sample_of("audio_qa", {**fields, "answer": "three"}, tmp_path)


def said(text: str) -> str:
    return f"<think>one\ntwo</think>\n<answer>{text}</answer>"


@pytest.mark.parametrize(
    ("text", "reward"), [("B", 2.0), ("b", 2.0), ("A bell", 2.0), ("A bel", 1.0)]
)
def test_audio_visual_letters(text: str, reward: float) -> None:
    gold = TypedGold("multiple choice", "B", ("a dog", "a bell"))
    assert graded("audio_visual_qa", gold, said(text)).reward == reward


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # the sound starts at 10 s of its file
        ("[0, 5]; [0, 5]", 1.0),
        ("[0, 5]", 1.0),
        ("[0, 10]", 0.5),
        ("[0, 2]; [1, 3]", 0.6),
        ("[10, 15]", 0.0),
        ("[5, 0]", 0.0),
        ("always", 0.0),
    ],
)
def test_spans_of_a_sound_are_merged_and_count_from_its_start(text: str, value: float) -> None:
    gold = (Interval(10, 15),)
    assert graded("audio_visual_qa", gold, said(text)).parts["accuracy"] == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "coded", "metric"),
    [
        ("[0, 5]", 1.0, 1.0),
        # twice 5 s shared, 10 + 5 - 10 s in all
        ("[0, 5]; [0, 5]", 2.0, 1.0),
        ("[0, 5]; [0, 5]; [0, 5]", 3.0, 1.0),
        ("[0, 2]; [1, 3]", 4 / (4 + 5 - 4), 0.6),
        ("[6, 9]", 0.0, 0.0),
    ],
)
def test_as_published_every_repetition_of_a_span_is_paid(
    text: str, coded: float, metric: float
) -> None:
    score = graded("audio_visual_qa", (Interval(10, 15),), said(text), variant="code")
    assert score.parts["accuracy"] == pytest.approx(coded)
    assert score.metric == pytest.approx(metric)


def test_audio_visual_records(tmp_path: Path) -> None:
    fields = {"problem": "?", "problem_type": "temporal retrieval", "options": [],
              "solution": "<answer>[0, 5]; [7, 9]</answer>",
              "path": {"image": "a.png", "audio": "a.wav"}}  # fmt: skip
    sample = sample_of("audio_visual_qa", fields, tmp_path)
    assert sample.gold == ((0, 5), (7, 9))
    assert [part.kind for part in sample.parts[:2]] == ["image", "audio"]
    for solution in ("<answer></answer>", "<answer>[5, 0]</answer>", "<answer>soon</answer>"):
        with pytest.raises(ValueError):
            sample_of("audio_visual_qa", {**fields, "solution": solution}, tmp_path)
    with pytest.raises(ValueError):
        sample_of("audio_visual_qa", {**fields, "problem_type": "guess"}, tmp_path)
