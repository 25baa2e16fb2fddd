"""Live episodes of two processes: each keeps its own environments, from their first turn on."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from mmrl.runlog.journal import Journal
from mmrl.scoring.tasks import fixture_path
from tests.engines.launching import ENVIRONMENT, ROOT, TORCHRUN
from tests.environments.short_turns import settings, taught
from tests.runs import write_config

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
TASK = '''
"""Places that write down who was there, and end after one to three turns."""
import io
import json
import os
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from PIL import Image

from mmrl.environments.environment import Seen
from mmrl.tasks.web_page.task import SIDE, Task as WebPage

VISITS = Path(__file__).parent / "visits.jsonl"


class Place:
    async def reset(self, start):
        self.way = [dict(start)]
        return self.seen()

    async def step(self, action):
        self.way.append(dict(action))
        return self.seen()

    def seen(self):
        with VISITS.open("a") as file:
            file.write(json.dumps([os.environ.get("RANK"), self.way]) + "\\n")
        shade = zlib.crc32(json.dumps(self.way).encode()) % 255
        shown = io.BytesIO()
        Image.new("RGB", (SIDE, SIDE), (shade, shade, shade)).save(shown, "PNG")
        return Seen(shown.getvalue(), f"{shade}", outcome=shade / 255)

    async def close(self):
        pass


class Places:
    generation = 0

    async def open(self):
        return Place()

    async def restart(self, generation):
        raise AssertionError("nothing breaks here")

    async def close(self):
        pass


def world(task):
    return Places()


@dataclass(frozen=True)
class Task(WebPage):
    turns: int = 4
    world: ClassVar[str] = f"{__file__}:world"

    def step(self, gold, state, answer):
        # Every episode goes a way of its own: its first turn is told apart by a number.
        said = zlib.crc32("".join(answer.turns).encode())
        taken = [*state["actions"], {"type": "click", "x": said % SIDE, "y": len(answer.turns)}]
        seen = super().step(gold, state, answer)
        over = len(taken) > said % 3
        return replace(seen, state={**state, "actions": taken}, text="", done=over)
'''


def test_an_environment_is_made_once_and_stays_where_its_prompt_is(tmp_path: Path) -> None:
    (tmp_path / "places.py").write_text(TASK)
    taught(tmp_path)
    folder = tmp_path / "pages"
    folder.mkdir()
    shutil.copy(fixture_path("web_page"), folder / "train.jsonl")
    shutil.copytree(fixture_path("web_page").parent / "screens", folder / "screens")
    values = settings(tmp_path, "run", "places.py", 12, steps=2, prompts_per_step=4)
    config = write_config(tmp_path / "run.yaml", values)
    command = [*TORCHRUN, "2", "-m", "mmrl.cli", "train", str(config)]
    subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, check=True, timeout=900)

    visits = [json.loads(line) for line in (tmp_path / "visits.jsonl").read_text().splitlines()]
    begun = Counter(json.dumps(way[0]) for _, way in visits if len(way) == 1)
    where: dict[str, set[str]] = {}
    for rank, way in visits:
        where.setdefault(json.dumps(way[0]), set()).add(rank)
    groups = list(Journal(tmp_path / "run" / "rollouts.jsonl").rows())
    answers = [response for group in groups for response in group["responses"]]
    # A turn that is cut short is not carried out.
    acted = [len(r["turns"]) - (r["finish"] == "length") for r in answers]
    assert len(set(acted)) > 1, "episodes end at different turns"
    assert set().union(*where.values()) == {"0", "1"}, "both play"
    assert sum(begun.values()) == sum(map(bool, acted)), "each is begun once"
    assert sum(len(way) > 1 for _, way in visits) == sum(acted), "no turn is played again"
