"""A run has its folder to itself, and replaces another only once it has made a step."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from mmrl.errors import ConfigError
from mmrl.runlog.claim import Claim, claimed, refuse

HOLD = """
import sys, time
from pathlib import Path
from mmrl.runlog.claim import claimed
with claimed(Path(sys.argv[1]), resume=False, overwrite=True, say=print):
    (Path(sys.argv[1]) / "config.yaml").write_text("new")
    print("held", flush=True)
    time.sleep(600)
"""


def claim(run: Path, *flags: str, said: list[str] | None = None) -> AbstractContextManager[Claim]:
    said = [] if said is None else said
    given = {name: name in flags for name in ("resume", "overwrite")}
    return claimed(run, say=said.append, **given)


def trained(run: Path) -> Path:
    """A folder as a run leaves it that made a step."""
    (run / "checkpoints" / "step_1").mkdir(parents=True)
    (run / "config.yaml").write_text("old")
    (run / "metrics.jsonl").write_text("{}\n")
    return run


def contents(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "a.b"


def hold(run: Path) -> subprocess.Popen[str]:
    """Another process that has the folder and has not made a step."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_new_run_has_a_new_folder_and_leaves_no_lock(run: Path) -> None:
    with claim(run) as held:
        assert run.is_dir() and not held.replacing
        (run / "config.yaml").write_text("")
        held.settle()
    assert contents(run.parent) == {"a.b", "a.b/config.yaml"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_start_that_fails_leaves_the_run_that_it_was_to_replace(
    error: type[BaseException], run: Path
) -> None:
    before, said = contents(trained(run)), list[str]()
    with pytest.raises(error), claim(run, "overwrite", said=said) as held:
        assert held.replacing and not any(run.iterdir())
        (run / "quarantine.jsonl").write_text("why")
        raise error
    assert contents(run) == before and (run / "config.yaml").read_text() == "old"
    assert (run.parent / "a.b.failed" / "quarantine.jsonl").read_text() == "why"
    assert len(said) == 1 and "is as it was" in said[0]
    assert {path.name for path in run.parent.iterdir()} == {"a.b", "a.b.failed"}


def test_after_a_step_the_run_before_is_gone(run: Path) -> None:
    trained(run)
    with pytest.raises(ValueError, match="later"), claim(run, "overwrite") as held:
        (run / "config.yaml").write_text("new")
        held.settle()
        held.settle()
        raise ValueError("later")
    assert contents(run.parent) == {"a.b", "a.b/config.yaml"}


def test_a_start_that_was_killed_is_undone_by_the_next(run: Path) -> None:
    before = contents(trained(run))
    process = hold(run)
    assert (run / "config.yaml").read_text() == "new"
    process.send_signal(signal.SIGKILL)
    process.wait()
    # What is asked for is refused as if the killed one had never been.
    with pytest.raises(ConfigError, match="holds a run already: pass --resume"):
        refuse(run, resume=False, overwrite=False)
    said: list[str] = []
    with claim(run, "resume", said=said):
        assert contents(run) == before and "is as it was" in said[0]
    assert contents(run) == before


def test_a_run_that_was_given_up_halfway_does_not_come_back(run: Path) -> None:
    trained(run.with_name("a.b.removing"))
    with claim(run) as held:
        (run / "config.yaml").write_text("new")
        held.settle()
    assert contents(run.parent) == {"a.b", "a.b/config.yaml"}


@pytest.mark.parametrize("flags", [(), ("resume",), ("overwrite",)])
def test_a_folder_in_use_is_refused_and_says_by_whom(flags: tuple[str, ...], run: Path) -> None:
    process = hold(run)
    try:
        with pytest.raises(ConfigError) as error, claim(run, *flags):
            pass
        assert f"{run} is in use by process {process.pid} on " in str(error.value)
        assert (run / "config.yaml").read_text() == "new", "it was left alone"
    finally:
        process.kill()
        process.wait()
    with claim(run, *flags):
        pass


def test_a_lock_of_a_process_that_is_gone_does_not_count(run: Path) -> None:
    run.parent.mkdir()
    stale = run.with_name(".a.b.lock")
    stale.write_text(json.dumps({"pid": os.getpid(), "host": "here", "since": "long ago"}))
    with claim(run):
        assert json.loads(stale.read_text())["since"] != "long ago"
    assert not stale.exists()


def test_what_is_no_run_is_never_taken(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ConfigError, match="holds no run"), claim(tmp_path, "overwrite"):
        pass
    with pytest.raises(ConfigError, match="is a file"), claim(tmp_path / "thesis.tex"):
        pass
    with (
        pytest.raises(ConfigError, match="cannot be written"),
        claim(tmp_path / "thesis.tex" / "a"),
    ):
        pass
    assert contents(tmp_path) == {"thesis.tex"}
