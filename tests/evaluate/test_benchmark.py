"""`mmrl eval`, start to end on the shipped model: resumable, counted, written, readable."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mmrl.cli import main
from mmrl.engines.engine import Engine, Sampling
from mmrl.errors import UserError
from mmrl.evaluate import ask, benchmark
from mmrl.evaluate.answers import Answers, question_of
from mmrl.evaluate.benchmark import (
    OF_EPISODES,
    EvalConfig,
    _settings,
    run_benchmark,
    settings_of,
)
from mmrl.policy.weights import Weights
from mmrl.scoring.tasks import fixture_path, load_task
from mmrl.types import MediaRef, Prompt, Response, Text
from mmrl.validation import validate

TASK = "digit_count"


class Interrupted(Exception):
    """Stands for a kill."""


class Watched:
    """The real engine; remembers whom it asked, and stops at the `stop_at`th call."""

    def __init__(self, engine: Engine, asked: list[str], stop_at: int) -> None:
        self._engine, self._asked, self._stop_at = engine, asked, stop_at
        self._calls = 0

    def generate(
        self, prompts: Sequence[Prompt], counts: Sequence[int], sampling: Sampling, seed: int
    ) -> list[list[Response]]:
        self._calls += 1
        if self._calls == self._stop_at:
            raise Interrupted
        self._asked += [prompt.sample.id for prompt in prompts]
        return self._engine.generate(prompts, counts, sampling, seed)

    def sync(self, weights: Weights) -> None:
        self._engine.sync(weights)

    def close(self) -> None:
        self._engine.close()


def settings(out: Path | None, **changes: Any) -> EvalConfig:
    values = {
        "task": TASK,
        "data": fixture_path(TASK),
        "model": {"path": "asset:tiny_qwen2_5_vl"},
        "rollout": {"max_new_tokens": 8, "scoring_workers": 1},
        "out": out,
    }
    return validate(EvalConfig, {**values, **changes}, "test")


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the engines of later evaluations watched; returns the list of those asked."""

    def start(stop_at: int = 0) -> list[str]:
        asked: list[str] = []
        monkeypatch.setattr(
            benchmark, "build_engine", lambda *a: Watched(build(*a), asked, stop_at)
        )
        return asked

    build = benchmark.build_engine
    monkeypatch.setattr(ask, "ANSWERS_AT_ONCE", 4)
    return start


def test_a_killed_evaluation_goes_on_and_asks_none_twice(tmp_path: Path, watch: Any) -> None:
    sampled = {"samples": 2, "temperature": 1.0}
    watch()
    whole = run_benchmark(settings(tmp_path / "whole.json", **sampled)).evaluation
    config = settings(tmp_path / "killed.json", **sampled)
    first = watch(stop_at=2)
    with pytest.raises(Interrupted):
        run_benchmark(config)
    assert len(first) == 2
    with (tmp_path / "killed.answers/answers.jsonl").open("ab") as file:
        file.write(b'{"id": "half a li')
    second = watch()
    assert run_benchmark(config).evaluation == whole
    assert len(first + second) == len(set(first + second)) == whole.records
    third = watch()
    assert run_benchmark(config).evaluation == whole and not third


def test_the_files_say_what_was_found(tmp_path: Path) -> None:
    run_benchmark(settings(tmp_path / "e.json"))
    written = json.loads((tmp_path / "e.json").read_text())
    assert written["records"] == len(written["answers"]) == 6
    assert written["settings"]["task"] == TASK and "denominator" in written["convention"]
    page = (tmp_path / "e.html").read_text()
    assert all(row["id"] in page for row in written["answers"])
    assert page.count("data:image/jpeg;base64,") == 6


