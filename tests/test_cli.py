"""The command line answers at once and fails in one line."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmrl.cli import main


def test_help_is_instant_and_imports_no_torch() -> None:
    code = "import sys, mmrl.cli\ntry: mmrl.cli.main(['--help'])\nexcept SystemExit: pass\n"
    check = "heavy = {'torch', 'transformers', 'vllm'} & set(sys.modules)\nassert not heavy, heavy"
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code + check], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - started < 1.0
    assert "train" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "none.yaml"], "no config file at none.yaml"),
        (["report", "nowhere"], "no run folder at nowhere"),
        (["tasks", "digit_cuont"], "did you mean 'digit_count'?"),
        (["data", "digit", "--out", "x"], "did you mean 'digits'?"),
        (["eval", "--model", "nowhere", "--task", "digit_count"], "no model at nowhere"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_lists(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tasks"]) == 0
    assert main(["algorithms"]) == 0
    printed = capsys.readouterr().out
    for name in ("digit_count", "geometry3k", "grpo"):
        assert name in printed


def test_overrides_may_follow_flags(capsys: pytest.CaptureFixture[str]) -> None:
    config = str(Path(__file__).parent.parent / "configs" / "quickstart.yaml")
    assert main(["train", config, "seed=3", "--print-config", "trainer.steps=7"]) == 0
    printed = capsys.readouterr().out
    assert "seed: 3" in printed and "steps: 7" in printed
    with pytest.raises(SystemExit) as stop:
        main(["train", config, "--no-such-flag"])
    assert stop.value.code == 2


def test_print_config_resolves_overrides(capsys: pytest.CaptureFixture[str]) -> None:
    config = Path(__file__).parent.parent / "configs" / "quickstart.yaml"
    assert main(["train", str(config), "algorithm.group_size=4", "--print-config"]) == 0
    assert "group_size: 4" in capsys.readouterr().out
