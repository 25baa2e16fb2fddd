"""A run in a real browser that is killed at any moment ends, resumed, as if it had not been.

What pages showed is recorded by seed and actions, and shown again to whoever comes the same way: a
browser draws a corner otherwise now and then, and these runs are compared bit for bit.
"""

from __future__ import annotations

import importlib
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mmrl.environments.devtools import browser_path
from mmrl.errors import UserError
from mmrl.runlog.journal import Journal
from tests.environments.short_turns import settings, taught
from tests.runs import write_config

try:
    browser_path()
except UserError:
    pytest.skip("no browser on this machine", allow_module_level=True)

pytestmark = pytest.mark.slow
STEPS, ATTEMPTS = 4, 3
TASK = '''
"""Pages that take whatever is said for a click somewhere, and pay by what was said."""
import hashlib
import json
import pickle
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from mmrl.environments.browser import Page, Pages
from mmrl.tasks.web_page.task import PAGES, SIDE, Task as WebPage, _key

SEEN = Path(__file__).parent / "seen"


class Shown(Page):
    """A page that shows what it showed before, where it is asked the same way."""

    async def reset(self, start):
        self.way = [dict(start)]
        return self.recorded(await super().reset(start))

    async def step(self, action):
        self.way.append(dict(action))
        return self.recorded(await super().step(action))

    def recorded(self, seen):
        name = hashlib.sha256(json.dumps(self.way, sort_keys=True).encode()).hexdigest()
        file = SEEN / name
        if not file.is_file():
            part = SEEN / f"{name}.part"
            part.write_bytes(pickle.dumps(seen))
            part.replace(file)
        return pickle.loads(file.read_bytes())


class Recorded(Pages):
    kind: ClassVar[type] = Shown


def world(task):
    SEEN.mkdir(exist_ok=True)
    return Recorded(PAGES, SIDE, SIDE)


@dataclass(frozen=True)
class Task(WebPage):
    turns: int = 3
    world: ClassVar[str] = f"{__file__}:world"

    def step(self, gold, state, answer):
        where = zlib.crc32(answer.text.encode())
        click = {"type": "click", "text": "", "x": where % SIDE, "y": where // SIDE % SIDE}
        taken = [*state["actions"], click]
        seen = super().step(gold, state, answer)
        return replace(seen, state={**state, "actions": taken}, text="", done=False)

    def score(self, gold, answer):
        paid = zlib.crc32("".join(answer.turns).encode()) % 5 / 4
        return replace(super().score(gold, answer), parts={"done": paid, "format": 0.0})
'''


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed")
    (folder / "clicks.py").write_text(TASK)
    taught(folder)
    importlib.import_module("mmrl.data_recipes.web_pages").build(
        None, folder / "pages", train=6, validation=1, test=1
    )
    assert command(folder, "whole").wait() == 0
    return folder


def command(workspace: Path, name: str, *flags: str) -> subprocess.Popen[bytes]:
    trainer = {"steps": STEPS, "prompts_per_step": 2, "checkpoint_every": 2}
    config = write_config(
        workspace / f"{name}.yaml", settings(workspace, name, "clicks.py", 8, **trainer)
    )
    return subprocess.Popen(
        [sys.executable, "-m", "mmrl.cli", "train", str(config), *flags], stderr=subprocess.DEVNULL
    )


def rows(run: Path, name: str) -> list[dict[str, Any]]:
    return list(Journal(run / name).rows())


def weights(run: Path, step: int = STEPS) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / f"step_{step}" / "model.safetensors")


def test_the_runs_are_played_in_the_browser(workspace: Path) -> None:
    groups = rows(workspace / "whole", "rollouts.jsonl")
    turns = [turn for g in groups for r in g["responses"] for turn in r["turns"]]
    assert sum("media" in turn for turn in turns) > STEPS * 6
    assert len(list((workspace / "seen").iterdir())) > STEPS * 6
    start = load_file(
        workspace / "whole" / "checkpoints" / f"step_{STEPS - 2}" / "model.safetensors"
    )
    assert any(not torch.equal(start[key], w) for key, w in weights(workspace / "whole").items())


@pytest.mark.parametrize("attempt", range(ATTEMPTS))
def test_a_killed_run_ends_with_the_same_weights_samples_and_rewards(
    workspace: Path, attempt: int
) -> None:
    """Killed somewhere between its first step and its last, while pages are open."""
    name, whole = f"killed{attempt}", workspace / "whole"
    process = command(workspace, name)
    metrics = workspace / name / "metrics.jsonl"
    until = int(np.random.default_rng().integers(1, STEPS))
    while process.poll() is None and (not metrics.is_file() or len(metrics.read_text()) == 0):
        time.sleep(0.02)
    while process.poll() is None and len(metrics.read_text().splitlines()) < until:
        time.sleep(0.02)
    time.sleep(float(np.random.default_rng().uniform(0, 1)))
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert command(workspace, name, "--resume").wait() == 0
    found, wanted = weights(workspace / name), weights(whole)
    different = [key for key in wanted if not torch.equal(found[key], wanted[key])]
    assert not different, f"killed after step {until}: {different[:3]}"
    for file in ("rollouts.jsonl", "consumed.jsonl"):
        assert rows(workspace / name, file) == rows(whole, file), file
    found_of, wanted_of = (
        [row["reward/mean"] for row in rows(run, "metrics.jsonl")]
        for run in (workspace / name, whole)
    )
    assert found_of == wanted_of
