"""A run from its configuration: phase after phase, each step recorded, evaluated, reported."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text
from safetensors import SafetensorError

from mmrl.backend.world import World, is_lost, join, leave, lost
from mmrl.config import RunConfig
from mmrl.errors import TrainingError
from mmrl.report import write_report
from mmrl.runlog.claim import CONFIG, Claim, claimed
from mmrl.runlog.diagnosis import diagnose
from mmrl.runlog.progress import Progress
from mmrl.runlog.run_folder import Records, record_folder
from mmrl.train import checkpoint
from mmrl.train.changes import Say, accept
from mmrl.train.checkpoint import Checkpoint
from mmrl.train.checkpoint_files import is_full
from mmrl.train.parts import build_parts
from mmrl.train.phase_run import PhaseRun, RolledBack, Session
from mmrl.train.phases import Phase, Place, phases_of, place_of
from mmrl.train.requirements import refuse_phases
from mmrl.train.setting import Setting
from mmrl.train.start import own_start
from mmrl.train.stopping import Stopping


@dataclasses.dataclass(frozen=True)
class Asked:
    """How a run is to begin: in the place of another, or where it stopped, maybe otherwise."""

    resume: bool = False
    overwrite: bool = False
    allow_changes: bool = False


def train(
    config: RunConfig,
    *,
    resume: bool = False,
    overwrite: bool = False,
    allow_changes: bool = False,
) -> dict[str, Any]:
    """Carry a run out and return its result: held-out metric before and after, seconds, seed.

    Started several times by a launcher, the processes carry it out together; the first one writes.
    `resume` goes on from the last sound checkpoint, and refuses what would make it another run
    unless `allow_changes`. `overwrite` replaces a run once this one has made a step. On SIGTERM
    and SIGHUP it ends after its step, with a checkpoint, and raises Terminated; so it does on
    SIGINT, and raises Interrupted.
    """
    asked = Asked(resume, overwrite, allow_changes)
    alone_too = config.trainer.backend == "deepspeed"
    world = join(config.trainer.exchange_timeout_seconds, alone_too=alone_too)
    try:
        result = _train(config, world, asked)
    except RuntimeError as error:
        if world.size == 1 or not is_lost(error):
            raise
        raise TrainingError(lost(error)) from error
    except (OSError, SafetensorError) as error:
        if not is_full(error):
            raise
        raise TrainingError(f"no space left ({error}): `--resume` goes on once there is") from error
    leave()
    return result


def _train(config: RunConfig, world: World, asked: Asked) -> dict[str, Any]:
    started = time.monotonic()
    stopping, console = Stopping(quiet=not world.first), Console(stderr=True, quiet=not world.first)

    def say(line: str) -> None:
        console.print(Text(line), soft_wrap=True)

    phases = phases_of(config)
    refuse_phases(phases, resume=asked.resume)  # a mistake in the last is told before the first
    with ExitStack() as stack:
        stack.enter_context(stopping.hearing())
        claim = _claim(config.run, world, asked, stack, say)
        found = world.once(lambda: _begin(config, asked, say))
        phases = _from_start(phases, world.once(lambda: own_start(config, say)))
        records = Records(stack.enter_context(record_folder(config, world)))
        done = found.step if found else 0
        records.rewind(done)
        place = place_of(found.state(), done, phases) if found else Place()
        started -= float(found.state()["seconds"]) if found else 0.0
        progress = Progress(place.remaining(phases), done=done, console=console)
        stack.enter_context(progress)
        begun = Setting(phases, place, world, records, progress.say, asked.allow_changes)
        result = _carry_out(begun, found, Session(started, progress, claim, stopping))
        if world.first:
            write_report(config.run)
    return result


def _claim(run: Path, world: World, asked: Asked, stack: ExitStack, say: Say) -> Claim:
    """Have the run folder, on the process that writes; the others have nothing to let go."""
    held = claimed(run, resume=asked.resume, overwrite=asked.overwrite, say=say)
    claim = Claim()

    def take() -> None:
        nonlocal claim
        claim = stack.enter_context(held)

    world.once(take)
    return claim


def _begin(config: RunConfig, asked: Asked, say: Say) -> Checkpoint | None:
    """Write the configuration down, and find the checkpoint to go on from."""
    found = checkpoint.latest_sound(config.run, say) if asked.resume else None
    if found is not None:
        accept(config.run, config, found.step, asked.allow_changes, say)
        return found
    if asked.resume:
        say(f"no checkpoint in {config.run}: beginning at step 1")
    (config.run / CONFIG).write_text(config.to_yaml(), encoding="utf-8")
    return None


def _from_start(phases: Sequence[Phase], folder: Path | None) -> list[Phase]:
    """The phases with the model that the run starts with, where it was written anew."""
    if folder is None:
        return list(phases)
    return [
        dataclasses.replace(
            phase,
            config=phase.config.model_copy(
                update={"model": phase.config.model.model_copy(update={"path": str(folder)})}
            ),
        )
        for phase in phases
    ]


def _carry_out(setting: Setting, found: Checkpoint | None, session: Session) -> dict[str, Any]:
    """Phase after phase, from the checkpoint that was found or from the start."""
    while True:
        with ExitStack() as closing:
            run = PhaseRun(build_parts(setting, closing), session)
            first_step, before = run.start(found)
            try:
                run.train(first_step)
            except RolledBack as back:
                found = checkpoint.at(setting.config.run, back.step)
                continue
            found = run.end()
            if setting.last_phase:
                result = run.finish(before)
                break
        setting = dataclasses.replace(setting, place=setting.place.next(found.step))
        name = setting.phase.name
        setting.say(f"phase '{name}' begins after step {found.step}")
    longest = setting.config.rollout.max_new_tokens
    recent = setting.records.metrics.recent
    for line in diagnose(recent, max_new_tokens=longest, held_out=run.held_out):
        setting.say(line)
    if line := setting.records.quarantine.line():
        setting.say(line)
    return result
