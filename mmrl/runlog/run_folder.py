"""The folder of a run: made before it, and what grows in it by the step."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mmrl.backend.world import World
from mmrl.config import RunConfig
from mmrl.runlog.journal import Journal
from mmrl.runlog.metrics import MetricsLog
from mmrl.runlog.quarantine import Quarantine
from mmrl.runlog.transcript import Transcript


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
