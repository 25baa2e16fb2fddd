"""The scoring runtime against verifiers that hang, crash, exit and lie."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mmrl.errors import TrainingError, UserError
from mmrl.scoring import pool
from mmrl.scoring.child import Child
from mmrl.scoring.pool import ScoreJob, Scorer, TaskSpec
from mmrl.scoring.tasks import load_task
from mmrl.scoring.worker import Setup
from mmrl.types import Answer, Score

HOSTILE = """
import ctypes, math, os, signal, subprocess, sys, threading, time
from dataclasses import dataclass
from typing import ClassVar
from mmrl import task as contract
from mmrl.task import RewardPart
from mmrl.types import Score, SpanScore

@dataclass(frozen=True)
class Task(contract.Task):
    bonus: float = 0.0
    name: ClassVar = "hostile"
    summary: ClassVar = "does what the answer says"
    parts: ClassVar = {"right": RewardPart(0.0, 1.0, 2.0), "tidy": RewardPart(-1.0, 1.0, 0.5)}
    metric: ClassVar = "right"

    def sample(self, record):
        raise NotImplementedError

    def score(self, gold, answer):
        command, _, argument = answer.text.partition(" ")
        match command:
            case "sleep": time.sleep(float(argument))
            case "spin": 9 ** 9 ** 9
            case "raise": raise RuntimeError("verifier bug")
            case "exit": sys.exit(3)
            case "hardexit": os._exit(7)
            case "segfault": ctypes.string_at(0)
            case "sigkill": os.kill(os.getpid(), signal.SIGKILL)
            case "recurse": return self.score(gold, answer)
            case "hog": return len([bytearray(64 << 20) for _ in range(1000)])
            case "none": return None
            case "nan": return Score({"right": math.nan, "tidy": 0.0}, 0.0)
            case "above": return Score({"right": 1.5, "tidy": 0.0}, 0.0)
            case "below": return Score({"right": 0.0, "tidy": -1.5}, 0.0)
            case "infmetric": return Score({"right": 0.0, "tidy": 0.0}, math.inf)
            case "missing": return Score({"right": 1.0}, 1.0)
            case "extra": return Score({"right": 1.0, "tidy": 0.0, "style": 1.0}, 1.0)
            case "status": return Score({"right": 1.0, "tidy": 0.0}, 1.0, status="fine")
            case "unscorable": return Score({}, None, "unscorable", "no judge here")
            case "child":
                subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL)
                time.sleep(600)
            case "spans":
                span = SpanScore(1, 2, 0.5, "s")
                parts = {"right": 1.0, "tidy": 0.0}
                return Score(parts, 1.0, spans=(span,), evidence={"hits": [1, 0]})
            case "modules":
                heavy = [m for m in ("torch", "transformers", "sympy") if m in sys.modules]
                main = sys.modules["__main__"].__spec__.name
                return Score({"right": 1.0, "tidy": 0.0}, 1.0, reason=f"{main} {heavy}")
            case "pid":
                return Score({"right": 1.0, "tidy": 0.0}, 1.0, reason=str(os.getpid()))
            case "fork": os.fork()
            case "forkstay":
                if os.fork() == 0: time.sleep(600)
            case "write": os.write(int(sys.argv[-1]), argument.encode())
            case "later":
                threading.Timer(0.5, os.write, (int(sys.argv[-1]), b"junk")).start()
            case "half":
                # The number of the job, if it ever got that far.
                os.write(int(sys.argv[-1]), sys._getframe(2).f_locals["nonce"])
                time.sleep(600)
            case "secret":
                return Score({"right": float("MY_TOKEN" in os.environ), "tidy": 0.0}, 1.0)
            case "key": os.environ["MY_TOKEN"]
            case "print": print("noise on standard output", flush=True)
        right = float(answer.text == gold)
        return Score({"right": right, "tidy": self.bonus}, right)
