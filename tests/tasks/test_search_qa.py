"""Episodes of searching, by hand: what is found, what is paid, and what is neither."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mmrl.rewards.retrieval import rank
from mmrl.scoring.tasks import fixture_path, load_task, play
from mmrl.types import Sample, Score

SEARCH = "<search>mayor Tarn</search>"
RIGHT, WRONG = "<answer>Clara Weiss.</answer>", "<answer>Nobody</answer>"


def episode(name: str, *said: str) -> tuple[Sample, Score, int]:
    """A record's sample, the score of turns that say this, and how many were taken."""
    task = load_task("search_qa", {"think": "none"})
    (sample,) = (task.ask(r) for r in task.records(fixture_path("search_qa")) if r.id == name)
    turns = iter([*said, "", "", "", ""])
    answer = play(task, sample, lambda _: next(turns))
    return sample, task.score(sample.gold, answer), len(answer.turns)


def test_rare_words_find_more_and_ties_go_by_place() -> None:
    passages = ["the red fox", "the red dog", "the cat", "a bird"]
    assert rank("The FOX, the red one?", passages) == [0, 1, 2]
    assert rank("nothing alike", passages) == []


def test_what_is_found_is_the_next_turn() -> None:
    task = load_task("search_qa", {"found": 1, "think": "none"})
    sample, *_ = episode("mayor")
    assert sample.start is not None
    answer = replace(play(task, sample, lambda _: RIGHT), text=SEARCH)
    seen = task.step(sample.gold, sample.start.state, answer)
    assert (seen.text, seen.state) == ("Tarn is a town. Clara Weiss was its mayor.", 1)
    assert seen.reward == 1.0
    lost = task.step(sample.gold, 0, replace(answer, text="<search>zebra</search>"))
    assert lost.text == "Nothing was found." and not lost.done and lost.reward == 0.0


@pytest.mark.parametrize(
    ("name", "said", "parts", "turns"),
    [
        ("mayor", [SEARCH, RIGHT], (1.0, 1.0, 1.0), 2),
        ("mayor", [RIGHT], (1.0, 0.0, 1.0), 1),
        ("mayor", [SEARCH, WRONG], (0.0, 0.0, 1.0), 2),
        ("mayor", ["<answer>Weiss</answer>"], (1.0, 0.0, 1.0), 1),
        ("colour", ["<answer>Green</answer>"], (1.0, 1.0, 1.0), 1),
        ("colour", ["<search>colour</search>", "<answer>green</answer>"], (1.0, 0.0, 1.0), 2),
        ("mayor", [SEARCH + RIGHT, SEARCH, RIGHT], (1.0, 1.0, 2 / 3), 3),
        ("mayor", ["", SEARCH, SEARCH, SEARCH], (0.0, 0.0, 3 / 4), 4),
        ("mayor", ["<search></search>", "<answer></answer>", RIGHT], (1.0, 0.0, 1 / 3), 3),
    ],
)
def test_an_episode_is_paid(name: str, said: list[str], parts: tuple[Any, ...], turns: int) -> None:
    _, score, taken = episode(name, *said)
    assert tuple(score.parts.values()) == pytest.approx(parts)
    assert taken == turns


@pytest.mark.parametrize(
    "fields",
    [
        {"question": "Who?", "answer": ""},
        {"question": "Who?", "answer": [], "needs_search": False},
        {"question": "Who?", "answer": "I", "needs_search": True},
        {"question": "Who?", "answer": "I", "paragraphs": [{"title": "no text"}]},
    ],
)
def test_a_record_that_cannot_be_asked_says_why(fields: dict[str, Any], tmp_path: Any) -> None:
    from mmrl.types import Record

    with pytest.raises(ValueError, match=r"answer|search|passage"):
        load_task("search_qa").sample(Record("1", fields, tmp_path))