def test_records_that_cannot_be_asked_or_seen_are_counted(tmp_path: Path) -> None:
    fixture = fixture_path(TASK)
    rows = [json.loads(line) for line in fixture.read_text().splitlines()[:3]]
    image = (fixture.parent / rows[0]["image"]).read_bytes()
    (tmp_path / "0.png").write_bytes(image)
    (tmp_path / "1.png").write_bytes(image[: len(image) // 2])
    rows[0]["image"], rows[1]["image"], rows[2]["count"] = "0.png", "1.png", "no number"
    data = tmp_path / "records.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = run_benchmark(settings(tmp_path / "e.json", data=data)).evaluation
    assert (found.records, found.unreadable, len(found.rejected)) == (2, 1, 1)
    assert found.metric in (0.0, 0.5)
    page = (tmp_path / "e.html").read_text()
    assert "Rejected records" in page and "not asked:" in page


LOST = """
from dataclasses import replace
from mmrl.tasks.digit_count.task import Task as Count
from mmrl.types import Observation


class Lost(Count):
    def sample(self, record):
        return replace(super().sample(record), start=Observation({}, "0"), turns=2)

    def step(self, gold, state, answer):
        if gold % 2:
            raise RuntimeError("the simulator is gone")
        return Observation(state, "1", done=True)
"""


def test_an_episode_whose_environment_failed_has_no_verdict(tmp_path: Path) -> None:
    (tmp_path / "lost.py").write_text(LOST)
    rows = [json.loads(line) for line in fixture_path(TASK).read_text().splitlines()]
    odd = sum(row["count"] % 2 for row in rows)
    config = settings(tmp_path / "e.json", task=f"{tmp_path / 'lost.py'}:Lost")
    for _ in range(2):  # the second time from the answers that were kept
        found = run_benchmark(config).evaluation
        assert 0 < odd < found.records == len(rows) and found.unscorable == odd
    reasons = [row["reason"] for row in json.loads((tmp_path / "e.json").read_text())["answers"]]
    assert sum("the simulator is gone" in reason for reason in reasons) == odd


def test_the_official_reading_stands_beside_the_strict_one(tmp_path: Path) -> None:
    config = settings(None, task="mmmu", data=fixture_path("mmmu"))
    found = run_benchmark(config).evaluation
    assert found.official is not None
    assert found.official["params"] == {"extractor": "official"}
    same = replace_params(config, extractor="official")
    main_number = run_benchmark(same).evaluation
    assert main_number.official is None
    assert main_number.metric == found.official["metric"]


def replace_params(config: EvalConfig, **params: Any) -> EvalConfig:
    return config.model_copy(update={"params": params})


def test_other_weights_or_sampling_do_not_mix(tmp_path: Path) -> None:
    run_benchmark(settings(tmp_path / "e.json", limit=1))
    with pytest.raises(UserError, match=r"holds answers with temperature 0\.0, not 0\.5"):
        run_benchmark(settings(tmp_path / "e.json", limit=1, temperature=0.5))
    run_benchmark(settings(tmp_path / "e.json", limit=1, temperature=0.5), overwrite=True)


def test_a_changed_question_is_asked_again() -> None:
    task = load_task(TASK)
    sample = task.sample(next(iter(task.records(fixture_path(TASK)))))
    other = replace(sample, parts=(*sample.parts, Text("?")))
    turned = replace(
        sample,
        parts=tuple(
            replace(p, options={"turn": "mirror"}) if isinstance(p, MediaRef) else p
            for p in sample.parts
        ),
    )
    asked = {question_of(s) for s in (sample, other, turned, replace(sample, system="x"))}
    assert len(asked) == 4
    assert question_of(replace(sample, gold="another")) == question_of(sample)
    assert Answers().find(sample, 1) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": 2, "temperature": 0.0}, "greedy answers are all the same"),
        ({"samples": 2, "k": (1, 3)}, "k goes from 1 to samples, which is 2"),
        ({"sample": 2}, "did you mean 'samples'"),
        ({"limit": 0}, "greater than 0"),
    ],
)
def test_mistakes_are_told_in_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        settings(None, **changes)


def test_flags_and_overrides_make_the_settings() -> None:
    flags = dict.fromkeys(EvalConfig.model_fields) | {"engine": "vllm", "max_new_tokens": 5}
    flags |= {"model": "m", "task": TASK, "samples": 6}
    config = settings_of(flags, ["model.dtype=bfloat16", "params.think=none"])
    assert config.rollout.engine == "vllm" and config.rollout.max_new_tokens == 5
    assert config.model.dtype == "bfloat16" and config.params == {"think": "none"}
    assert config.data == fixture_path(TASK)
    assert config.ks == (1, 2, 4, 6) and config.asking.sampling.temperature == 1.0


@pytest.mark.parametrize("name", OF_EPISODES)
def test_answers_to_other_episodes_are_other_answers(name: str) -> None:
    """They are not taken for those of an evaluation that plays with other limits or histories."""
    rollout = {"max_new_tokens": 8, "history_screens": 2}
    plain = settings(None, rollout=rollout)
    other = settings(None, rollout={**rollout, name: 64})
    assert _settings(other) == {**_settings(plain), name: 64}


def test_the_command_prints_the_number(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--model", "asset:tiny_qwen2_5_vl", "--task", TASK, "--limit", "2"]
    assert main(["eval", *flags, "--max-new-tokens", "4"]) == 0
    assert "digit_count accuracy" in capsys.readouterr().out
    assert main(["eval", *flags, "--samples", "0"]) == 2
    assert "samples" in capsys.readouterr().err
