"""The public functions are there by name, whatever was imported before them."""

from __future__ import annotations

import subprocess
import sys

import pytest

BEFORE = ("", "import mmrl.train.run, mmrl.evaluate.ask", "mmrl.train; mmrl.evaluate")


@pytest.mark.parametrize("before", BEFORE)
def test_train_and_evaluate_are_functions_and_rooms(before: str) -> None:
    """Each is called with too little, so that the function behind it says what it wants."""
    code = f"""
import mmrl
{before}
for name, wanted in (("train", "config"), ("evaluate", "task"), ("load_task", "name")):
    try:
        getattr(mmrl, name)()
    except TypeError as error:
        assert wanted in str(error), error
from mmrl.train import trainer
from mmrl.evaluate.ask import evaluate
assert callable(evaluate) and trainer.__name__ == "mmrl.train.trainer"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, mmrl; assert not {'torch', 'mmrl.api'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
