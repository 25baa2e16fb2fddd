"""Where a phase of a run is carried out: what all builders of its parts read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mmrl.backend.world import World
from mmrl.config import RunConfig
from mmrl.data.sources import Say
from mmrl.runlog.run_folder import Records
from mmrl.train.phases import Phase, Place


@dataclass(frozen=True)
class Setting:
    """A run's phases, the place it has come to, its processes, and where it writes and says.

    `allow_changes`: it may go on with other records than it began with.
    """

    phases: Sequence[Phase]
    place: Place
    world: World
    records: Records
    say: Say
    allow_changes: bool = False

    @property
    def phase(self) -> Phase:
        """The phase that is carried out."""
        return self.phases[self.place.phase]

    @property
    def config(self) -> RunConfig:
        """The phase's whole configuration."""
        return self.phase.config

    @property
    def last_phase(self) -> bool:
        """True if the run ends with this phase."""
        return self.place.phase + 1 == len(self.phases)

    @property
    def seed(self) -> int:
        """The run's own seed: later phases than the first draw with others."""
        return self.phases[0].config.seed
