"""The folder of a run: made before it, and what grows in it by the step."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mmrl.backend.world import World
from mmrl.config import RunConfig
from mmrl.errors import UserError
from mmrl.runlog.journal import Journal
from mmrl.runlog.metrics import MetricsLog
from mmrl.runlog.quarantine import Quarantine
from mmrl.runlog.transcript import Transcript

CONFIG = "config.yaml"


@dataclass
class Records:
    """Everything a run folder holds that grows by the step, rewound together on resume."""

    folder: Path
    metrics: MetricsLog = field(init=False)
    transcript: Transcript = field(init=False)
    quarantine: Quarantine = field(init=False)
    consumed: Journal = field(init=False)

    def __post_init__(self) -> None:
        self.metrics = MetricsLog(self.folder)
        self.transcript = Transcript(self.folder)
        self.quarantine = Quarantine(self.folder)
        self.consumed = Journal(self.folder / "consumed.jsonl")

    def rewind(self, step: int) -> None:
        """Forget everything after `step`."""
        for journal in (self.metrics, self.transcript, self.quarantine, self.consumed):
            journal.truncate_to_step(step)


@contextmanager
def record_folder(config: RunConfig, world: World) -> Iterator[Path]:
    """The run folder, or a passing one for the processes that do not write."""
    if world.first:
        yield config.run
        return
    with tempfile.TemporaryDirectory(prefix="mmrl-") as folder:
        yield Path(folder)


def prepare_folder(config: RunConfig, resume: bool, overwrite: bool) -> None:
    """Make the run folder and write the resolved configuration into it."""
    if config.run.exists() and not config.run.is_dir():
        raise UserError(f"{config.run} is a file: choose another run=")
    if config.run.exists() and any(config.run.iterdir()) and not resume:
        if not (config.run / CONFIG).is_file():
            raise UserError(f"{config.run} is not empty and holds no run: choose another run=")
        if not overwrite and _has_results(config.run):
            raise UserError(
                f"{config.run} holds a run already: pass --resume to go on with it, "
                "--overwrite to replace it, or run=ANOTHER_FOLDER"
            )
        shutil.rmtree(config.run)
    try:
        config.run.mkdir(parents=True, exist_ok=True)
        (config.run / CONFIG).write_text(config.to_yaml(), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{config.run} cannot be written ({error}): choose another run=") from None


def _has_results(run: Path) -> bool:
    """False for what a run leaves behind that stopped before its first step or evaluation."""
    return any((run / name).exists() for name in ("eval_before.json", "metrics.jsonl"))
