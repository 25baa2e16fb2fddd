"""Threads beside a model: their operations bring no threads of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BESIDE = """
import os, sys, threading, time
import torch
from mmrl.policy.media_threads import media_threads

torch.set_num_threads(2)

def work():
    torch.ones(4_000_000).sqrt()
    return torch.get_num_threads()

def threads():
    return len(os.listdir("/proc/self/task"))

work()
alone = threads()
pool = media_threads(3)
assert torch.get_num_threads() == 2
met = threading.Barrier(3)  # so that each thread has one of the tasks

def beside(_):
    met.wait()
    return work()

assert list(pool.map(beside, range(3))) == [1, 1, 1]
torch.set_num_threads(1)
torch.set_num_threads(2)
assert list(pool.map(beside, range(3))) == [1, 1, 1], "what others set is theirs"
assert work() == 2
others = []
for _ in range(2):
    thread = threading.Thread(target=lambda: others.append(torch.get_num_threads()))
    thread.start()
    thread.join()
assert others == [2, 2], "what the pool's threads set is their own"
late = time.monotonic() + 30  # a thread leaves the system a little after it is joined
while threads() != alone + 3 and time.monotonic() < late:
    time.sleep(0.01)
assert threads() == alone + 3, (alone, threads())
pool.shutdown()
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads as Linux does")
def test_media_threads_bring_no_team_of_their_own() -> None:
    """In a process of its own: how many threads there are depends on what ran before."""
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "-c", BESIDE], check=True, env=environment)
