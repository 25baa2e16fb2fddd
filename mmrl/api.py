"""The public Python functions: thin, typed, and the same code the command line runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmrl import plugins
from mmrl.config import ModelConfig, RunConfig
from mmrl.data.in_memory import write_rows
from mmrl.doctor.preflight import check_run
from mmrl.errors import ConfigError, DataError, TrainingError, UserError
from mmrl.evaluate.benchmark import EvalConfig, run_benchmark
from mmrl.evaluate.summary import Evaluation
from mmrl.policy.policy import Policy
from mmrl.policy.policy import load_policy as load_policy_from
from mmrl.rewards.custom import RewardFunction, name_of, refuse_inside_file
from mmrl.scoring.tasks import load_task
from mmrl.train.run import train as train_run
from mmrl.validation import read_values, validate

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
    data: Iterable[Mapping[str, Any]] | None = None,
    eval_data: Iterable[Mapping[str, Any]] | None = None,
    rewards: Sequence[RewardFunction] = (),
    resume: bool = False,
    overwrite: bool = False,
    allow_changes: bool = False,
) -> dict[str, Any]:
    """Carry out a run and return its result.

    A mapping holds the sections of a configuration; a path is read as one in YAML. `data` and
    `eval_data` are rows of the task `custom` (`prompt`, `image`, further columns), which are
    written beside the run's folder. `rewards` are functions that score them, in TRL's or verl's
    form, also of a notebook, or of the script that calls this under `if __name__ == "__main__":`;
    several are parts by their names, which `data.weights` weighs. The other arguments are those of
    `mmrl train`.
    """
    refuse_inside_file("mmrl.train")
    if isinstance(config, RunConfig):
        values, where = config.model_dump(), "the configuration"
    elif isinstance(config, Mapping):
        values, where = dict(config), "the configuration"
    else:
        values, where = read_values(Path(config)), str(config)
        plugins.importable_from(Path(config).parent)
    if data is not None or eval_data is not None or rewards:
        values["data"] = _source(values, data, eval_data, rewards)
    made = validate(RunConfig, values, where)
    check_run(made, resume=resume)
    return train_run(made, resume=resume, overwrite=overwrite, allow_changes=allow_changes)


def _source(
    values: Mapping[str, Any],
    data: Iterable[Mapping[str, Any]] | None,
    eval_data: Iterable[Mapping[str, Any]] | None,
    rewards: Sequence[RewardFunction],
) -> dict[str, Any]:
    """The one source of a configuration with rows and reward functions from Python put in."""
    given = values.get("data") or {}
    sources = [given] if isinstance(given, Mapping) else list(given)
    if len(sources) > 1:
        raise ConfigError("rows and reward functions from Python are for one source, not several")
    source = {"task": "custom", **(sources[0] if sources else {})}
    run = Path(values.get("run", "run"))
    folder = run.with_name(f"{run.name}.data")
    if rewards:
        names = [name_of(function, folder) for function in rewards]
        named = names[0] if len(names) == 1 else names
        source["params"] = {**source.get("params", {}), "function": named}
    for key, rows in (("path", data), ("eval_path", eval_data)):
        if rows is not None:
            source[key] = write_rows(rows, folder)
    return source


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
