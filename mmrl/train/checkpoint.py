"""Checkpoints: written beside their place and renamed into it, so that one exists whole or not.

Every process of a sharded run writes the optimiser's state of some parameters, whole, so that any
number of processes can take it up.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from mmrl.backend.backend import Backend
from mmrl.backend.world import World
from mmrl.errors import TrainingError, one_line
from mmrl.policy.buckets import Buckets
from mmrl.policy.policy import Policy
from mmrl.train.checkpoint_files import (
    OPTIMIZER,
    STATE,
    checksums,
    damage,
    folder_of,
    newest,
    step_of,
    whole,
    write_checksums,
)


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint on disk."""

    path: Path
    step: int

    def restore(self, backend: Backend) -> Mapping[str, Any]:
        """Load the optimiser's state and return the trainer's."""
        state = self.state()
        with self._whole():
            backend.load_state(Stored(self.path / "trainer", OPTIMIZER), state["backend"])
        return state

    def state(self) -> Mapping[str, Any]:
        """The trainer's state."""
        with self._whole():
            text = (self.path / "trainer" / STATE).read_text(encoding="utf-8")
            state: dict[str, Any] = json.loads(text)
        return state

    def tensors(self, name: str) -> dict[str, Tensor]:
        """What `save` was given to keep under a name, in its own shapes."""
        with self._whole():
            return load_file(self.path / "trainer" / f"{name}.safetensors")

    def load_weights(self, policy: Policy) -> None:
        """Let the policy take over the weights, bit for bit."""
        with self._whole():
            policy.load_weights(self.path)

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """Tell a file that was cut or lost from a bug."""
        try:
            yield
        except (OSError, SafetensorError, json.JSONDecodeError) as error:
            raise damaged(self.path, one_line(error)) from error


def at(run: Path, step: int) -> Checkpoint:
    """The checkpoint of a step; raises TrainingError where it is gone."""
    found = Checkpoint(folder_of(run, step), step)
    if not (found.path / "trainer" / STATE).is_file():
        raise TrainingError(f"no whole checkpoint at {found.path}: a phase began with it")
    reason = damage(found.path)
    if reason:
        raise damaged(found.path, reason)
    return found


def damaged(folder: Path, reason: str) -> TrainingError:
    """What to say of a checkpoint that nothing takes the place of."""
    return TrainingError(
        f"the checkpoint {folder} is damaged ({reason}): remove it, and "
        "`--resume` goes on from the one before"
    )


def latest(run: Path) -> Checkpoint | None:
    """The newest whole checkpoint of a run."""
    folder = newest(run)
    return Checkpoint(folder, step_of(folder)) if folder else None


def latest_sound(run: Path, say: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint whose files are those that were written; damaged ones are put aside.

    Raises TrainingError where there are damaged ones only, which then stay where they are.
    """
    for before in (run / "checkpoints").glob(".before_step_*"):
        final = before.with_name(before.name.removeprefix(".before_"))
        if not final.exists():  # killed while it was to be replaced
            os.replace(before, final)
    reasons: dict[Path, str] = {}
    for folder in reversed(whole(run)):
        reason = damage(folder)
        if not reason:
            for other, why in reasons.items():
                aside = other.with_name(f"damaged_{other.name}")
                shutil.rmtree(aside, ignore_errors=True)
                os.replace(other, aside)
                say(f"the checkpoint {other} is damaged ({why}): it is now {aside.name}")
            return Checkpoint(folder, step_of(folder))
        reasons[folder] = reason
    if reasons:
        newest_one, why = next(iter(reasons.items()))
        raise TrainingError(
            f"the checkpoint {newest_one} is damaged ({why}), and there is no sound one before it: "
            "start anew with --overwrite"
        )
    return None


class Stored(Mapping[str, Tensor]):
    """The tensors of one or several files by name; each is read when it is asked for."""

    def __init__(self, folder: Path, stem: str) -> None:
        self._files: dict[str, Path] = {}
        for file in sorted(folder.glob(f"{stem}*.safetensors")):
            with safe_open(file, "pt") as opened:
                self._files |= dict.fromkeys(opened.keys(), file)

    def __getitem__(self, name: str) -> Tensor:
        with safe_open(self._files[name], "pt") as opened:
            tensor: Tensor = opened.get_tensor(name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def save(
    run: Path,
    step: int,
    policy: Policy,
    backend: Backend,
    state: Mapping[str, Any],
    keep: int,
    world: World | None = None,
    more: Mapping[str, Mapping[str, Tensor]] | None = None,
    pinned: Collection[int] = (),
) -> Path:
    """Write step N atomically; all but the last `keep` checkpoints and the `pinned` ones go.

    All processes of `world` save; the first writes the model, each its part of the optimiser.
    `more` holds further named tensors of any shape, such as a critic's.
    """
    world = world or World()
    folder = run / "checkpoints"
    # A name that `whole` does not know: a killed run leaves it behind, the next save removes it.
    partial = folder / f".writing_{step}"
    world.once(lambda: _start(partial))
    policy.save(partial, writes=world.first)
    buckets, data = backend.state_in_buckets()
    stem = OPTIMIZER if world.size == 1 else f"{OPTIMIZER}-{world.rank:05d}"
    written = _write_buckets(buckets, partial, stem)
    if world.first:
        for name, values in (more or {}).items():
            save_file(_contiguous(values), partial / "trainer" / f"{name}.safetensors")
        text = json.dumps({**state, "step": step, "backend": data})
        (partial / "trainer" / STATE).write_text(text, encoding="utf-8")
    # Each its own, while it is still in memory; when all are gathered, everybody has written.
    own = checksums(partial, written)
    known = {name: value for part in world.gather(own) for name, value in part.items()}
    if world.first:
        write_checksums(partial, known)
    return world.once(lambda: _finish(partial, folder_of(run, step), keep, pinned))


def _write_buckets(buckets: Buckets, partial: Path, stem: str) -> list[str]:
    """Write a file a bucket, and return their paths in the folder."""
    written: list[str] = []
    for number, tensors in enumerate(buckets):
        written.append(f"trainer/{stem}{f'-{number:05d}' if number else ''}.safetensors")
        save_file(_contiguous(tensors), partial / written[-1])
    return written


def _start(partial: Path) -> None:
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "trainer").mkdir(parents=True)


def _finish(partial: Path, final: Path, keep: int, pinned: Collection[int]) -> Path:
    _sync_tree(partial)
    # Whoever is killed here leaves the old one or the new one, whole.
    before = final.with_name(f".before_{final.name}")
    if final.exists():
        os.replace(final, before)
    os.replace(partial, final)
    shutil.rmtree(before, ignore_errors=True)
    _sync(final.parent)
    for old in whole(final.parent.parent)[:-keep]:
        if step_of(old) not in pinned:
            shutil.rmtree(old)
    return final


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def _sync_tree(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
