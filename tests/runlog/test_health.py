"""Each alarm has rows that set it off and rows that do not; what a run does about it."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mmrl.alarm import ALARMS, Alarm
from mmrl.cli import main
from mmrl.commands.watch import sparkline
from mmrl.config import RunConfig
from mmrl.errors import ConfigError, TrainingError
from mmrl.runlog.diagnosis import alarms
from mmrl.runlog.health import EVERY_SECONDS, Health, how_it_goes
from mmrl.runlog.journal import Journal
from mmrl.train.run import train
from mmrl.validation import validate
from tests.runs import make_digits, run_config

Value = float | None | Callable[[int], float | None]


def rows(count: int, **names: Value) -> list[dict[str, Any]]:
    """Rows of steps 1 to `count`; `a__b` stands for the number a/b."""
    return [
        {"step": i, **{n.replace("__", "/"): v(i) if callable(v) else v for n, v in names.items()}}
        for i in range(1, count + 1)
    ]


def wave(i: int) -> float:
    """Noise of mean 0 and spread 1."""
    return math.sqrt(2) * math.sin(1.7 * i)


SETS_OFF: Mapping[Alarm, list[dict[str, Any]]] = {
    "blind": rows(1, media__without=1.0),
    "not_a_number": rows(1, train__loss=None),
    "skipped": rows(10, train__updates=2.0, train__skipped=lambda i: float(i in (3, 5, 8))),
    "truncated": rows(10, share__truncated=0.26),
    "unscorable": rows(10, share__unscorable=0.03),
    "unparsable": rows(10, share__unparsable=0.26),
    "thoughtless": rows(10, share__empty_thought=0.95),
    "equal": rows(10, share__zero_variance=0.85),
    "hacked": rows(
        60,
        reward__mean=lambda i: 0.5 + 0.005 * i + 0.02 * wave(i),
        reward__format=lambda i: 0.1 + 0.01 * i + 0.02 * wave(i),
        metric__mean=lambda i: 0.5 - 0.005 * i + 0.02 * wave(i),
    ),
    "collapsed": rows(40, reward__mean=lambda i: 0.8 if i < 25 else 0.3),
    "spiked": rows(40, train__grad_norm=lambda i: 11.0 if i == 35 else 1 + 0.2 * wave(i)),
    "certain": rows(40, train__entropy=lambda i: 1.0 if i < 15 else 0.05, metric__mean=0.4),
    "drifted": rows(12, **{"parity__image__mean": lambda i: 0.01 if i < 12 else 0.08}),
    "longer": rows(39, length__mean=lambda i: 90.0 + 6 * i, reward__mean=lambda i: 0.4 + wave(i)),
    "flat": rows(60, reward__mean=lambda i: 0.4 + 0.1 * wave(i)),
    "leaking": rows(130, memory__peak=lambda i: 1000 + 2.5 * i),
}

DOES_NOT: Mapping[Alarm, list[dict[str, Any]]] = {
    "blind": rows(1, media__without=0.0),
    "not_a_number": rows(1, train__loss=0.0, train__grad_norm=1e30),
    "skipped": rows(10, train__updates=2.0, train__skipped=lambda i: float(i in (3, 5))),
    "truncated": rows(10, share__truncated=0.24),
    "unscorable": rows(10, share__unscorable=0.01),
    "unparsable": rows(10, share__unparsable=0.7, share__truncated=0.6),
    "thoughtless": rows(10, share__empty_thought=0.85),
    "equal": rows(10, share__zero_variance=0.75),
    "hacked": rows(  # both rise, though by different parts
        60,
        reward__mean=lambda i: 0.5 + 0.005 * i + 0.02 * wave(i),
        metric__mean=lambda i: 0.5 + 0.001 * i + 0.2 * wave(i),
    ),
    "collapsed": rows(40, reward__mean=lambda i: 0.8 if i < 25 else 0.5),
    "spiked": rows(40, train__grad_norm=lambda i: 9.0 if i == 35 else 1 + 0.2 * wave(i)),
    "certain": rows(40, train__entropy=lambda i: 1.0 if i < 15 else 0.05, metric__mean=0.95),
    "drifted": rows(12, **{"parity__image__mean": lambda i: 0.02 if i < 12 else 0.08}),
    "longer": rows(
        60, length__mean=lambda i: 90.0 + 6 * i, reward__mean=lambda i: 0.4 + 0.02 * i + wave(i) / 9
    ),
    "flat": rows(60, reward__mean=lambda i: 0.4 + 0.005 * i + 0.1 * wave(i)),
    "leaking": rows(130, memory__peak=lambda i: 1000 + 60 * (i > 115)),
}


@pytest.mark.parametrize("name", SETS_OFF)
def test_an_alarm_is_set_off_by_what_it_watches_for_alone(name: Alarm) -> None:
    assert list(alarms(SETS_OFF[name])) == [name]
    assert name not in alarms(DOES_NOT[name])


def test_every_alarm_has_its_rows() -> None:
    assert set(SETS_OFF) == set(DOES_NOT) == set(ALARMS) - {"flatter"}  # see test_metrics.py


def test_media_that_are_kept_are_no_leak() -> None:
    grows = {"memory__peak": lambda i: 1000 + 7.5 * i}
    assert alarms(rows(130, **grows, memory__media=lambda i: 6.0 * i)) == {}
    assert list(alarms(rows(130, **grows, memory__media=lambda i: 5.0 * i))) == ["leaking"]


def test_a_part_that_is_hacked_is_named() -> None:
    assert "reward/format rises most" in alarms(SETS_OFF["hacked"])["hacked"]


def test_an_alarm_is_told_when_it_begins_and_when_it_comes_back() -> None:
    said: list[str] = []
    health = Health(said.append, {"equal": "ignore"})
    cut = [0.5] * 12 + [0.0] * 15 + [0.5] * 15
    every = rows(len(cut), share__truncated=lambda i: cut[i - 1], share__zero_variance=1.0)
    for i in range(1, len(every) + 1):
        assert health.look(every[:i], max_new_tokens=64) is None
    steps = [line.split(",")[0] for line in said]
    # At first once a window is full; away at 18, with 5 of 10 cut; back at 33 with 6 of 10.
    assert steps == ["step 10", "step 33"]
    assert "alarm 'truncated': 50 % of completions hit the length limit of 64 tokens" in said[0]


def test_an_alarm_that_stops_is_returned_and_not_said() -> None:
    said: list[str] = []
    for action in ("stop", "roll_back"):
        wrong = Health(said.append, {"blind": action}).look(SETS_OFF["blind"], 64)
        assert wrong is not None and wrong.does == action
        assert wrong.line.startswith("alarm 'blind': 1 samples")
    assert said == []


def test_what_was_before_a_roll_back_sets_nothing_off() -> None:
    every = SETS_OFF["blind"]
    said: list[str] = []
    health = Health(said.append, {"blind": "stop"}, since=int(every[-1]["step"]))
    later = {**every[-1], "step": every[-1]["step"] + 1, "media/without": 0.0}
    assert health.look([*every, later], 64) is None and not said


def test_now_and_then_a_line_says_how_it_goes() -> None:
    said: list[str] = []
    times = iter([0.0, 1.0, EVERY_SECONDS, EVERY_SECONDS, EVERY_SECONDS + 1])
    health = Health(said.append, {}, clock=lambda: next(times))
    good = rows(5, reward__mean=0.5, metric__mean=0.25, length__mean=83.2, share__truncated=0.03)
    for _ in range(3):
        health.look(good, 64)
    assert said == [
        "after 10 min 0 s: step 5; reward 0.500; metric 0.250; answers of 83 tokens, 3 % cut; "
        "nothing is wrong"
    ]
    longer = rows(120, reward__mean=lambda i: i / 100)
    assert "reward 1.155, 0.655 50 steps ago" in how_it_goes(longer)


def test_a_run_stops_at_an_alarm_and_goes_on_from_its_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digits = make_digits(tmp_path / "digits", train=12, test=2)
    options: dict[str, Any] = {
        "rollout": {"max_new_tokens": 1},  # every answer is cut
    }
    asked = {"steps": 14, "prompts_per_step": 2}
    stop = {**asked, "on_alarm": {"truncated": "stop", "equal": "ignore"}}
    run = tmp_path / "run"
    config = run_config(run, digits, trainer=stop, **options)
    with pytest.raises(TrainingError, match=r"^stopped after step 10, alarm 'truncated': 100 %"):
        train(validate(RunConfig, config, "test"))
    warned = run_config(run, digits, trainer={**stop, "on_alarm": {}}, **options)
    train(validate(RunConfig, warned, "test"), resume=True, allow_changes=True)
    said = capsys.readouterr().err
    assert "step 11" in said
    found = list(Journal(run / "metrics.jsonl").rows())
    assert [row["step"] for row in found] == list(range(1, 15))


def test_a_run_goes_back_at_an_alarm_and_on_with_other_records(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digits = make_digits(tmp_path / "digits", train=60, test=2)
    trainer = {
        "steps": 14,
        "prompts_per_step": 2,
        "checkpoint_every": 4,
        "keep_checkpoints": 9,
        "on_alarm": {"truncated": "roll_back", "equal": "ignore"},
    }
    run = tmp_path / "run"
    # Answers of one token all earn the same; weights move by their decay.
    decay = {"learning_rate": 1e-2, "weight_decay": 0.1}
    options: dict[str, Any] = {"rollout": {"max_new_tokens": 1}, "optimizer": decay}
    config = run_config(run, digits, trainer=trainer, **options)
    result = train(validate(RunConfig, config, "test"))
    assert result["steps"] == 14
    said = capsys.readouterr().err
    assert "step 10, alarm 'truncated': 100 %" in said and "back to the weights of step 8" in said
    weights = {
        step: load_file(run / "checkpoints" / f"step_{step}" / "model.safetensors")
        for step in (4, 8, 10, 12)
    }
    equal = {
        step: all(torch.equal(weights[8][name], value) for name, value in weights[step].items())
        for step in weights
    }
    assert equal == {4: False, 8: True, 10: True, 12: False}
    moments = {
        step: load_file(run / "checkpoints" / f"step_{step}" / "trainer" / "optimizer.safetensors")
        for step in (8, 10)
    }
    assert all(torch.equal(moments[8][name], value) for name, value in moments[10].items())
    updates = [
        json.loads((run / "checkpoints" / f"step_{step}" / "trainer" / "state.json").read_text())
        for step in (8, 10)
    ]
    assert updates[0]["backend"] == updates[1]["backend"]
    rows = list(Journal(run / "consumed.jsonl").rows())
    assert [row["step"] for row in rows] == list(range(1, 15)), "no step is made again"
    drawn = [name for row in rows for name in row["ids"]]
    assert len(set(drawn)) == len(drawn), "no record either"
    # A run that is killed after it went back knows that it did.
    shutil.rmtree(run / "checkpoints" / "step_14")
    (run / "result.json").unlink()
    train(validate(RunConfig, config, "test"), resume=True)
    again = load_file(run / "checkpoints" / "step_14" / "model.safetensors")
    assert again.keys() == weights[12].keys()
    assert "alarm" not in capsys.readouterr().err


def test_a_run_that_has_nothing_to_go_back_to_stops(tmp_path: Path) -> None:
    digits = make_digits(tmp_path / "digits", train=60, test=2)
    trainer = {"steps": 14, "prompts_per_step": 2, "checkpoint_every": 12}
    trainer["on_alarm"] = {"truncated": "roll_back", "equal": "ignore"}
    config = run_config(tmp_path / "run", digits, trainer=trainer, rollout={"max_new_tokens": 1})
    with pytest.raises(TrainingError, match=r"^step 10, .*no checkpoint to go back to"):
        train(validate(RunConfig, config, "test"))


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({}, "roll_back needs trainer.checkpoint_every"),
        (
            {
                "rollout": {"engine": "hf_copy", "max_staleness": 1},
                "trainer": {"checkpoint_every": 2},
            },
            "set rollout.max_staleness=0",
        ),
    ],
)
def test_going_back_wants_a_checkpoint_and_answers_of_now(
    tmp_path: Path, sections: dict[str, Any], message: str
) -> None:
    trainer = {"on_alarm": {"truncated": "roll_back"}, **sections.get("trainer", {})}
    config = run_config(tmp_path, tmp_path, **{**sections, "trainer": trainer})
    with pytest.raises(ConfigError, match=re.escape(message)):
        validate(RunConfig, config, "test")


def test_the_page_and_the_command_know_every_alarm(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "read_your_run.md").read_text(encoding="utf-8")
    assert [
        line.split("`")[1] for line in page.splitlines() if re.match(r"\| `\w+` \| ", line)
    ] == [*ALARMS]
    (tmp_path / "config.yaml").write_text(
        "trainer: {steps: 30}\nphases: [{trainer: {steps: 12}}, {name: rl}]\n"
    )
    assert main(["watch", str(tmp_path), "--once"]) == 0
    assert capsys.readouterr().out == "no step yet\n"
    Journal(tmp_path / "metrics.jsonl").append(
        rows(40, reward__mean=lambda i: i / 10, share__truncated=0.5, time__step=90.0)
    )
    assert main(["watch", str(tmp_path)]) == 0  # no terminal: once
    first, reward, goes, alarm = capsys.readouterr().out.splitlines()
    assert first == f"{tmp_path}: step 40 of 42, 3 min 0 s left"
    assert reward == f"  reward/mean     {sparkline([i / 10 for i in range(1, 41)])} 4"
    assert reward.count("▁") == reward.count("█") == 3  # of 40 steps over 8 heights, ends half
    assert goes.endswith("alarms: truncated")
    assert alarm.startswith("alarm 'truncated': 50 %")
    (tmp_path / "result.json").write_text("{}")
    assert main(["watch", str(tmp_path), "--json"]) == 0
    seen = json.loads(capsys.readouterr().out)
    assert (seen["step"], seen["steps"], seen["ended"]) == (40, 42, True)
    assert main(["watch", str(tmp_path / "none")]) == 2


def test_what_cut_an_episode_short_is_told_apart() -> None:
    """An answer of 64 tokens met that limit; episodes of 40 met another, that of a turn."""
    cut = rows(10, share__truncated=1.0, turns__mean=2.0, length__max=40.0)
    assert "raise rollout.max_turn_tokens" in alarms(cut, max_new_tokens=64)["truncated"]
    whole = rows(10, share__truncated=1.0, turns__mean=2.0, length__max=64.0)
    assert "raise rollout.max_new_tokens" in alarms(whole, max_new_tokens=64)["truncated"]