"""


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Another package's task, found through its entry point."""
    site = tmp_path_factory.mktemp("site")
    (site / "hostile_task.py").write_text(HOSTILE)
    info = site / "hostile-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hostile\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[mmrl.tasks]\nhostile = hostile_task\n")
    sys.path.insert(0, str(site))
    yield site
    sys.path.remove(str(site))


@pytest.fixture
def scorer(hostile: Path) -> Iterator[Scorer]:
    with Scorer({"h": TaskSpec("hostile")}, workers=2, timeout_seconds=1.0) as scorer:
        yield scorer


def jobs(*texts: str, task: str = "h", gold: str = "good") -> list[ScoreJob]:
    return [ScoreJob(task, gold, Answer(text)) for text in texts]


def descendants() -> set[int]:
    """Processes whose parent is this one, zombies included."""
    table = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid=,comm="], capture_output=True, text=True, check=True
    ).stdout
    rows = [line.split(None, 2) for line in table.splitlines()]
    return {int(pid) for pid, parent, name in rows if int(parent) == os.getpid() and name != "ps"}


def is_running(pid: int) -> bool:
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout.strip()
    return bool(state) and not state.startswith("Z")


def comes_true(condition: Callable[[], bool]) -> bool:
    """Wait for what happens soon, and on a busy machine a little later."""
    deadline = time.monotonic() + 120
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


def test_scores_come_back_in_order_and_weighted(scorer: Scorer) -> None:
    texts = [("good", "bad")[i % 3 == 0] for i in range(500)]
    scores = scorer.score(jobs(*texts))
    assert [s.reward for s in scores] == [0.0 if i % 3 == 0 else 2.0 for i in range(500)]
    assert scores[1] == Score({"right": 1.0, "tidy": 0.0}, 1.0, reward=2.0)
    assert scorer.counts == {}


def test_spec_weights_override_the_tasks_own_and_params_reach_it(hostile: Path) -> None:
    specs = {
        "plain": TaskSpec("hostile", {"bonus": 1.0}),
        "heavy": TaskSpec("hostile", {"bonus": 0.5}, {"tidy": -4.0}),
        "none": TaskSpec("hostile", {}, {"right": 0.0}),
    }
    with Scorer(specs, workers=1, timeout_seconds=5.0) as scorer:
        mixed = [job for key in specs for job in jobs("good", task=key)]
        rewards = [score.reward for score in scorer.score(mixed)]
    # 2*1 + 0.5*1; 2*1 - 4*0.5; 0*1 + 0.5*0
    assert rewards == [2.5, 0.0, 0.0]


def test_unknown_weight_or_task_is_a_users_error(hostile: Path) -> None:
    with pytest.raises(UserError, match="no reward part 'rigth'; known: right, tidy"):
        Scorer({"h": TaskSpec("hostile", {}, {"rigth": 1.0})}, 1, 1.0)
    with pytest.raises(UserError, match="finite"):
        Scorer({"h": TaskSpec("hostile", {}, {"right": float("nan")})}, 1, 1.0)
    with pytest.raises(UserError, match="did you mean 'bonus'"):
        Scorer({"h": TaskSpec("hostile", {"bonsu": 1.0})}, 1, 1.0)
    with pytest.raises(UserError, match="did you mean 'hostile'"):
        Scorer({"h": TaskSpec("hostil")}, 1, 1.0)


