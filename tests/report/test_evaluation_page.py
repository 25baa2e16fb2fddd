"""The page of an evaluation escapes all that it shows and stays under its cap."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mmrl.evaluate.answers import Answers, Asked, question_of
from mmrl.evaluate.evaluation_page import render
from mmrl.evaluate.summary import Evaluation, Scored, summarise
from mmrl.scoring.tasks import load_task
from mmrl.types import Sample, Score, Text

from .test_hostile_text import HOSTILE, KNOWN_TAGS, Page


def made(count: int, text: str, samples: int = 1) -> tuple[Evaluation, list[Sample], Answers]:
    """An evaluation of `count` records in which every text is `text`."""
    asked = [Sample(f"{i}{text}"[:300], "t", (Text(text),), text) for i in range(count)]
    answers = Answers()
    answers.add(
        [
            Asked(s.id, question_of(s), (text,) * samples, (False,) * samples, (1,) * samples)
            for s in asked
        ]
    )
    verdicts = [Score({}, 1.0), Score({}, 0.0, "malformed", text), Score({}, None, "unscorable")]
    rows = [
        Scored(s, (text,) * samples, (False,) * samples, tuple(verdicts[:samples])) for s in asked
    ]
    task = load_task("digit_count")
    return summarise(rows, task, samples, (1,)), asked, answers


def test_nothing_hostile_becomes_markup(tmp_path: Path) -> None:
    evaluation, asked, answers = made(3, HOSTILE, samples=3)
    evaluation = replace(
        evaluation,
        rejected=({"id": HOSTILE, "reason": HOSTILE},),
        breakdown={HOSTILE: 1.0},
        official={"params": {HOSTILE: HOSTILE}, "metric": 0.1, "low": 0.0, "high": 0.2},
    )
    markup = render(HOSTILE, evaluation, {HOSTILE: HOSTILE}, asked, answers, tmp_path)
    page = Page(markup)
    assert set(page.tags) <= KNOWN_TAGS
    assert page.tags.count("script") == 1 and page.tags.count("img") == 0
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert "alert" not in markup and "{{ 7 * 7 }}" in "".join(page.text)
    assert "sometimes passed" in markup and "1 of 3 answers pass" in markup


def test_a_large_evaluation_is_sampled_below_the_cap(tmp_path: Path) -> None:
    evaluation, asked, answers = made(300, "word " * 2_000)
    markup = render("big", evaluation, {}, asked, answers, tmp_path, max_bytes=600_000)
    assert len(markup.encode()) <= 600_000
    assert "of 300 records: the first, the last, and evenly between." in markup
