"""What holds for every task folder, checked on its fixture; a new task is covered by existing."""

from __future__ import annotations

import dataclasses
import json
import pickle
import re
from pathlib import Path
from typing import Any

import pytest

from mmrl import plugins
from mmrl.scoring.check import check
from mmrl.scoring.tasks import (
    example_answer,
    find_defect,
    fixture_path,
    load_task,
    play,
    resolve_weights,
    weigh,
)
from mmrl.task import Task
from mmrl.types import MediaRef, Sample, Score, Text

PARAMS: dict[str, dict[str, Any]] = {
    "custom": {"function": "mmrl.tasks.custom.example:exact_match"},
}
# What a task's README speaks of, under a heading or a bold word, in at least so many words.
TOPICS = {"Records": 5, "Traps": 8}
SECTION = re.MULTILINE | re.DOTALL
NAMES = sorted(plugins.available("task"))


@pytest.fixture(params=NAMES)
def task(request: pytest.FixtureRequest) -> Task:
    return load_task(request.param, PARAMS.get(request.param, {}))


@pytest.fixture
def samples(task: Task) -> list[Sample]:
    return [task.ask(record) for record in task.records(fixture_path(task.name))]


def gold(task: Task, sample: Sample) -> list[str]:
    """What earns full marks: the completion, or a turn in every observation of an episode."""
    said: list[str] = []

    def say(here: Sample) -> str:
        target = task.completion(here, example_answer(sample))
        assert target is not None
        said.append(target)
        return target

    play(task, sample, say)
    return said


def graded(task: Task, sample: Sample, *texts: str, truncated: bool = False) -> Score:
    """Grade an answer, or an episode of which the last text is said for ever."""
    left = list(texts)
    answer = play(task, sample, lambda here: left.pop(0) if len(left) > 1 else left[0])
    score = task.score(sample.gold, dataclasses.replace(answer, truncated=truncated))
    assert find_defect(task, score) == ""
    return weigh(score, resolve_weights(task, {}))


def test_the_folder_is_complete(task: Task) -> None:
    folder = fixture_path(task.name).parent
    assert task.name == folder.name
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert readme.startswith(f"# {task.name}\n")
    for topic, least in TOPICS.items():
        said = re.search(rf"(?:^## |^- \*\*){topic}(.*?)(?=^## |^- \*\*|\Z)", readme, SECTION)
        assert said and len(said[1].split()) >= least, topic
    assert re.search("licence|CC BY|MIT|Apache", readme)
    assert len(list(task.records(fixture_path(task.name)))) >= 5


def test_samples_are_distinct_plain_data_with_readable_media(
    task: Task, samples: list[Sample]
) -> None:
    assert len({sample.id for sample in samples}) == len(samples)
    for sample in samples:
        assert sample.task == task.name
        assert any(isinstance(part, Text) and part.text.strip() for part in sample.parts)
        json.dumps(sample.gold if not dataclasses.is_dataclass(sample.gold) else {})
        assert pickle.loads(pickle.dumps(sample.gold)) == sample.gold
        example_answer(sample)


def test_the_target_earns_full_marks(task: Task, samples: list[Sample]) -> None:
    for sample in samples:
        said = gold(task, sample)
        score = graded(task, sample, *said)
        assert score.status == "ok", score.reason
        for name, part in task.parts.items():
            full = part.high if part.high != float("inf") else 1.0
            assert score.parts[name] == pytest.approx(full), (sample.id, name)
        assert score.metric == pytest.approx(graded(task, sample, *said).metric)


def test_the_gold_pays_in_full_and_junk_nothing_in_little_time(
    task: Task, samples: list[Sample]
) -> None:
    """The same check as `mmrl tasks --check`; test_task_check.py shows that it can fail."""
    found = check(task, fixture_path(task.name))
    for _ in range(2):  # where seconds are paid, a busy machine may make a good program slow
        if found.problems and "time" in task.parts:
            found = check(task, fixture_path(task.name))
    assert not found.problems
    assert found.records == len(samples) and found.answers > 30 * found.records


def test_another_records_target_does_not_earn_full_marks(task: Task, samples: list[Sample]) -> None:
    weights = resolve_weights(task, {})
    for mine, other in zip(samples, [*samples[1:], samples[0]], strict=True):
        if mine.gold == other.gold:
            continue
        best = graded(task, mine, *gold(task, mine)).reward
        reward = graded(task, mine, *gold(task, other)).reward
        assert reward is not None and best is not None
        assert reward < best or not any(weights.values()), (mine.id, other.id)


def test_media_stay_inside_the_folder(task: Task, samples: list[Sample]) -> None:
    root = fixture_path(task.name).parent.resolve()
    for sample in samples:
        for part in sample.parts:
            if isinstance(part, MediaRef) and isinstance(part.source, Path):
                assert part.source.resolve().is_relative_to(root)
