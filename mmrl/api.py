"""The public Python functions: thin, typed, and the same code the command line runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmrl import plugins
from mmrl.config import RunConfig
from mmrl.data.in_memory import write_rows
from mmrl.doctor.preflight import check_run
from mmrl.errors import ConfigError, DataError, TrainingError, UserError
from mmrl.evaluate.benchmark import EvalConfig, run_benchmark
from mmrl.evaluate.summary import Evaluation
from mmrl.model_config import ModelConfig
from mmrl.paper_config import run_sections
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

    Args:
        config: the sections of a configuration, or the path of one in YAML.
        data: rows of the task `custom` (`prompt`, `image`, further columns), which are written
            beside the run's folder.
        eval_data: such rows to evaluate on.
        rewards: functions that score them, in TRL's or verl's form, also of a notebook, or of the
            script that calls this under `if __name__ == "__main__":`; several are parts by their
            names, which `data.weights` weighs.
        resume: go on from the newest checkpoint of the run's folder.
        overwrite: replace the run's folder.
        allow_changes: resume with settings that differ from the checkpoint's.

    Returns:
        The content of `result.json`, with held-out numbers before and after, steps and seconds.

    Raises:
        UserError: what is configured, the records or the course of the run do not allow it.

    Example:
        >>> from mmrl.scoring.tasks import fixture_path
        >>> result = train({
        ...     "run": "runs/one",
        ...     "model": {"path": "asset:tiny_qwen2_5_vl"},
        ...     "data": {"task": "digit_count", "path": str(fixture_path("digit_count"))},
        ...     "algorithm": {"name": "grpo", "group_size": 2},
        ...     "rollout": {"max_new_tokens": 8},
        ...     "trainer": {"steps": 1, "prompts_per_step": 2},
        ... })
        >>> result["steps"]
        1
    """
    refuse_inside_file("mmrl.train")
    if isinstance(config, RunConfig):
        values, where = config.model_dump(), "the configuration"
    elif isinstance(config, Mapping):
        values, where = dict(config), "the configuration"
    else:
        where = str(config)
        values = run_sections(read_values(Path(config)), where)
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
        names = [name_of(function) for function in rewards]
        named = names[0] if len(names) == 1 else names
        source["params"] = {**source.get("params", {}), "function": named}
    for key, rows in (("path", data), ("eval_path", eval_data)):
        if rows is not None:
            source[key] = write_rows(rows, folder)
    return source


def load_policy(path: Path | str, **options: Any) -> Policy:
    """Load a model folder.

    Args:
        path: a folder that transformers loads, or `asset:tiny_qwen2_5_vl`.
        options: keys of the configuration's section `model`.

    Returns:
        The model with its family and processor, as a run trains it.

    Example:
        >>> load_policy("asset:tiny_qwen2_5_vl", dtype="bfloat16").model.dtype
        torch.bfloat16
    """
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

    Args:
        model: a model folder or a checkpoint of a run.
        task: a task's name, or `file.py:name`.
        data: records, where `data.path` of a run may be.
        overwrite: replace answers that are there, instead of going on from them.
        on_progress: gets the numbers of records that are done and of all.
        settings: `mmrl.evaluate.benchmark.EvalConfig`'s fields: params, samples, k, limit, out ...

    Returns:
        The number with its interval, what was counted, and numbers by group.

    Example:
        >>> from mmrl.scoring.tasks import fixture_path
        >>> digits = fixture_path("digit_count")
        >>> found = evaluate("asset:tiny_qwen2_5_vl", "digit_count", digits, limit=2)
        >>> found.records
        2
    """
    values = {"model": {"path": str(model)}, "task": task, "data": data, **settings}
    config = validate(EvalConfig, values, "evaluate")
    return run_benchmark(config, overwrite=overwrite, on_progress=on_progress).evaluation
