"""Checkpoints: written beside their place and renamed into it, so that one exists whole or not.

checkpoints/step_N/            loads with `from_pretrained`, processor included
checkpoints/step_N/trainer/    optimizer.safetensors and state.json: what a resumed run needs
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from mmrl.backend.backend import Backend
from mmrl.policy.policy import Policy

STATE = "state.json"
OPTIMIZER = "optimizer.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint on disk."""

    path: Path
    step: int

    def restore(self, backend: Backend) -> Mapping[str, Any]:
        """Load the optimiser's state and return the trainer's."""
        folder = self.path / "trainer"
        state: dict[str, Any] = json.loads((folder / STATE).read_text(encoding="utf-8"))
        backend.load_state(load_file(folder / OPTIMIZER), state["backend"])
        return state

    def tensors(self, name: str) -> dict[str, Tensor]:
        """What `save` was given to keep under a name."""
        return load_file(self.path / "trainer" / f"{name}.safetensors")


def latest(run: Path) -> Checkpoint | None:
    """The newest whole checkpoint of a run."""
    found = sorted(_whole(run), key=lambda c: c.step)
    return found[-1] if found else None


def save(
    run: Path,
    step: int,
    policy: Policy,
    backend: Backend,
    state: Mapping[str, Any],
    keep: int,
    more: Mapping[str, Mapping[str, Tensor]] | None = None,
) -> Path:
    """Write step N atomically and remove all but the last `keep` checkpoints.

    `more` holds further named tensors, such as a critic's.
    """
    folder = run / "checkpoints"
    final = folder / f"step_{step}"
    # A name that `_whole` does not know: a killed run leaves it behind, the next save removes it.
    partial = folder / f".writing_{step}"
    shutil.rmtree(partial, ignore_errors=True)
    policy.save(partial)
    (partial / "trainer").mkdir()
    tensors, data = backend.state()
    save_file(_contiguous(tensors), partial / "trainer" / OPTIMIZER)
    for name, values in (more or {}).items():
        save_file(_contiguous(values), partial / "trainer" / f"{name}.safetensors")
    text = json.dumps({**state, "step": step, "backend": data})
    (partial / "trainer" / STATE).write_text(text, encoding="utf-8")
    _sync_tree(partial)
    shutil.rmtree(final, ignore_errors=True)
    os.replace(partial, final)
    _sync(folder)
    for old in sorted(_whole(run), key=lambda c: c.step)[:-keep]:
        shutil.rmtree(old.path)
    return final


def _whole(run: Path) -> list[Checkpoint]:
    return [
        Checkpoint(path, int(path.name.removeprefix("step_")))
        for path in (run / "checkpoints").glob("step_*")
        if (path / "trainer" / STATE).is_file()
    ]


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
