"""Optional experiment trackers by name; a tracker that fails never ends a run."""

from __future__ import annotations

import importlib
import importlib.util
import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from mmrl.errors import ConfigError
from mmrl.runlog.answer_table import AnswerTable, answer_table


class Tracker(Protocol):
    """Somewhere metrics are sent besides `metrics.jsonl`."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None: ...

    def table(self, step: int, table: AnswerTable) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files under `<run>/tensorboard`."""

    def __init__(self, run: Path, config: Mapping[str, Any]) -> None:
        writers = _package("torch.utils.tensorboard", "tensorboard")
        self._writer = writers.SummaryWriter(log_dir=str(run / "tensorboard"))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def table(self, step: int, table: AnswerTable) -> None:
        """A text in Markdown; its pictures, by the numbers in the text, are images of the step."""
        shown = [row[table.picture] for row in table.rows]
        numbers = {id(picture): str(i) for i, picture in enumerate(_distinct(shown))}
        lines = [table.columns, ["---"] * len(table.columns)]
        for row in table.rows:
            cells = [*map(_cell, row)]
            cells[table.picture] = numbers.get(id(row[table.picture]), "")
            lines.append(cells)
        text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        self._writer.add_text(TABLE, text, step)
        for picture in _distinct(shown):
            name = f"{TABLE}/picture {numbers[id(picture)]}"
            self._writer.add_image(name, np.asarray(picture), step, dataformats="HWC")

    def close(self) -> None:
        self._writer.close()


class Wandb:
    """A Weights & Biases run named after the run folder."""

    def __init__(self, run: Path, config: Mapping[str, Any]) -> None:
        wandb = _package("wandb", "wandb")
        self._wandb = wandb
        self._run = wandb.init(project="mmrl", name=run.name, dir=str(run), config=dict(config))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=step)

    def table(self, step: int, table: AnswerTable) -> None:
        """A table with a picture in each row."""
        rows = [_with_picture(row, table, self._wandb.Image) for row in table.rows]
        self._run.log({TABLE: self._wandb.Table(list(table.columns), rows)}, step=step)

    def close(self) -> None:
        self._run.finish()


class Trackio:
    """A local trackio run named after the run folder."""

    def __init__(self, run: Path, config: Mapping[str, Any]) -> None:
        self._trackio = _package("trackio", "trackio")
        self._trackio.init(project="mmrl", name=run.name, config=dict(config))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._trackio.log(dict(metrics), step=step)

    def table(self, step: int, table: AnswerTable) -> None:
        """A table with a picture in each row."""
        pandas = _package("pandas", "pandas")
        rows = [_with_picture(row, table, self._trackio.Image) for row in table.rows]
        frame = pandas.DataFrame(rows, columns=list(table.columns))
        self._trackio.log({TABLE: self._trackio.Table(dataframe=frame)}, step=step)

    def close(self) -> None:
        self._trackio.finish()


class MLflow:
    """A run of MLflow's tracking, on this machine unless MLFLOW_TRACKING_URI says where."""

    def __init__(self, run: Path, config: Mapping[str, Any]) -> None:
        self._mlflow = _package("mlflow", "mlflow")
        if not os.environ.get("MLFLOW_TRACKING_URI"):
            self._mlflow.set_tracking_uri(f"sqlite:///{(run / 'mlflow.db').absolute()}")
        self._client = self._mlflow.MlflowClient()
        known = self._client.get_experiment_by_name("mmrl")
        place = (run / "mlflow").absolute().as_uri()
        number = known.experiment_id if known else self._client.create_experiment("mmrl", place)
        self._run = self._client.create_run(number, run_name=run.name).info.run_id
        self._client.log_dict(self._run, dict(config), "config.yaml")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._client.log_metric(self._run, name.replace(" ", "_"), value, step=step)

    def table(self, step: int, table: AnswerTable) -> None:
        """Rows of one table of the whole run, with a picture in each."""
        pandas = _package("pandas", "pandas")
        image = self._mlflow.Image
        rows = [_with_picture(row, table, lambda p: image(np.asarray(p))) for row in table.rows]
        frame = pandas.DataFrame(rows, columns=list(table.columns))
        self._client.log_table(self._run, frame, f"{TABLE}.json")

    def close(self) -> None:
        self._client.set_terminated(self._run)


TABLE = "answers"
"""What the table is called in every tracker."""


def _with_picture(row: Sequence[Any], table: AnswerTable, make: Callable[[Any], Any]) -> list[Any]:
    """A row with its picture as a tracker takes it."""
    cells = list(row)
    picture = cells[table.picture]
    cells[table.picture] = None if picture is None else make(picture)
    return cells


def _distinct(pictures: Sequence[Any]) -> list[Any]:
    return list({id(p): p for p in pictures if p is not None}.values())


def _cell(value: Any) -> str:
    """A value in a cell of Markdown: on one line, and of its own column."""
    text = "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


KNOWN: Mapping[str, Callable[[Path, Mapping[str, Any]], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": Wandb,
    "trackio": Trackio,
    "mlflow": MLflow,
}


PACKAGES = {name: name for name in KNOWN}
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

    Tables hold `answers` of a step. An unknown name or a missing package is a ConfigError; anything
    after that is the tracker's own trouble and only costs its numbers.
    """

    def __init__(
        self,
        names: Sequence[str],
        run: Path,
        config: Mapping[str, Any],
        say: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
        *,
        answers: int = 0,
    ) -> None:
        self._folder, self._answers = run, answers
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

    def table(self, step: int, lines: Iterable[Mapping[str, Any]]) -> None:
        """Send the answers of a step, as its transcript has them, to every tracker."""
        if not self._trackers or not self._answers:
            return
        kept = list(lines)
        for name, tracker in self._trackers.items():
            self._guard(name, partial(self._table, tracker, step, kept))

    def close(self) -> None:
        for name, tracker in self._trackers.items():
            self._guard(name, tracker.close)

    def _table(self, tracker: Tracker, step: int, lines: Sequence[Mapping[str, Any]]) -> None:
        table = answer_table(step, lines, self._folder, self._answers)
        if table.rows:
            tracker.table(step, table)

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
