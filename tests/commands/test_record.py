"""What `mmrl record` says is there when it is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mmrl.cli import main
from mmrl.environments import recording
from mmrl.errors import UserError
from tests.conftest import TINY
from tests.runs import write_config


def test_no_episodes_are_told_before_they_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: Any) -> int:
        raise UserError("gymnasium is not installed")

    monkeypatch.setattr(recording, "record", fails)
    data = {"task": "hosted", "path": str(tmp_path / "train.jsonl"), "params": PARAMS}
    values: dict[str, Any] = {"run": str(tmp_path / "run"), "model": {"path": TINY}, "data": data}
    values |= {"algorithm": {"name": "grpo"}, "trainer": {"steps": 1}}
    config = write_config(tmp_path / "run.yaml", values)
    assert main(["record", str(config), "--train", "3", "--test", "0"]) == 2
    assert capsys.readouterr().err == "mmrl: gymnasium is not installed\n"


PARAMS = {"host": "gymnasium", "settings": {"env": "CartPole-v1"}}
