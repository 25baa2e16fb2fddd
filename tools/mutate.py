"""Break the code on purpose, one named mutation at a time, and see whether the fast tests notice.

    python tools/mutate.py [NAME ...] [--write docs/mutations.md]

Each mutation replaces one piece of text in a temporary copy of the working tree. One that is not
caught means that a test is missing; one whose text is gone must be rewritten with the code.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import sys
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch
import transformers
from mutations import MUTATIONS, Mutation

ROOT = Path(__file__).resolve().parent.parent
TESTS = (
    "tests/train/test_losses.py",
    "tests/policy/test_packing.py",
    "tests/algorithms",
    "tests/train/test_learner.py",
    "tests/objectives/test_bounds.py",
    "tests/train/test_old_logprobs.py",
    "tests/train/test_update_stats.py",
    "tests/rollout/test_episode.py",
    "tests/rollout/test_cuts.py",
)
COPIED = ("mmrl", "tasks", "data_recipes", "tests/algorithms", "pyproject.toml")
FILES = (
    "tests/__init__.py",
    "tests/conftest.py",
    "tests/rollout/test_hf.py",
    "docs/algorithms.md",
    *(test for test in TESTS if "test_" in test),
)


def main() -> int:
    """Apply the mutations and report; the exit code is the number that were missed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help="mutations to try; default: all")
    parser.add_argument("--write", type=Path, help="write the table as Markdown")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sys.dont_write_bytecode = True
    assert transformers.AutoProcessor and transformers.Qwen2_5_VLForConditionalGeneration
    chosen = [m for m in MUTATIONS if not arguments.names or m.name in arguments.names]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        copy_tree(copy)
        if failure := first_failure(copy):
            sys.exit(f"the tests fail without any mutation: {failure}")
        rows = [(mutation, caught_by(copy, mutation)) for mutation in chosen]
    if arguments.write:
        arguments.write.parent.mkdir(parents=True, exist_ok=True)
        arguments.write.write_text(table(rows), encoding="utf-8")
    missed = [mutation.name for mutation, test in rows if not test]
    print(f"caught {len(rows) - len(missed)} of {len(rows)}")
    return len(missed)


def copy_tree(target: Path) -> None:
    """Copy what the fast tests need; links stay links."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, target / name, symlinks=True, ignore=ignore)
        else:
            shutil.copy(source, target / name)
    for name in FILES:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target / name)


def caught_by(copy: Path, mutation: Mutation) -> str:
    """Name the first test that fails under a mutation; "" if none does."""
    file = copy / mutation.file
    text = file.read_text(encoding="utf-8")
    if text.count(mutation.old) != 1:
        sys.exit(f"'{mutation.name}': its text stands {text.count(mutation.old)} times")
    file.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
    test = first_failure(copy, mutation.file)
    file.write_text(text, encoding="utf-8")
    print(f"{'caught' if test else 'MISSED':8}{mutation.name:46}{test}", flush=True)
    return test


def first_failure(copy: Path, changed: str = "") -> str:
    """Run the fast tests of the copy and name the first that fails; "" if none does.

    Those of the changed module go first. A fork of this process runs them, so that torch and
    transformers load once and the copy's modules anew.
    """
    own = f"test_{Path(changed).stem}.py"
    likely = "tests/algorithms" if changed.startswith(("mmrl/algorithm", "mmrl/types")) else own
    tests = sorted(TESTS, key=lambda test: not test.endswith(likely))
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    worker = fork.Process(target=run_tests, args=(copy, tests, sender))
    worker.start()
    sender.close()
    try:
        return str(receiver.recv())
    except EOFError:
        return "the test run itself"
    finally:
        worker.join()


def run_tests(copy: Path, tests: list[str], sender: Connection) -> None:
    """Run tests in the copy, silently, and send the first failure."""
    os.chdir(copy)
    sys.path.insert(0, str(copy))
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    first = FirstFailure()
    code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests], plugins=[first])
    sender.send(first.name or ("" if code == 0 else f"pytest ended with {code}"))


class FirstFailure:
    """A pytest plugin that remembers the first test, or the first module, that failed."""

    name = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.name = self.name or (report.nodeid if report.failed else "")

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self.name = self.name or (report.nodeid if report.failed else "")


def table(rows: list[tuple[Mutation, str]]) -> str:
    """The outcome as Markdown."""
    lines = [
        "# Mutations",
        "",
        "Deliberate mistakes that `python tools/mutate.py` makes in a copy of the tree, and the",
        "first test that notices.",
        "",
        "| mistake | file | caught by |",
        "|---|---|---|",
    ]
    lines += [f"| {m.name} | `{m.file}` | {f'`{t}`' if t else '**missed**'} |" for m, t in rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
