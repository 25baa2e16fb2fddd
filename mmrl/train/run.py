"""A run from its configuration: phase after phase, each step recorded, evaluated, reported."""

from __future__ import annotations

import dataclasses
import time
from contextlib import ExitStack
from typing import Any

from rich.console import Console

from mmrl.backend.world import World, is_lost, join, leave, lost
from mmrl.config import RunConfig
from mmrl.errors import UserError
from mmrl.report import write_report
from mmrl.runlog.diagnosis import diagnose
from mmrl.runlog.progress import Progress
from mmrl.runlog.run_folder import Records, prepare_folder, record_folder
from mmrl.train import checkpoint
from mmrl.train.checkpoint import Checkpoint
from mmrl.train.parts import build_parts
from mmrl.train.phase_run import PhaseRun
from mmrl.train.phases import Place, phases_of, place_of
from mmrl.train.requirements import refuse_phases
from mmrl.train.setting import Setting


def train(config: RunConfig, *, resume: bool = False, overwrite: bool = False) -> dict[str, Any]:
    """Carry a run out and return its result: held-out metric before and after, seconds, seed.

    Started several times by a launcher, the processes carry it out together; the first one writes.
    """
    alone_too = config.trainer.backend == "deepspeed"
    world = join(config.trainer.exchange_timeout_seconds, alone_too=alone_too)
    try:
        result = _train(config, world, resume, overwrite)
    except RuntimeError as error:
        if world.size == 1 or not is_lost(error):
            raise
        raise UserError(lost(error)) from error
    leave()
    return result


def _train(config: RunConfig, world: World, resume: bool, overwrite: bool) -> dict[str, Any]:
    started = time.monotonic()
    phases = phases_of(config)
    refuse_phases(phases, resume=resume)  # a mistake in the last is told before the first
    world.once(lambda: prepare_folder(config, resume, overwrite))
    found = world.once(lambda: checkpoint.latest(config.run) if resume else None)
    with record_folder(config, world) as folder:
        records = Records(folder)
        records.rewind(found.step if found else 0)
        place = place_of(found.state(), found.step, phases) if found else Place()
        started -= float(found.state()["seconds"]) if found else 0.0
        console = None if world.first else Console(quiet=True)
        done = found.step if found else 0
        with Progress(place.remaining(phases), done=done, console=console) as progress:
            begun = Setting(phases, place, world, records, progress.say)
            result = _carry_out(begun, found, started, progress)
    if world.first:
        write_report(config.run)
    return result


def _carry_out(
    setting: Setting, found: Checkpoint | None, started: float, progress: Progress
) -> dict[str, Any]:
    """Phase after phase, from the checkpoint that was found or from the start."""
    while True:
        with ExitStack() as closing:
            run = PhaseRun(build_parts(setting, closing), started)
            first_step, before = run.start(found)
            run.train(first_step, progress)
            found = run.end()
            if setting.last_phase:
                result = run.finish(before)
                break
        setting = dataclasses.replace(setting, place=setting.place.next(found.step))
        name = setting.phase.name
        progress.say(f"phase '{name}' begins after step {found.step}")
    longest = setting.config.rollout.max_new_tokens
    recent = setting.records.metrics.recent
    for line in diagnose(recent, max_new_tokens=longest, held_out=run.held_out):
        progress.say(line)
    return result
