"""What can be refused before anything heavy is imported: names, options, folders and files.

Everything here is read from JSON and from the tasks' and algorithms' own declarations, so that a
mistake is told at once. What takes the model or the records to find out is told by the run.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmrl import plugins
from mmrl.algorithms.compose import compose
from mmrl.config import RunConfig
from mmrl.corpus.table import missing
from mmrl.data.samples import Samples, load_samples, open_rows
from mmrl.data_config import DataConfig
from mmrl.doctor import packages
from mmrl.errors import ConfigError, DataError, UserError
from mmrl.modalities import options
from mmrl.model_config import ModelConfig
from mmrl.policy.model_folder import check_folder, check_media
from mmrl.rollout_config import SERVER_KEY
from mmrl.runlog import claim
from mmrl.runlog.quarantine import commonest
from mmrl.runlog.trackers import refuse_trackers
from mmrl.scoring.judges.judge_config import judges_of
from mmrl.scoring.tasks import fixture_path, load_task, resolve_weights
from mmrl.task import Task
from mmrl.train.changes import refuse_changes
from mmrl.train.checkpoint_files import newest
from mmrl.train.phases import phases_of
from mmrl.train.reference_config import reference_of
from mmrl.train.requirements import refuse_phases
from mmrl.types import MediaRef
from mmrl.validation import apply_override, validate

LOOKED_AT = 8
"""Records that are looked at for media."""


def check_run(config: RunConfig, *, records: bool = True, resume: bool = False) -> list[str]:
    """Refuse a run that cannot start; returns what it will say of its algorithms, a line each.

    `records` False passes over records that are not there yet. One that resumes has its own copy of
    what it began with.
    """
    check_model(config.model)
    judges_of(config.judges)
    reference_of(config.reference)
    phases = phases_of(config)
    refuse_phases(phases, resume=resume)
    notes: list[str] = []
    for phase in phases:
        notes += _check_phase(phase.config, records)
        longest = phase.config.rollout.max_new_tokens
        notes += filter(None, (phase.note, *compose(phase.config.algorithm, longest).notes))
    return notes


def check_host(host: str) -> None:
    """Refuse to serve on a host beyond this machine where no key is set."""
    if host != "localhost" and not _is_loopback(host) and not os.environ.get(SERVER_KEY):
        raise ConfigError(
            f"--host {host}: others could send prompts and weights; set {SERVER_KEY} to a secret, "
            "here and where the run is started"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_place(config: RunConfig, *, resume: bool, overwrite: bool, allow_changes: bool) -> None:
    """Refuse a run folder that is not to be written into as it was asked."""
    claim.refuse(config.run, resume=resume, overwrite=overwrite)
    if resume and newest(config.run) is not None:
        refuse_changes(config.run, config, allowed=allow_changes)


def _check_phase(config: RunConfig, records: bool) -> list[str]:
    """Refuse what a phase names and what is not there: options, trackers, packages, files.

    Returns what is to be said of its first records.
    """
    notes: list[str] = []
    for source in config.data:
        notes += _check_source(source, records)
        if source.recipe is None and not missing(source.path):
            where = source.columns, source.media_roots
            _check_media(config.model, load_task(source.task, source.params), source.path, *where)
    for kind, values in config.media.items():
        options.check(kind, values, plugins.load("modality", kind).Options)
    refuse_trackers(config.trainer.trackers)
    packages.check(config)
    settings = config.trainer.deepspeed
    if settings is not None and not settings.is_file():
        raise ConfigError(f"trainer.deepspeed: no file {settings}")
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


def _check_media(
    config: ModelConfig,
    task: Task,
    path: Path,
    columns: Mapping[str, str | None] | None = None,
    roots: Sequence[Path] = (),
) -> None:
    """Refuse a model of text alone where one of the first records has media."""
    try:
        check_media(config)
    except ConfigError:
        if _have_media(task, path, columns, roots):
            raise


def _have_media(
    task: Task, path: Path, columns: Mapping[str, str | None] | None, roots: Sequence[Path]
) -> bool:
    try:
        samples = load_samples(task, path, "", lambda *_: None, LOOKED_AT, columns, roots)
    except (UserError, OSError):
        return False  # the run says what is wrong with its records
    return any(isinstance(part, MediaRef) for sample in samples for part in sample.parts)


def _check_source(source: DataConfig, records: bool) -> list[str]:
    task = load_task(source.task, source.params)
    resolve_weights(task, source.weights)
    for root in source.media_roots:
        if not root.is_dir():
            raise ConfigError(f"data.media_roots: no folder at {root}")
    if source.recipe is not None:
        plugins.find("recipe", source.recipe.name)
        return []
    paths = [(source.path, "data.path"), (source.eval_path, "data.eval_path")] if records else []
    notes = []
    for path, said in paths:
        if path is not None:
            _check_path(path, said)
            notes += _check_records(task, source, path, said)
    return notes


def _check_records(task: Task, source: DataConfig, path: Path, said: str) -> list[str]:
    """Refuse what cannot be read, and columns that are not there; a note on what is no use."""
    if task.own_records(path) is not None:
        next(iter(task.records(path)), None)
        return []
    rows = open_rows(task, path, source.columns, source.media_roots)
    samples = Samples(task, rows, source.task, lambda *_: None, limit=LOOKED_AT)
    for _ in samples.usable():
        pass
    if not samples.reasons:
        return []
    reason, count = commonest(samples.reasons)
    bad = f"{samples.reasons.total()} of the first {len(samples)} records cannot be asked"
    return [f"{said}: {bad}, {count} of them: {reason}"]


def _check_path(path: Path, said: str) -> None:
    if why := missing(path):
        raise DataError(f"{why}: check {said}")
