"""Numbers of one step against hand arithmetic, the diagnosis, trackers and the progress display."""

from __future__ import annotations

import dataclasses
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from mmrl.errors import UserError
from mmrl.frame import Frame
from mmrl.runlog import trackers
from mmrl.runlog.diagnosis import diagnose
from mmrl.runlog.metrics import Clock, MetricsLog, group_metrics, memory_metrics
from mmrl.runlog.progress import Progress, duration, now_and_then
from mmrl.runlog.trackers import Trackers
from mmrl.runlog.update_alarms import memory_slope
from mmrl.types import EncodedMedium, Group, MediaRef, Prompt, Response, Sample, Score, Text


def make_group(
    rewards: list[float | None],
    *,
    task: str = "count",
    lengths: list[int] | None = None,
    finishes: list[Any] | None = None,
    statuses: list[Any] | None = None,
    kinds: list[Any] | None = None,
    lost_media: bool = False,
) -> Group:
    kinds = ["image"] if kinds is None else kinds
    media = tuple(
        EncodedMedium(kind, f"{kind}{i}", {}, num_tokens=0 if lost_media else 5, frame=Frame())
        for i, kind in enumerate(kinds)
    )
    parts = (*(MediaRef(kind, b"") for kind in kinds), Text("How many?"))
    sample = Sample("s", task, parts, gold=1)
    prompt = Prompt(sample, (1,), np.arange(10), np.zeros((1, 10), int), 10, media, "unit")
    count = len(rewards)
    lengths, finishes = lengths or [4] * count, finishes or ["stop"] * count
    statuses = statuses or ["ok" if r is not None else "unscorable" for r in rewards]
    responses = tuple(
        Response(np.arange(n), np.zeros(n), "text", finish)
        for n, finish in zip(lengths, finishes, strict=True)
    )
    scores = tuple(
        Score({} if r is None else {"accuracy": r}, metric=r, status=status, reward=r)
        for r, status in zip(rewards, statuses, strict=True)
    )
    return Group(prompt, responses, scores)


def test_group_metrics_match_hand_arithmetic() -> None:
    groups = [
        make_group(
            [1.0, 0.0, None],
            lengths=[2, 4, 9],
            finishes=["stop", "stop", "length"],
        ),
        make_group([0.5, 0.5, 0.5], lengths=[1, 1, 1], statuses=["ok", "missing", "ok"]),
    ]
    found = group_metrics(groups)
    # Scorable rewards: 1, 0, 0.5, 0.5, 0.5; mean 2.5 / 5; squares from it .25 + .25 over 5 = 0.1.
    assert found["reward/mean"] == pytest.approx(0.5)
    assert found["reward/std"] == pytest.approx(math.sqrt(0.1))
    assert found["reward/group_std"] == pytest.approx((0.5 + 0.0) / 2)
    assert found["reward/accuracy"] == pytest.approx(0.5)
    assert found["metric/mean"] == pytest.approx(0.5)
    assert found["share/zero_variance"] == pytest.approx(1 / 2)
    assert found["share/truncated"] == pytest.approx(1 / 6)
    assert found["share/unparsable"] == pytest.approx(1 / 6)  # unscorable is not unparsable
    assert found["share/unscorable"] == pytest.approx(1 / 6)
    assert found["length/mean"] == pytest.approx(18 / 6)
    assert found["length/max"] == 9
    assert found["tokens/prompt"] == 20  # once for a group, not once for a response
    assert found["tokens/media"] == 10
    assert found["tokens/response"] == 18
    assert found["media/without"] == 0


def test_variants_of_a_question_have_signal_together() -> None:
    """Share-GRPO's claim: groups of equal rewards, and a question whose answers differ."""
    groups = [make_group(rewards) for rewards in ([1.0, 1.0], [0.0, 0.0], [1.0, 1.0], [1.0, 1.0])]
    named = [
        dataclasses.replace(
            group,
            prompt=dataclasses.replace(
                group.prompt,
                sample=dataclasses.replace(group.prompt.sample, id=question, variant=variant),
            ),
        )
        for group, question, variant in zip(
            groups, "aabb", ("", "turned", "", "turned"), strict=True
        )
    ]
    found = group_metrics(named)
    assert found["share/zero_variance"] == 1.0
    assert found["share/zero_variance_over_variants"] == 0.5
    assert "share/zero_variance_over_variants" not in group_metrics(groups[:1])


def test_tasks_and_modalities_are_split_only_when_there_are_several() -> None:
    one = group_metrics([make_group([1.0, 0.0])])
    assert not [name for name in one if name.startswith(("task/", "modality/"))]
    two = group_metrics(
        [
            make_group([1.0, 0.0], task="count"),
            make_group([1.0, 1.0], task="clip", kinds=["video", "audio"]),
            make_group([0.0, 0.0], task="clip", kinds=[]),
        ]
    )
    assert two["task/count/reward"] == 0.5
    assert two["task/clip/reward"] == 0.5
    assert two["modality/audio+video/reward"] == 1.0
    assert two["modality/text/metric"] == 0.0


