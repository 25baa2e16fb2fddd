"""Under ZeRO-3 no process holds more than its shard and an eighth of the weights on their way."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from tests.engines.launching import ENVIRONMENT, ROOT, TORCHRUN

pytest.importorskip("deepspeed")
pytestmark = [pytest.mark.engines, pytest.mark.timeout(1800)]

PROCESSES = 4
WAYS = ("copy", "broadcast", "files", "save")
READS = ("resume",)
# Blocks go back to the system when they are freed, so that its count is that of what is in use.
RETURNING = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("sharded")
    command = [*TORCHRUN, str(PROCESSES), "-m", "tests.engines.sharded", str(folder)]
    environment = {**ENVIRONMENT, **RETURNING}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1500
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(PROCESSES)]


@pytest.mark.parametrize("way", [*WAYS, *READS])
def test_a_process_holds_its_shard_and_an_eighth(reports: list[dict[str, Any]], way: str) -> None:
    for report in reports:
        total, found = report["total"], report["peaks"][way]
        assert 0 < found["gathered"] <= total / 8
        assert found["memory"] <= total / PROCESSES + total / 8
        # The meter sees all of them where they are made whole.
        assert report["peaks"]["whole"]["gathered"] >= 0.99 * total


def test_what_is_loaded_is_never_whole(reports: list[dict[str, Any]]) -> None:
    """Of two models, the policy and its reference, a shard of each stays."""
    for report in reports:
        total = 2 * report["total"]
        assert report["peaks"]["load"]["memory"] <= total / PROCESSES + total / 8


def test_what_arrives_is_the_weights_bit_for_bit(reports: list[dict[str, Any]]) -> None:
    assert all(report["arrived"]["copy"] for report in reports)
    assert reports[0]["arrived"] == dict.fromkeys((*WAYS, "loaded"), True)
    assert all(report["resumed"] for report in reports)