@pytest.mark.parametrize(
    ("text", "kind", "reason"),
    [
        ("sleep 600", "timeout", "no verdict within 1 s"),
        ("spin", "timeout", "no verdict within 1 s"),
        ("raise", "exception", "RuntimeError: verifier bug"),
        ("recurse", "exception", "RecursionError"),
        ("none", "exception", "AttributeError"),
        ("exit", "exception", "SystemExit: 3"),
        ("hardexit", "crash", "exited with code 7"),
        ("segfault", "crash", "SIGSEGV"),
        ("sigkill", "crash", "SIGKILL"),
        ("nan", "defect", "part 'right' is nan"),
        ("above", "defect", r"part 'right' is 1.5, outside \[0.0, 1.0\]"),
        ("below", "defect", r"part 'tidy' is -1.5, outside \[-1.0, 1.0\]"),
        ("infmetric", "defect", "metric is inf"),
        ("missing", "defect", r"instead of \['right', 'tidy'\]"),
        ("extra", "defect", "style"),
        ("status", "defect", "status 'fine'"),
        ("unscorable", "task", "no judge here"),
    ],
)
def test_a_failing_verifier_is_none_and_counted_and_spares_the_others(
    scorer: Scorer, text: str, kind: str, reason: str
) -> None:
    scores = scorer.score(jobs(*["good"] * 30, text, *["good"] * 30))
    failed = scores.pop(30)
    assert (failed.parts, failed.metric, failed.reward) == ({}, None, None)
    assert failed.status == "unscorable"
    assert failed.reason.startswith(f"{kind}: ")
    assert re.search(reason, failed.reason), failed.reason
    assert [score.reward for score in scores] == [2.0] * 60
    assert scorer.counts == {kind: 1}
    assert [score.reward for score in scorer.score(jobs("good", "bad"))] == [2.0, 0.0]


def test_a_memory_hog_is_stopped_at_the_limit(hostile: Path) -> None:
    with Scorer({"h": TaskSpec("hostile")}, 1, 100.0, memory_bytes=2 << 30) as scorer:
        old, before, hog, after, new = scorer.score(jobs("pid", "good", "hog", "good", "pid"))
        assert hog.reason.startswith("memory: ")
        assert (before.reward, hog.reward, after.reward) == (2.0, None, 2.0)
        assert scorer.counts == {"memory": 1}
        # What is left of its memory is no basis for the next verdict.
        assert old.reason != new.reason


def test_many_failures_in_one_batch_are_each_blamed_on_their_own_answer(scorer: Scorer) -> None:
    texts = ["good", "segfault", "bad", "hardexit", "sleep 9", "sigkill", "good", "spin", "raise"]
    scores = scorer.score(jobs(*texts))
    kinds = [score.reason.partition(":")[0] for score in scores]
    assert kinds == ["", "crash", "", "crash", "timeout", "crash", "", "timeout", "exception"]
    assert scorer.counts == {"crash": 3, "timeout": 2, "exception": 1}


def test_the_deadline_is_per_answer_not_per_chunk(hostile: Path) -> None:
    with Scorer({"h": TaskSpec("hostile")}, workers=1, timeout_seconds=1.0) as scorer:
        scores = scorer.score(jobs(*["sleep 0.3"] * 12))
    assert [score.reward for score in scores] == [0.0] * 12


def test_a_hang_costs_about_one_deadline(scorer: Scorer) -> None:
    scorer.score(jobs("good", "good"))
    started = time.monotonic()
    scorer.score(jobs("spin"))
    # A worker that had to give up by itself would take twice the deadline and five seconds.
    assert 1.0 <= time.monotonic() - started < 6.5


def test_workers_see_no_torch_and_not_the_main_script(scorer: Scorer) -> None:
    import torch  # noqa: F401  # the parent has it

    assert scorer.score(jobs("modules"))[0].reason == "mmrl.scoring.worker []"


def test_prints_of_a_verifier_do_not_disturb(scorer: Scorer) -> None:
    assert [s.reward for s in scorer.score(jobs("print", "good"))] == [0.0, 2.0]


def test_spans_evidence_and_odd_text_travel(scorer: Scorer) -> None:
    (score,) = scorer.score(jobs("spans"))
    assert [(s.start, s.end, s.value, s.name) for s in score.spans] == [(1, 2, 0.5, "s")]
    assert score.evidence == {"hits": [1, 0]}
    for text in ("", "\x00\ud800\u202e", "x" * 3_000_000):
        assert scorer.score(jobs(text))[0].reward == 0.0
    assert scorer.score([]) == []


def test_close_leaves_no_process_behind(hostile: Path) -> None:
    before = descendants()
    with Scorer({"h": TaskSpec("hostile")}, workers=2, timeout_seconds=1.0) as scorer:
        scorer.score(jobs("segfault", "spin", "good"))
        assert len(descendants() - before) == 2
    assert descendants() == before
    with pytest.raises(ValueError, match="closed"):
        scorer.score(jobs("good"))


