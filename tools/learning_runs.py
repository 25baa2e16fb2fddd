"""Runs of the experiments that ask whether something learns: made once, each from a READY start."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmrl.train.checkpoint import Checkpoint


def train(values: Mapping[str, Any]) -> dict[str, Any]:
    """The result of a run, made if it is not there."""
    from mmrl.config import RunConfig
    from mmrl.train.run import train as run
    from mmrl.validation import validate

    folder, steps = Path(values["run"]), values["trainer"]["steps"]
    found = result_of(folder)
    if found.get("steps", 0) < steps:
        config = validate(RunConfig, dict(values), folder.name)
        begun = (folder / "checkpoints").is_dir()
        run(config, resume=begun, overwrite=not begun, allow_changes=True)
        found = {**result_of(folder), "steps": steps}
        (folder / "result.json").write_text(json.dumps(found), encoding="utf-8")
    return found


def result_of(folder: Path) -> dict[str, Any]:
    """What a run came to; empty where it has not ended."""
    path = folder / "result.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def ready(phase: Mapping[str, Any], share: float, most: int, every: int) -> Checkpoint:
    """The first checkpoint of a supervised run that says this share of the held-out right.

    It is looked at every so many steps; SystemExit where `most` steps do not get there.
    """
    from mmrl.train import checkpoint

    run = Path(phase["run"])
    looks = {"eval_every": every, "checkpoint_every": every, "keep_checkpoints": 100}
    supervised = {
        **phase,
        "algorithm": {"name": "sft"},
        "rollout": {**phase["rollout"], "engine": "targets"},
    }
    for last in range(result_of(run).get("steps", every), most + 1, every):
        trainer = {**phase["trainer"], "steps": last, **looks}
        found = train({**supervised, "trainer": trainer})
        if found["after"] >= share:
            print(f"{run.name}: step {last} is the first with {share:.0%}", flush=True)
            return checkpoint.at(run, last)
    raise SystemExit(f"no checkpoint of {run} reached {share:.0%}: give more --sft-steps")
