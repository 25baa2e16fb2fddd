"""A lock that a killed process left in torch's cache of extensions does not stop the next start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from torch.utils.file_baton import FileBaton

from mmrl.backend import extension_locks

HOLD = """
import sys, time
from torch.utils.file_baton import FileBaton
assert FileBaton(sys.argv[1]).try_acquire()
print("held", flush=True)
time.sleep(600)
"""


def hold(lock: Path) -> subprocess.Popen[str]:
    """Another process that builds an extension, as far as torch knows."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("inside", ["py311_cpu/cpu_adam", "cpu_adam"])
def test_a_lock_counts_while_its_process_lives(tmp_path: Path, inside: str) -> None:
    lock, said = tmp_path / inside / "lock", list[str]()
    lock.parent.mkdir(parents=True)
    process = hold(lock)
    try:
        extension_locks.remove_stale(said.append, tmp_path)
        assert lock.exists() and not said
        process.send_signal(signal.SIGKILL)
        process.wait()
        extension_locks.remove_stale(said.append, tmp_path)
    finally:
        process.kill()
        process.wait()
    assert not lock.exists() and len(said) == 1 and str(lock) in said[0]
    FileBaton(str(lock)).wait()  # returns at once


def test_where_others_may_hold_it_only_age_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extension_locks, "_is_local", lambda _: False)
    lock = tmp_path / "shm_comm" / "lock"
    lock.parent.mkdir()
    lock.touch()
    extension_locks.remove_stale(lambda _: None, tmp_path)
    assert lock.exists()
    long_ago = time.time() - extension_locks.LONGEST_BUILD_SECONDS - 60
    os.utime(lock, (long_ago, long_ago))
    extension_locks.remove_stale(lambda _: None, tmp_path)
    assert not lock.exists()


def test_the_cache_is_the_one_that_torch_uses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "lock").touch()
    extension_locks.remove_stale(lambda _: None)
    assert not (tmp_path / "ours" / "lock").exists()
