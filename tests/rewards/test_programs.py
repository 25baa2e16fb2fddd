"""Programs of a model: what they print, what they use, and what they cannot do."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from mmrl.rewards.programs import Case, ProgramLimits, run_program, same_output, try_program
from mmrl.scoring.tasks import load_task
from mmrl.tasks.code.task import Gold, nearness
from mmrl.types import Answer, Record

SHORT = ProgramLimits(seconds=0.5)
SPIN = "n = 0\nwhile n < 3 * 10**6: n += 1\n"


def test_a_program_reads_and_prints() -> None:
    ran = run_program("print(int(input()) * 2)", "21\n")
    assert (ran.ending, ran.output) == ("ended", "42\n")


def test_what_it_uses_is_beyond_an_empty_program() -> None:
    idle, busy = run_program("", ""), run_program(SPIN, "")
    full = run_program("x = bytearray(64 << 20)\nx[::4096] = b'1' * len(x[::4096])", "")
    assert idle.seconds < 0.05 and idle.megabytes < 4
    assert busy.seconds > idle.seconds + 0.02
    assert 48 < full.megabytes < 96


@pytest.mark.parametrize(
    ("code", "ending"),
    [
        ("while True: pass", "time"),
        ("import time; time.sleep(60)", "time"),
        ("x = [0] * 10**9", "memory"),
        ("raise SystemExit(3)", "failed"),
        ("while True: print('x' * 1000)", "failed"),
        ("open('big', 'wb').write(bytes(1 << 20))", "failed"),
        ("def f(: pass", "failed"),
    ],
)
def test_what_goes_wrong_with_it_is_its_outcome(code: str, ending: str) -> None:
    ran = run_program(code, "", SHORT)
    assert ran.ending == ending and len(ran.output) <= SHORT.output_bytes


def test_it_sees_no_environment_and_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "secret")
    ran = run_program("import os; print(os.environ.get('SOME_API_KEY'), os.listdir('.'))", "")
    assert ran.output.startswith("None ") and "secret" not in ran.output
    assert not os.path.exists(run_program("import os; print(os.getcwd())", "").output.strip())


def test_what_it_starts_ends_with_it() -> None:
    """A child that leaves its session outlives neither the program nor the deadline."""
    code = (
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    os.closerange(0, 3)\n"
        "    time.sleep(30)\n"
    )
    mark = f"mmrl-test-{os.getpid()}"
    started = time.monotonic()
    run_program(f"'{mark}'\n{code}", "", SHORT)
    assert time.monotonic() - started < 20
    if os.path.exists("/proc/self/ns/user") and _isolates():
        assert not [pid for pid in _pids() if "mmrl-program-" in _command(pid)]


def _isolates() -> bool:
    """Whether the kernel lets this user have namespaces: a program is then process 1."""
    return run_program("import os; print(os.getpid())", "").output.strip() == "1"


def _pids() -> list[str]:
    return [name for name in os.listdir("/proc") if name.isdigit()]


def _command(pid: str) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def test_it_has_no_network_where_the_kernel_has_namespaces() -> None:
    if not _isolates():
        pytest.skip("the kernel gives this user no namespaces")
    code = "import socket; socket.create_connection(('127.0.0.1', 9), 1)"
    assert "unreachable" in run_program(code, "").error


def test_tests_are_counted_and_the_first_failure_is_told() -> None:
    cases = [Case("1", "1"), Case("2", "4"), Case("3", "9"), Case("4", "5")]
    tried = try_program("n = int(input())\nprint(n * n if n != 2 else 5)", cases, SHORT)
    assert (tried.passed, tried.cases, tried.right) == (2, 4, False)
    assert tried.failed == cases[1] and tried.ran is not None and tried.ran.output == "5\n"
    endless = try_program("while True: pass", cases, SHORT)
    assert endless.passed == 0 and endless.ran is not None and endless.ran.ending == "time"
    assert endless.seconds == endless.ran.seconds > 0, "it is not run again"


def test_outputs_are_compared_by_line() -> None:
    assert same_output("1 \n2\n\n", "1\n2")
    assert not same_output("1\n2", "1 2") and not same_output("", "0")


def answer(program: str, *turns: str) -> Answer:
    texts = [f"<think>so</think><answer>{p}</answer>" for p in (*turns, program)]
    return Answer(texts[-1], turns=tuple(texts) if turns else ())


def test_time_that_is_spared_pays_and_a_wrong_program_spares_none() -> None:
    gold = Gold((Case("a", "a"),), ("print(input())", f"{SPIN}{SPIN}print(input())"))
    task = load_task("code")
    fast = task.score(gold, answer("```python\nprint(input())\n```"))
    assert fast.parts["accuracy"] == 1.0 and fast.parts["time"] > 0.9
    middle = task.score(gold, answer(f"{SPIN}print(input())"))
    slow = task.score(gold, answer(f"{SPIN}{SPIN}{SPIN}{SPIN}print(input())"))
    assert slow.parts["accuracy"] == 1.0
    assert slow.parts["time"] == 0.0 < middle.parts["time"] < fast.parts["time"]
    wrong = task.score(gold, answer("print('b')"))
    assert (wrong.parts["accuracy"], wrong.parts["time"], wrong.parts["memory"]) == (0.0, 0.0, 0.0)


def test_a_test_that_wants_nothing_is_refused() -> None:
    rows = {"question": "Print it.", "tests": [{"input": "a", "output": " \n"}]}
    with pytest.raises(ValueError, match="wants no output"):
        load_task("code").sample(Record("1", rows, Path(".")))


def test_nearness_is_by_logarithm() -> None:
    assert nearness(2.0, [1.0, 4.0], 0.01) == pytest.approx(0.5)
    assert nearness(8.0, [1.0, 4.0], 0.01) == 0.0 and nearness(0.2, [1.0, 4.0], 0.01) == 1.0
    assert nearness(0.009, [0.001, 0.002], 0.01) == 1.0, "less than a clock tells is the same"
    assert nearness(2**0.5, [1.0], 0.01) == pytest.approx(0.5), "one alone: twice as much is 0"


def test_a_records_own_program_that_fails_is_no_verdict() -> None:
    with pytest.raises(ValueError, match="own solution fails"):
        load_task("code").score(Gold((Case("a", "a"),), ("print(1)",)), answer("print(input())"))


def test_a_turn_is_told_what_its_program_does_and_the_last_one_counts() -> None:
    task = load_task("code", {"turns": 3, "improve": True})
    gold = Gold((Case("1", "1"), Case("2", "2")), ("print(input())",))
    broken = task.step(gold, 0, answer("print(1)"))
    assert "passes 1 of 2" in broken.text and "but: 1" in broken.text and broken.reward == 0.5
    right = task.step(gold, 1, answer("print(input())"))
    assert "passes 2 of 2" in right.text and "the one to beat" in right.text
    nothing = task.step(gold, 2, Answer("no"))
    assert "no program to run" in nothing.text and nothing.reward == 0.0
    last = task.score(gold, answer("print(input())", "print(1)"))
    assert last.parts["accuracy"] == 1.0
    assert task.score(gold, answer("print(1)", "print(input())")).parts["accuracy"] == 0.0
