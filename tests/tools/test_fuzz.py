"""`tools/fuzz.py` reaches every parser, finds nothing in them, and would find what is wrong."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import re
from pathlib import Path
from typing import Any

import pytest

import mmrl.rewards
from mmrl.rewards.parsed import ok

TOOLS = Path(__file__).parents[2] / "tools"
ANSWERS = 150


@pytest.fixture
def fuzz(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module("fuzz")


def public_parsers() -> set[str]:
    """Functions of mmrl/rewards by the name of a parser, and `BoxListFormat`, grammars, SQL."""
    found = set()
    for module in pkgutil.iter_modules(mmrl.rewards.__path__):
        loaded = importlib.import_module(f"mmrl.rewards.{module.name}")
        for name, value in inspect.getmembers(loaded, callable):
            own = getattr(value, "__module__", "") == loaded.__name__
            if (
                own
                and not getattr(value, "_is_protocol", False)
                and re.match(
                    r"parse_|grade_(math|typed)|run_query|\w+(Grammar|Format|Answer)$", name
                )
            ):
                found.add(f"{module.name}.{name}")
    return found


def test_every_parser_is_a_target(fuzz: Any) -> None:
    names = {re.sub(r"^parse |\(.*", "", t.name) for t in fuzz.parser_targets(["5"])}
    assert names == public_parsers()


def test_mutated_payloads_of_every_task_break_no_parser(fuzz: Any) -> None:
    payloads = fuzz.payloads()
    assert len(payloads) > 300
    for target in fuzz.parser_targets(payloads):
        rng = fuzz.random.Random(target.name)
        for _ in range(ANSWERS):
            text = fuzz.mutate(rng, target.seeds)
            assert fuzz._guarded(target.check, text) == "", (target.name, text[:200])


@pytest.mark.parametrize(
    ("parse", "kind"),
    [
        (lambda text: ok(float("nan")), "a number that is not finite"),
        (lambda text: ok(None), "status ok with value None"),
        (lambda text: [][0], "IndexError"),
    ],
)
def test_what_is_wrong_is_found(fuzz: Any, parse: Any, kind: str) -> None:
    target = fuzz.Target("broken", ["5"], fuzz._parser_check(parse))
    row = fuzz.fuzz(target, 0.0001, 1)
    assert row["wrong"] == row["answers"] > 0
    assert next(iter(row["findings"])).startswith(kind)


def test_parsers_come_first_and_alone(
    fuzz: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    log = tmp_path / "f.jsonl"
    words = ["fuzz.py", "--seconds", "0.001", "--only", "parse ", "--log", str(log)]
    monkeypatch.setattr("sys.argv", words)
    monkeypatch.setattr(fuzz, "payloads", lambda: ["5"])
    monkeypatch.setattr(fuzz, "task_targets", lambda: iter([fuzz.Target("last", ["5"], len)]))
    assert fuzz.main() == 0
    rows = [json.loads(line)["target"] for line in log.read_text().splitlines()]
    assert rows == [t.name for t in fuzz.parser_targets([])]
