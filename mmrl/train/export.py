"""A checkpoint as a model folder: what a run wrote without the trainer's state, or merged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from mmrl.errors import UserError
from mmrl.model_config import ModelConfig
from mmrl.policy.model_folder import ADAPTER_CONFIG, base_of
from mmrl.policy.policy import load_policy
from mmrl.train import checkpoint
from mmrl.validation import validate


def export(source: Path, out: Path, *, merge: bool = False, dtype: str | None = None) -> str:
    """Write the model of a run (its newest checkpoint), a checkpoint or an adapter folder to `out`.

    `merge` adds adapters to their base, so that the result needs neither PEFT nor the base; in
    `dtype`, or as the base is saved (bfloat16 rounds the sum). Returns what was written, in words.
    """
    folder = _model_in(source)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is not empty: choose another --out")
    base = base_of(folder)
    if merge and base is not None:
        own = json.loads((Path(base) / "config.json").read_text(encoding="utf-8")).get("dtype")
        values = {"path": str(folder), "dtype": dtype or own or "float32"}
        load_policy(validate(ModelConfig, values, "export")).save(out)
        return f"{out}: a model, {folder} merged into {base}"
    shutil.copytree(folder, out, ignore=shutil.ignore_patterns("trainer"), dirs_exist_ok=True)
    return f"{out}: " + ("a model" if base is None else f"adapters to {base}")


def _model_in(source: Path) -> Path:
    found = checkpoint.latest(source)
    folder = found.path if found else source
    if not any((folder / name).is_file() for name in ("config.json", ADAPTER_CONFIG)):
        raise UserError(f"{source} holds no checkpoint: name a run or a checkpoints/step_N folder")
    return folder