def test_what_a_verifier_started_dies_with_it(scorer: Scorer) -> None:
    def sleepers() -> str:
        return subprocess.run(
            ["pgrep", "-f", "^sleep 600$"], capture_output=True, text=True, check=False
        ).stdout

    before = sleepers()
    assert scorer.score(jobs("child"))[0].reason.startswith("timeout")
    assert comes_true(lambda: sleepers() == before)


PARENT = """
import sys
from mmrl.scoring.pool import ScoreJob, Scorer, TaskSpec
from mmrl.types import Answer
if __name__ == "__main__":
    scorer = Scorer({"h": TaskSpec("hostile")}, workers=1, timeout_seconds=1.0)
    (score,) = scorer.score([ScoreJob("h", "good", Answer("pid"))])
    print(score.reason, flush=True)
    # A parent that is dead enforces no deadline, so this one must not while it is alive.
    scorer._workers[0]._timeout_seconds = 1e3
    scorer.score([ScoreJob("h", "good", Answer(sys.argv[1]))])
"""


@pytest.mark.parametrize("text", ["sleep 1", "sleep 600", "spin"])
def test_workers_do_not_outlive_a_killed_parent(hostile: Path, tmp_path: Path, text: str) -> None:
    script = tmp_path / "parent.py"
    script.write_text(textwrap.dedent(PARENT))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path)}
    with subprocess.Popen(
        [sys.executable, str(script), text], stdout=subprocess.PIPE, text=True, env=environment
    ) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        time.sleep(0.5)
        assert is_running(worker)
        parent.send_signal(signal.SIGKILL)
    # Twice the deadline and five seconds is what a stuck worker allows itself.
    assert comes_true(lambda: not is_running(worker))


def test_an_interrupt_kills_the_workers(hostile: Path) -> None:
    before = descendants()

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    with Scorer({"h": TaskSpec("hostile")}, workers=1, timeout_seconds=30.0) as scorer:
        scorer.score(jobs("good"))
        previous = signal.signal(signal.SIGALRM, interrupt)
        try:
            with pytest.raises(KeyboardInterrupt):
                signal.setitimer(signal.ITIMER_REAL, 0.3)
                scorer.score(jobs("sleep 20"))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)
        assert descendants() == before


@pytest.mark.parametrize("forks", ["fork", "forkstay"])
def test_a_verifier_that_forks_shifts_nobodys_verdict(hostile: Path, forks: str) -> None:
    texts = [forks if i % 7 == 3 else ("good" if i % 2 else "bad") for i in range(60)]
    with Scorer({"h": TaskSpec("hostile")}, workers=2, timeout_seconds=30.0) as scorer:
        for _ in range(3):
            scores = scorer.score(jobs(*texts))
            wrong = [i for i, t in enumerate(texts) if scores[i].reward != 2.0 * (t == "good")]
            assert not wrong
        assert scorer.counts == {}


@pytest.mark.parametrize("junk", ["x", "junk" * 10, '{"parts": {}}'])
def test_what_a_verifier_writes_into_the_channel_is_a_crash_of_its_own(
    scorer: Scorer, junk: str
) -> None:
    scores = scorer.score(jobs("good", f"write {junk}", "bad", "good"))
    assert [score.reward for score in scores] == [2.0, None, 0.0, 2.0]
    assert scores[1].reason == "crash: the scoring worker wrote what is no verdict of it"


def test_a_message_that_stops_halfway_costs_no_more_than_any_hang(scorer: Scorer) -> None:
    scores = scorer.score(jobs("good", "half", "good"))
    assert [score.reward for score in scores] == [2.0, None, 2.0]


