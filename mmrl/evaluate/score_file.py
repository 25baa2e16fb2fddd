"""`mmrl score`: a file of answers against a file of records, without a model."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmrl.data.samples import load_samples
from mmrl.errors import MediaError
from mmrl.evaluate.answer_files import Given, read_answers
from mmrl.evaluate.summary import Evaluation, Scored, summarise
from mmrl.frame import Space
from mmrl.runlog.journal import to_json
from mmrl.scoring.pool import ScoreJob, Scorer, TaskSpec, unscorable
from mmrl.scoring.tasks import example_answer, load_task
from mmrl.types import Answer, Sample, Score


@dataclasses.dataclass(frozen=True)
class ScoredFile:
    """Scores in the order of the answers; the number, if each record has as many answers.

    `refused` are the records that cannot be asked, with the reason; their answers are unscorable.
    """

    scores: list[tuple[str, Score]]
    unanswered: list[str]
    evaluation: Evaluation | None
    refused: Mapping[str, str] = dataclasses.field(default_factory=dict)


def score_file(
    task: str,
    data: Path,
    answers: Path,
    *,
    params: Mapping[str, Any] | None = None,
    weights: Mapping[str, float] | None = None,
    space: Space = "source_pixels",
    workers: int = 2,
    timeout_seconds: float = 10.0,
    secrets: Collection[str] = (),
) -> ScoredFile:
    """Score lines `{"id", "answer"}`, or what an evaluation has kept; an id may have several.

    Coordinates of lines are in `space`, and their media are decoded for their sizes and taken as
    seen unchanged; an evaluation's answers are scored as the model gave them. An id that no record
    has raises UserError; records without an answer are counted as wrong, and those that cannot be
    asked (a gold that does not parse) are left out and named. `secrets` as in `Scorer`.
    """
    loaded = load_task(task, params)
    refused: dict[str, str] = {}
    asked = load_samples(loaded, data, task, refused.__setitem__, media=False)
    samples = {sample.id: sample for sample in asked}
    said = list(read_answers(answers, {*samples, *refused}))
    rows = [given for given in said if given.id in samples]
    names = {given.id for given in rows if given.answer is None}
    blanks = {name: _blank(samples[name], space) for name in names}
    places = {name: i for i, name in enumerate(dict.fromkeys(given.id for given in rows))}
    jobs = [
        ScoreJob(
            task,
            samples[given.id].gold,
            given.answer or dataclasses.replace(blanks[given.id], text=given.text),
            places[given.id],
        )
        for given in rows
    ]
    spec = {task: TaskSpec(task, params or {}, weights or {})}
    with Scorer(spec, workers, timeout_seconds, secrets=secrets) as scorer:
        scores = scorer.score(jobs)
    found: dict[str, list[tuple[Given, Score]]] = {name: [] for name in samples}
    for given, score in zip(rows, scores, strict=True):
        found[given.id].append((given, score))
    counts = {len(each) for each in found.values() if each}
    each_score = iter(scores)
    evaluation = None
    if len(counts) == 1:
        scored = [_scored(samples[name], each) for name, each in found.items()]
        rejected = tuple({"id": name, "reason": reason} for name, reason in refused.items())
        evaluation = dataclasses.replace(summarise(scored, loaded, counts.pop()), rejected=rejected)
    return ScoredFile(
        [
            (each.id, next(each_score) if each.id in samples else unscorable(refused[each.id]))
            for each in said
        ],
        [name for name, each in found.items() if not each],
        evaluation,
        refused,
    )


def write_scores(path: Path, found: ScoredFile) -> None:
    """Write lines `{"id", "status", "parts", "reward", "metric"}`, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(path.name + ".tmp")
    with half.open("wb") as file:
        for name, score in found.scores:
            row = {"id": name, "status": score.status, "parts": score.parts}
            file.write(to_json({**row, "reward": score.reward, "metric": score.metric}) + b"\n")
    os.replace(half, path)


def _scored(sample: Sample, each: Sequence[tuple[Given, Score]]) -> Scored:
    if not each:
        return Scored(sample, unreadable="no answer")
    given, scores = zip(*each, strict=True)
    return Scored(sample, tuple(g.text for g in given), tuple(g.truncated for g in given), scores)


def _blank(sample: Sample, space: Space) -> Answer:
    try:
        return dataclasses.replace(example_answer(sample), space=space)
    except MediaError:
        return Answer("", space=space)  # a task that needs the picture's size says so
