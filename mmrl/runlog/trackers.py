"""Optional experiment trackers by name; a tracker that fails never ends a run."""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from mmrl.errors import ConfigError


class Tracker(Protocol):
    """Somewhere metrics are sent besides `metrics.jsonl`."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files under `<run>/tensorboard`."""

    def __init__(self, run: Path, config: Mapping[str, Any]) -> None:
        writers = _package("torch.utils.tensorboard", "tensorboard")
        self._writer = writers.SummaryWriter(log_dir=str(run / "tensorboard"))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class Wandb:
    """A Weights & Biases run named after the run folder."""

    def __init__(self, run: Path, config: Mapping[str, Any]) -> None:
        wandb = _package("wandb", "wandb")
        self._run = wandb.init(project="mmrl", name=run.name, dir=str(run), config=dict(config))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        self._run.finish()


class Trackio:
    """A local trackio run named after the run folder."""

    def __init__(self, run: Path, config: Mapping[str, Any]) -> None:
        self._trackio = _package("trackio", "trackio")
        self._trackio.init(project="mmrl", name=run.name, config=dict(config))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._trackio.log(dict(metrics), step=step)

    def close(self) -> None:
        self._trackio.finish()


KNOWN: Mapping[str, Callable[[Path, Mapping[str, Any]], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": Wandb,
    "trackio": Trackio,
}


PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "trackio": "trackio"}
"""What each tracker imports."""


def refuse_trackers(names: Sequence[str]) -> None:
    """Raise ConfigError for an unknown tracker and for one whose package is missing."""
    for name in names:
        if name not in KNOWN:
            raise ConfigError(f"unknown tracker '{name}': choose from {', '.join(KNOWN)}")
        if importlib.util.find_spec(PACKAGES[name]) is None:
            raise _missing(name)


class Trackers:
    """Several trackers as one; the first failure of each is reported, every one is counted.

    An unknown name or a missing package is a ConfigError; anything after that is the tracker's own
    trouble and only costs its numbers.
    """

    def __init__(
        self,
        names: Sequence[str],
        run: Path,
        config: Mapping[str, Any],
        say: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
    ) -> None:
        self.failures: dict[str, int] = {}
        self._say = say
        self._trackers: dict[str, Tracker] = {}
        refuse_trackers(names)
        for name in names:
            self._guard(name, partial(self._open, name, run, config))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Send one step to every tracker; values that are not finite are left out."""
        finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
        for name, tracker in self._trackers.items():
            self._guard(name, partial(tracker.log, step, finite))

    def close(self) -> None:
        for name, tracker in self._trackers.items():
            self._guard(name, tracker.close)

    def _open(self, name: str, run: Path, config: Mapping[str, Any]) -> None:
        self._trackers[name] = KNOWN[name](run, config)

    def _guard(self, name: str, action: Callable[[], None]) -> None:
        try:
            action()
        except ConfigError:
            raise
        except Exception as error:  # a tracker is other people's network and disk
            self.failures[name] = self.failures.get(name, 0) + 1
            if self.failures[name] == 1:
                reason = " ".join(str(error).split())[:200]
                self._say(f"tracker {name} failed, the run goes on: {reason}")


def _package(module: str, package: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise _missing(package) from None


def _missing(package: str) -> ConfigError:
    return ConfigError(
        f"tracker '{package}' needs a package that is missing: pip install {package}"
    )
