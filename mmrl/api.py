"""The public Python functions: thin, typed, and the same code the command line runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mmrl.config import ModelConfig, RunConfig, load_config, validate
from mmrl.doctor.preflight import check_run
from mmrl.errors import ConfigError, DataError, TrainingError, UserError
from mmrl.evaluate.benchmark import EvalConfig, run_benchmark
from mmrl.evaluate.summary import Evaluation
from mmrl.policy.policy import Policy
from mmrl.policy.policy import load_policy as load_policy_from
from mmrl.scoring.tasks import load_task
from mmrl.train.run import train as train_run

__all__ = [
    "ConfigError",
    "DataError",
    "TrainingError",
    "UserError",
    "evaluate",
    "load_policy",
    "load_task",
    "train",
]


def train(
    config: RunConfig | Mapping[str, Any] | Path | str,
    *,
    resume: bool = False,
    overwrite: bool = False,
    allow_changes: bool = False,
) -> dict[str, Any]:
    """Carry out a run and return its result.

    A mapping holds the sections of a configuration; a path is read as one in YAML. The other
    arguments are those of `mmrl train`.
    """
    if isinstance(config, Mapping):
        config = validate(RunConfig, dict(config), "the configuration")
    elif not isinstance(config, RunConfig):
        config = load_config(Path(config))
    check_run(config, resume=resume)
    return train_run(config, resume=resume, overwrite=overwrite, allow_changes=allow_changes)


def load_policy(path: Path | str, **options: Any) -> Policy:
    """Load a model folder; options are those of the configuration's `model` section."""
    return load_policy_from(ModelConfig(path=str(path), **options))


def evaluate(
    model: Path | str,
    task: str,
    data: Path | str,
    *,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    **settings: Any,
) -> Evaluation:
    """Score a model on a task's records with the task's own `score()`; greedy by default.

    Settings are the fields of `mmrl.evaluate.benchmark.EvalConfig`: params, samples, k, limit ...
    """
    values = {"model": {"path": str(model)}, "task": task, "data": data, **settings}
    config = validate(EvalConfig, values, "evaluate")
    return run_benchmark(config, overwrite=overwrite, on_progress=on_progress).evaluation