def test_an_unscorable_answer_takes_its_group_out_of_the_zero_variance_share() -> None:
    found = group_metrics([make_group([1.0, None]), make_group([1.0, 0.0])])
    assert found["share/zero_variance"] == 0.0  # one known reward has no variance to speak of
    nothing = group_metrics([make_group([None, None])])
    assert math.isnan(nothing["share/zero_variance"])
    assert math.isnan(nothing["reward/mean"])


def test_samples_without_their_media_are_counted() -> None:
    assert group_metrics([make_group([1.0], lost_media=True)])["media/without"] == 1
    assert group_metrics([make_group([1.0], kinds=[])])["media/without"] == 0


def test_no_groups_give_no_numbers_and_no_error() -> None:
    found = group_metrics([])
    assert math.isnan(found["reward/mean"])
    assert found["length/max"] == 0


def test_a_part_may_not_take_a_reserved_name() -> None:
    group = make_group([1.0])
    bad = Group(group.prompt, group.responses, (Score({"mean": 1.0}, 1.0, reward=1.0),))
    with pytest.raises(ValueError, match="part 'mean'"):
        group_metrics([bad])


def test_clock_adds_up_stages_and_restarts() -> None:
    times = iter([0.0, 1.0, 3.0, 3.0, 3.5, 10.0, 12.0])
    clock = Clock(now=lambda: next(times))
    with clock.stage("rollout"):
        pass
    with pytest.raises(KeyError), clock.stage("rollout"):
        raise KeyError
    assert clock.lap() == {"time/rollout": 2.5, "time/step": 10.0}
    assert clock.lap() == {"time/step": 2.0}


def test_memory_is_in_mebibytes() -> None:
    assert 5 < memory_metrics()["memory/peak"] < 500_000


def test_metrics_log_writes_nan_as_null_and_rewinds(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    for step in (1, 2, 3):
        log.write(step, {"reward/mean": math.nan if step == 2 else float(step)})
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[1], parse_constant=pytest.fail) == {"step": 2, "reward/mean": None}
    log.truncate_to_step(2)
    assert [row["step"] for row in log.recent] == [1, 2]
    log.write(3, {"reward/mean": 9.0})
    assert [row["step"] for row in MetricsLog(tmp_path).rows()] == [1, 2, 3]


def steps(count: int, **values: Any) -> list[Mapping[str, Any]]:
    """Rows whose values are constants or functions of the step."""
    names = {name.replace("__", "/"): value for name, value in values.items()}
    return [
        {"step": i, **{n: v(i) if callable(v) else v for n, v in names.items()}}
        for i in range(1, count + 1)
    ]


def test_a_healthy_run_has_no_diagnosis() -> None:
    rows = steps(
        60,
        reward__mean=lambda i: i / 100,
        metric__mean=0.5,
        share__truncated=0.1,
        share__unparsable=0.1,
        share__zero_variance=0.3,
        share__unscorable=0.0,
        media__without=0.0,
        memory__peak=1000.0,
        train__loss=0.1,
    )
    assert diagnose(rows) == []
    assert diagnose([]) == []


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (steps(3, share__truncated=0.82), "82 % of completions hit the length limit of 64 tokens"),
        (steps(3, share__unparsable=0.4), "40 % of answers do not parse"),
        (steps(3, share__unscorable=0.07), "7 % of answers could not be scored"),
        (steps(3, media__without=2.0), "6 samples were trained without their media"),
        (steps(3, share__zero_variance=1.0, metric__mean=0.0), "all groups have equal rewards"),
        (
            steps(
                3, share__zero_variance=1.0, metric__mean=0.0, reward__std=0.0, reward__mean=-2.0
            ),
            "every answer to every prompt earned the same, -2: see",
        ),
        (steps(3, share__zero_variance=0.9, metric__mean=0.95), "nearly solved"),
        (steps(3, train__loss=None), "train/loss is not a number at step 1"),
        (steps(40, reward__mean=lambda i: 0.3 + 0.01 * (-1) ** i), "has not moved in 40 steps"),
        (steps(40, reward__mean=lambda i: 0.8 if i <= 30 else 0.1), "fell from 0.800"),
        (steps(140, memory__peak=lambda i: 1000 + 3.5 * i), "host memory grows by 3.5 MiB a step"),
        (steps(140, memory__cuda_peak=lambda i: 9.0 * i), "GPU memory grows by 9.0 MiB a step"),
    ],
)
def test_diagnosis_names_the_trouble_and_the_remedy(rows: Any, expected: str) -> None:
    (line,) = diagnose(rows, max_new_tokens=64)
    assert expected in line
    assert ":" in line


