"""What can be refused before anything heavy is imported: names, options, folders and files.

Everything here is read from JSON and from the tasks' and algorithms' own declarations, so that a
mistake is told at once. What takes the model or the records to find out is told by the run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmrl import plugins
from mmrl.algorithms.compose import compose
from mmrl.config import DataConfig, ModelConfig, RunConfig, apply_override, validate
from mmrl.data.stream import load_samples
from mmrl.errors import UserError
from mmrl.policy.model_folder import check_folder, check_media
from mmrl.scoring.tasks import fixture_path, load_task, resolve_weights
from mmrl.task import Task
from mmrl.train.phases import phases_of
from mmrl.types import MediaRef

LOOKED_AT = 8
"""Records that are looked at for media."""


def check_run(config: RunConfig, *, records: bool = True) -> list[str]:
    """Refuse a run that cannot start; returns what it will say of its algorithms, a line each.

    `records` False passes over records that are not there yet.
    """
    check_model(config.model)
    notes: list[str] = []
    for phase in phases_of(config):
        for source in phase.config.data:
            _check_source(source, records)
            if source.recipe is None and source.path.exists():
                _check_media(config.model, load_task(source.task, source.params), source.path)
        longest = phase.config.rollout.max_new_tokens
        notes += filter(None, (phase.note, *compose(phase.config.algorithm, longest).notes))
    return notes


def check_model(config: ModelConfig) -> None:
    """Refuse a folder that holds no model, and a family that is none."""
    check_folder(config)
    if config.family is not None:
        plugins.find("family", config.family)


def check_evaluation(flags: Mapping[str, Any], overrides: Sequence[str]) -> None:
    """Refuse an evaluation that cannot start: its model, its task, or its records."""
    values: dict[str, Any] = {"params": {}, "weights": {}, "task": flags["task"]}
    values |= {"model": {"path": flags["model"]}, "data": flags["data"]}
    for override in overrides:
        apply_override(values, override)
    check_model(validate(ModelConfig, values["model"], "model"))
    name, params = values["task"], values["params"]
    resolve_weights(load_task(name, params), values["weights"])
    path = Path(values["data"] or fixture_path(name))
    _check_path(path, "--data")
    _check_media(validate(ModelConfig, values["model"], "model"), load_task(name, params), path)


def _check_media(config: ModelConfig, task: Task, path: Path) -> None:
    """Refuse a model of text alone where one of the first records has media."""
    try:
        check_media(config)
    except UserError:
        if _have_media(task, path):
            raise


def _have_media(task: Task, path: Path) -> bool:
    try:
        samples = load_samples(task, path, "", lambda record, reason: None, LOOKED_AT)
    except (UserError, OSError):
        return False  # the run says what is wrong with its records
    return any(isinstance(part, MediaRef) for sample in samples for part in sample.parts)


def _check_source(source: DataConfig, records: bool) -> None:
    resolve_weights(load_task(source.task, source.params), source.weights)
    if source.recipe is not None:
        plugins.find("recipe", source.recipe.name)
    elif records:
        _check_path(source.path, "data.path")
        if source.eval_path is not None:
            _check_path(source.eval_path, "data.eval_path")


def _check_path(path: Path, said: str) -> None:
    if not path.exists():
        raise UserError(f"no data file at {path}: check {said}")
