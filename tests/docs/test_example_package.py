"""A package of plug-ins, installed into a folder of its own, is found by name and trains."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.algorithms.cases import context, group

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "examples" / "heat_package"
INSTALL = ("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `said.txt`, what the commands below printed, and their run.

    The package is installed into another folder, which stands on the path with its entry points.
    """
    target, source, work = (tmp_path_factory.mktemp(name) for name in ("to", "from", "work"))
    shutil.copytree(PACKAGE, source / "package")  # a build leaves its files where the source is
    install = [sys.executable, *INSTALL, "--target", str(target), str(source / "package")]
    carry_out(install, work, {**os.environ})
    (work / "examples").symlink_to(ROOT / "examples")
    run = work / "runs" / "hottest"
    asking = ["eval", "--task", "hottest", "--limit", "4", "--max-new-tokens", "4"]
    asking += ["--model", str(run / "checkpoints" / "step_2"), "--out", str(work / "result.json")]
    commands = [
        ["tasks"],
        ["algorithms"],
        ["families"],
        ["tasks", "hottest", "--check"],
        # With a KL, so that the reference is of the same family as the policy.
        ["train", str(PACKAGE / "train.yaml"), "algorithm.kl_coefficient=0.01"],
        [*asking, "model.family=qwen2_5_vl_heat"],
    ]
    path = os.pathsep.join([str(target), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    call = [sys.executable, "-c", IN_ONE_PROCESS, json.dumps(commands)]
    (work / "said.txt").write_text(carry_out(call, work, environment), encoding="utf-8")
    return work


IN_ONE_PROCESS = """
import json, sys
from mmrl.cli import main
sys.exit(max(main(command) for command in json.loads(sys.argv[1])))
"""


def carry_out(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_its_names_are_listed_beside_ours(work: Path) -> None:
    said = (work / "said.txt").read_text("utf-8")
    for name in ("hottest", "median_grpo", "qwen2_5_vl_heat"):
        assert f"\n{name} " in said
    assert re.search(r"hottest +8 records, +\d+ answers: ok", said)


def test_its_run_trains_and_its_checkpoint_is_evaluated(work: Path) -> None:
    run = work / "runs" / "hottest"
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["tokens/media"] for row in rows] == [4 * 16, 4 * 16]  # 4 x 4 cells of 28 pixels
    assert rows[0]["train/kl"] == pytest.approx(0.0, abs=1e-6)
    first = json.loads((run / "rollouts.jsonl").read_text().splitlines()[0])
    assert first["media"][0]["kind"] == "heatmap"
    assert json.loads((work / "result.json").read_text())["records"] == 4


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PACKAGE))


@pytest.mark.usefixtures("package")
def test_advantages_are_relative_to_the_median() -> None:
    from mmrl_heat.median_grpo import MedianRelative

    given = group([0.0, 1.0, 5.0, None], [1, 2, 3, 1])
    assert np.array_equal(MedianRelative(2.0)(given, context()), [-1.0, 0.0, 2.0, 0.0])
    nothing = group([None, None], [1, 1])
    assert np.array_equal(MedianRelative()(nothing, context()), [0.0, 0.0])


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("text", "reason"),
    [(b"1,2\n3", "not a grid"), (b"\xff\xfe", "not a grid"), (b"nan,1", "finite")],
)
def test_a_grid_that_is_none_is_refused_with_the_reason(text: bytes, reason: str) -> None:
    from mmrl_heat.heatmap import decode

    from mmrl.errors import MediaError
    from mmrl.types import MediaRef

    with pytest.raises(MediaError, match=reason):
        decode(MediaRef("heatmap", text))  # type: ignore[arg-type]


@pytest.mark.usefixtures("package")
def test_cells_are_drawn_where_they_stand() -> None:
    from mmrl_heat.heatmap import decode

    from mmrl.types import MediaRef

    media = decode(MediaRef("heatmap", b"0,1\n0.5,2", {"cell": 2}))  # type: ignore[arg-type]
    assert media.array.shape == (4, 4, 3)
    assert media.array[::2, ::2].tolist() == [
        [[0, 0, 255], [255, 0, 0]],
        [[128, 0, 128], [255, 0, 0]],
    ]
    assert media.frame.source_size == (2, 2)
