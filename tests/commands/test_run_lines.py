"""What a run says while it works, so that nobody waits before a silent terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmrl.config import RunConfig
from mmrl.train.run import train
from tests.runs import make_digits, run_config


def test_it_says_what_it_loads_asks_and_how_flat_the_policy_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digits = make_digits(tmp_path / "digits")
    config = run_config(
        tmp_path / "run",
        digits,
        model={"freeze_tower": True},
        rollout={"temperature": 50.0},  # answers are noise, greedy ones are not
        trainer={"steps": 1},
    )
    train(RunConfig.model_validate(config))
    said = capsys.readouterr().err
    expected = (
        f"loading {config['model']['path']}\n",
        "Qwen2_5_VLForConditionalGeneration: 1.",
        "eval before: asking 8 records of digit_count\n",
        "eval before: digit_count accuracy",
        "sampled answers score 0.000 where greedy ones score",
        "step 1/1",
    )
    places = [said.index(line) for line in expected]
    assert places == sorted(places)
    assert said.count("sampled answers score") == 2, "at the first step, and in the diagnosis"
