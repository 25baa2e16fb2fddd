"""A run has its folder to itself, and takes another's place once it has trained a step.

.RUN.lock        held while a run lives, and gone with it; it names who holds it
RUN.replaced     the run that `--overwrite` replaces, until the new one has made its first step
RUN.failed       what a run left that was to replace another and never made a step

Nothing here needs torch.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from mmrl.errors import ConfigError

CONFIG = "config.yaml"


class Claim:
    """A folder that is this process's; of a process that does not write, nothing."""

    def __init__(self, replaced: Path | None = None) -> None:
        self._replaced = replaced

    @property
    def replacing(self) -> bool:
        """True until the run that was there before is given up."""
        return self._replaced is not None

    def settle(self) -> None:
        """Give up the run that was there before: this one has made a step."""
        if self._replaced is None:
            return
        # Half removed, it must not be taken for a run to put back.
        removing = self._replaced.with_suffix(".removing")
        os.replace(self._replaced, removing)
        self._replaced = None
        shutil.rmtree(removing)


def refuse(run: Path, *, resume: bool, overwrite: bool) -> None:
    """Raise ConfigError where a folder is not to be written into as it was asked."""
    if run.exists() and not run.is_dir():
        raise ConfigError(f"{run} is a file: choose another run=")
    there = _replaced(run) if is_run(_replaced(run)) else run
    if resume or not there.is_dir() or not any(there.iterdir()):
        return
    if not is_run(there):
        raise ConfigError(f"{run} is not empty and holds no run: choose another run=")
    if not overwrite and has_results(there):
        raise ConfigError(
            f"{run} holds a run already: pass --resume to go on with it, "
            "--overwrite to replace it, or run=ANOTHER_FOLDER"
        )


@contextmanager
def claimed(
    run: Path, *, resume: bool, overwrite: bool, say: Callable[[str], None]
) -> Iterator[Claim]:
    """Have a run's folder, empty or with the run that goes on.

    Whatever ends it before `Claim.settle` leaves the run that was to be replaced as it was. A
    folder that a living process holds, or that `refuse` refuses, raises ConfigError.
    """
    with _locked(run, say):
        refuse(run, resume=resume, overwrite=overwrite)
        with _writing(run):
            claim = _take(run, resume, say)
        try:
            yield claim
        except BaseException:
            if claim.replacing:
                _put_back(run, say)
            raise


def is_run(folder: Path) -> bool:
    """True for the folder of a run, whatever became of it."""
    return (folder / CONFIG).is_file()


def has_results(run: Path) -> bool:
    """False for what a run leaves behind that stopped before its first step or evaluation."""
    return any((run / name).exists() for name in ("eval_before.json", "metrics.jsonl"))


def _take(run: Path, resume: bool, say: Callable[[str], None]) -> Claim:
    """Make the folder, the run that is in it put aside or, without results, removed."""
    if is_run(_replaced(run)):  # a start that was to replace it was killed
        _put_back(run, say)
    shutil.rmtree(_replaced(run).with_suffix(".removing"), ignore_errors=True)
    claim = Claim()
    if run.exists() and not resume:
        if has_results(run):
            os.replace(run, _replaced(run))
            claim = Claim(_replaced(run))
        else:
            shutil.rmtree(run)
    run.mkdir(parents=True, exist_ok=True)
    return claim


def _put_back(run: Path, say: Callable[[str], None]) -> None:
    failed = run.with_name(f"{run.name}.failed")
    if run.exists():
        shutil.rmtree(failed, ignore_errors=True)
        os.replace(run, failed)
    os.replace(_replaced(run), run)
    say(f"the run in {run} is as it was; what was to replace it is in {failed}")


def _replaced(run: Path) -> Path:
    return run.with_name(f"{run.name}.replaced")


@contextmanager
def _writing(run: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{run} cannot be written ({error}): choose another run=") from None


@contextmanager
def _locked(run: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the folder's lock, which the system takes back from a process that is gone."""
    place = run.absolute().with_name(f".{run.name}.lock")
    with _writing(run):
        place.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = _open_locked(place, run)
    except OSError as error:
        say(f"no lock on {run} ({error.strerror}): let no other run write into it")
        yield
        return
    try:
        yield
    finally:
        with suppress(OSError):
            place.unlink()
        os.close(handle)


def _open_locked(place: Path, run: Path) -> int:
    """A handle of the lock file, locked; ConfigError says which living process has it."""
    while True:
        handle = os.open(place, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(handle)
            os.close(handle)
            raise ConfigError(
                f"{run} is in use by {holder}: wait for it, or choose another run="
            ) from None
        except OSError:
            os.close(handle)
            raise
        if place.exists() and os.path.samestat(os.fstat(handle), place.stat()):
            break
        os.close(handle)  # its last holder has removed it meanwhile
    who = {"pid": os.getpid(), "host": socket.gethostname()}
    os.truncate(handle, 0)
    os.pwrite(handle, json.dumps({**who, "since": f"{datetime.now():%F %T}"}).encode(), 0)
    return handle


def _holder(handle: int) -> str:
    with suppress(ValueError):
        found: dict[str, Any] = json.loads(os.pread(handle, 4096, 0))
        return f"process {found['pid']} on {found['host']} since {found['since']}"
    return "another process"