@pytest.mark.parametrize(
    ("held_out", "sampled", "said"),
    [
        ({"metric": 0.6}, 0.2, True),
        ({"metric": 0.6, "better": "higher", "others": []}, 0.2, True),
        ({"metric": 0.6}, 0.45, False),
        ({"metric": 0.12}, 0.06, False),  # half, but of next to nothing
        ({"metric": 0.6, "better": "lower"}, 0.2, False),
        ({"metric": 0.6, "others": [{}]}, 0.2, False),
        ({"metric": None}, 0.2, False),
        ({}, 0.2, False),
        ({"metric": 0.6}, math.nan, False),
    ],
    ids=str,
)
def test_sampled_answers_far_below_greedy_ones_are_told(
    held_out: Mapping[str, Any], sampled: float, said: bool
) -> None:
    lines = diagnose(steps(3, metric__mean=sampled), held_out=held_out)
    assert len(lines) == said
    if said:
        assert "score 0.200 where greedy ones score 0.600" in lines[0]


def test_answers_that_were_cut_off_are_not_called_unparsable_too() -> None:
    lines = diagnose(steps(3, share__truncated=0.6, share__unparsable=0.7))
    assert len(lines) == 1
    assert "length limit" in lines[0]


def test_a_phase_is_not_compared_with_the_one_before() -> None:
    rows = steps(
        45,
        phase=lambda i: 1.0 if i <= 40 else 2.0,
        reward__mean=lambda i: 1.1 if i <= 40 else 0.2,
        share__unparsable=lambda i: 1.0 if i <= 40 else 0.1,
        memory__peak=lambda i: 3.5 * i,
        media__without=lambda i: float(i == 1),
    )
    (line,) = diagnose(rows)
    assert "without their media" in line


def test_one_jump_of_memory_is_no_leak() -> None:
    assert memory_slope([(i, 1000.0 if i < 15 else 3000.0) for i in range(21)]) == 0
    assert memory_slope([(i, 1000.0 + 2 * i) for i in range(20)]) == 0  # too few steps
    assert memory_slope([(i, 1000.0 + 2 * i) for i in range(21)]) == pytest.approx(2.0)


def test_long_work_says_now_and_then_how_far_it_is() -> None:
    times = iter([0.0, 10.0, 30.0, 45.0, 60.0, 90.0])  # of the start and of five calls
    said: list[str] = []
    hear = now_and_then(said.append, "records", 100, clock=lambda: next(times))
    for done in (10, 25, 40, 50, 100):
        hear(done)
    assert said == [
        "25 of 100 records, 1 min 30 s left",  # 30 s for 25: 75 take three times as long
        "50 of 100 records, 1 min 0 s left",
    ]


class Broken:
    def __init__(self, run: Path, config: Mapping[str, Any]) -> None:
        self.closed = False

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        raise ConnectionError("host is away")

    def close(self) -> None:
        self.closed = True


def test_a_failing_tracker_is_reported_once_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "KNOWN", {"broken": Broken})
    monkeypatch.setattr(trackers, "PACKAGES", {"broken": "json"})
    said: list[str] = []
    sinks = Trackers(["broken"], tmp_path, {}, said.append)
    for step in range(3):
        sinks.log(step, {"reward/mean": 1.0})
    sinks.close()
    assert sinks.failures == {"broken": 3}
    assert said == ["tracker broken failed, the run goes on: host is away"]


def test_trackers_get_finite_values_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Mapping[str, float]] = []

    class Good(Broken):
        def log(self, step: int, metrics: Mapping[str, float]) -> None:
            seen.append(metrics)

    monkeypatch.setattr(trackers, "KNOWN", {"good": Good})
    monkeypatch.setattr(trackers, "PACKAGES", {"good": "json"})
    Trackers(["good"], tmp_path, {}).log(1, {"a": 1.0, "b": math.nan})
    assert seen == [{"a": 1.0}]


def test_a_tracker_that_is_not_there_is_a_users_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="choose from tensorboard, wandb, trackio, mlflow"):
        Trackers(["tensorbord"], tmp_path, {})
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    with pytest.raises(UserError, match="pip install wandb"):
        Trackers(["wandb"], tmp_path, {})


def test_progress_writes_plain_lines_where_there_is_no_terminal() -> None:
    out = io.StringIO()
    with Progress(10, done=2, console=Console(file=out, width=100)) as progress:
        progress.step(3, {"reward/mean": 0.25, "time/step": 2.0})
        progress.say("[red]not markup[/red]")
    assert out.getvalue().splitlines() == [
        "step 3/10  reward 0.250  2.0 s/step  14 s left",
        "[red]not markup[/red]",
    ]


def test_progress_draws_a_bar_on_a_terminal() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100)
    with Progress(10, done=2, console=console) as progress:
        progress.step(3, {"reward/mean": 0.25, "time/step": 2.0})
    assert "3/10" in out.getvalue()
    assert "14 s left" in out.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"), [(45.4, "45 s"), (125, "2 min 5 s"), (12_000, "3 h 20 min")]
)
def test_durations_read_as_people_write_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text
