#!/usr/bin/env bash
# torch, libgomp: a thread that runs one operation of torch makes every operation of the main thread slower
#
# Package: torch 2.14.1 (with its libgomp), on a CPU, Linux.
# Each Python thread that runs an operation of torch large enough to be shared gets a team of OpenMP
# threads of its own, which stays for as long as the thread does. libgomp's threads spin while they
# wait for the next operation, but not once a process has more of them than cores: then they sleep
# after about a microsecond, and are woken by the system for every operation. So a loader's thread
# that resized one picture, and idles since, costs the main thread tens of microseconds an operation
# for the rest of the process's life. Not so where the thread calls torch.set_num_threads(1) first and
# then torch.get_num_threads(), without which its first operation takes over what others have set.
# Seen: "naps of the team in 4000 operations: alone 0, beside an idle thread 4008, beside one that took
#        one thread 0", "microseconds an operation: 14, 57, 15" (three runs: 0, 4006 to 4008, 0)
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/v"; "$work/v/bin/pip" install -q uv
"$work/v/bin/uv" pip install -q --python "$work/v/bin/python" torch==2.14.1 numpy==2.4.6
cat > "$work/teams.py" <<'PY'
import os, sys, threading, time

os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])  # what libgomp takes the cores to be
os.environ["OMP_NUM_THREADS"] = "2"
import torch

before = set(os.listdir("/proc/self/task"))
here, there = torch.ones(70_000), torch.empty(70_000)  # shared by two threads from 32,768 on
torch.sqrt(here, out=there)
(team,) = set(os.listdir("/proc/self/task")) - before

def naps():
    status = open(f"/proc/self/task/{team}/status").read().splitlines()
    return int(next(l for l in status if l.startswith("voluntary_ctxt")).split()[1])

def beside(alone):
    if alone:
        torch.set_num_threads(1)
        torch.get_num_threads()
    torch.sqrt(torch.ones(70_000))
    ready.set()
    over.wait()

ready, over = threading.Event(), threading.Event()
if sys.argv[1] != "nobody":
    other = threading.Thread(target=beside, args=(sys.argv[1] == "alone",))
    other.start()
    ready.wait()
    torch.set_num_threads(2)
for _ in range(200):
    torch.sqrt(here, out=there)
slept, seconds = naps(), 0.0
for _ in range(4000):
    start = time.perf_counter()
    torch.sqrt(here, out=there)
    end = time.perf_counter()
    seconds += end - start
    while time.perf_counter() < end + 50e-6:  # what a program does between two operations
        pass
print(naps() - slept, f"{seconds / 4000 * 1e6:.0f}")
over.set()
PY
measured() { "$work/v/bin/python" -W ignore "$work/teams.py" "$1"; }
read -r nobody fast < <(measured nobody); read -r idle slow < <(measured idle); read -r alone also < <(measured alone)
echo "naps of the team in 4000 operations: alone $nobody, beside an idle thread $idle, beside one that took one thread $alone"
echo "microseconds an operation: $fast, $slow, $also"
test "$nobody" -lt 1000; test "$idle" -gt 2000; test "$alone" -lt 1000