def test_what_is_written_between_two_jobs_is_nobodys_fault(hostile: Path) -> None:
    with Scorer({"h": TaskSpec("hostile")}, workers=1, timeout_seconds=30.0) as scorer:
        assert scorer.score(jobs("later"))[0].reward == 0.0
        time.sleep(1.0)
        assert [s.reward for s in scorer.score(jobs("good", "bad"))] == [2.0, 0.0]
        assert scorer.counts == {}


def test_a_verifier_sees_no_secret_that_is_not_named(
    hostile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_TOKEN", "1")
    spec = {"h": TaskSpec("hostile")}
    with Scorer(spec, 1, 30.0) as scorer:
        seen, missed = scorer.score(jobs("secret", "key"))
    assert seen.parts["right"] == 0.0
    assert missed.reason.endswith("see it if rollout.scoring_secrets (or --secrets) names it")
    with Scorer(spec, 1, 30.0, secrets=["MY_TOKEN"]) as scorer:
        assert scorer.score(jobs("secret"))[0].parts["right"] == 1.0


def test_a_worker_that_is_not_ready_in_time_is_started_once_more(
    hostile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: list[float] = []

    class Slow(Child):
        def __init__(self, setup: Setup) -> None:
            super().__init__(setup)
            starts.append(self.deadline)
            if len(starts) <= late:
                self.deadline = time.monotonic()

    monkeypatch.setattr(pool, "Child", Slow)
    late = 1
    with Scorer({"h": TaskSpec("hostile")}, 1, 30.0) as scorer:
        assert scorer.score(jobs("good"))[0].reward == 2.0
    assert len(starts) == 2
    starts.clear()
    late = 2
    with (
        Scorer({"h": TaskSpec("hostile")}, 1, 30.0) as scorer,
        pytest.raises(TrainingError, match=r"scoring workers do not start \(not ready within"),
    ):
        scorer.score(jobs("good"))


def test_a_worker_killed_while_idle_is_replaced_without_blame(hostile: Path) -> None:
    with Scorer({"h": TaskSpec("hostile")}, workers=1, timeout_seconds=5.0) as scorer:
        pid = int(scorer.score(jobs("pid"))[0].reason)
        os.kill(pid, signal.SIGKILL)
        assert comes_true(lambda: not is_running(pid))
        assert [s.reward for s in scorer.score(jobs("good", "bad"))] == [2.0, 0.0]
        assert scorer.counts == {}


def test_a_task_that_only_loads_in_the_parent_is_a_users_error(
    hostile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "only_here", sys)
    sys.only_here_function = lambda prompts, completions: [1.0]  # type: ignore[attr-defined]
    spec = TaskSpec("custom", {"function": "only_here:only_here_function"})
    job = ScoreJob("c", {"prompt": "p", "columns": {}}, Answer("a"))
    message = r"could not load its tasks.*only_here"
    with Scorer({"c": spec}, 1, 1.0) as scorer, pytest.raises(UserError, match=message):
        scorer.score([job])


def test_light_answers_go_by_the_hundreds_a_second(scorer: Scorer) -> None:
    """Thousands on an idle machine (`tools/bench_scoring.py`); a process or a wait each: a few."""
    batch = jobs(*["good answer of some length " * 20] * 5000)
    scorer.score(batch[:100])
    rates = []
    for _ in range(3):
        started = time.perf_counter()
        scorer.score(batch)
        rates.append(len(batch) / (time.perf_counter() - started))
    assert max(rates) > 200, rates


def test_geometry_bombs_do_not_slow_the_scorer_down() -> None:
    load_task("geometry3k")
    bombs = ["9^{9^{9^9}}", "99999999!", r"\binom{99999999}{4444444}", "(a+b+c+d+e+f)^{12}"]
    answers = [Answer(rf"<think></think>\boxed{{{bomb}}}") for bomb in bombs * 10]
    with Scorer({"g": TaskSpec("geometry3k")}, workers=1, timeout_seconds=5.0) as scorer:
        scores = scorer.score([ScoreJob("g", r"2\sqrt{221}", answer) for answer in answers])
        assert all(score.parts["accuracy"] == 0.0 for score in scores)
        assert scorer.counts == {}
