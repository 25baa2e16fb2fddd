"""Where a run's checkpoints lie. Nothing here needs torch.

checkpoints/step_N/            loads with `from_pretrained`, processor included
checkpoints/step_N/trainer/    optimizer*.safetensors and state.json: what a resumed run needs
"""

from __future__ import annotations

from pathlib import Path

STATE = "state.json"
OPTIMIZER = "optimizer"
CRITIC = "critic"
"""Stems of what is kept in `trainer/`."""


def folder_of(run: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return run / "checkpoints" / f"step_{step}"


def step_of(folder: Path) -> int:
    """The step that a checkpoint's folder is named after."""
    return int(folder.name.removeprefix("step_"))


def whole(run: Path) -> list[Path]:
    """The folders of a run's finished checkpoints, oldest first."""
    found = (run / "checkpoints").glob("step_*")
    return sorted((path for path in found if (path / "trainer" / STATE).is_file()), key=step_of)


def newest(run: Path) -> Path | None:
    """The folder of a run's newest finished checkpoint."""
    found = whole(run)
    return found[-1] if found else None
