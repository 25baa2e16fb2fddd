"""Kinds of runs that are killed: each small, each with something of its own to lose."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from mmrl.runlog.journal import Journal
from tests.runs import WARM_UP, make_digits, run_config, write_config

STEPS = 6
EVERY = {"steps": STEPS, "prompts_per_step": 2, "checkpoint_every": 2}


@dataclass(frozen=True)
class Subject:
    """A kind of run by its sections; `data` names what it is trained on."""

    name: str
    summary: str
    sections: Mapping[str, Any] = field(default_factory=dict)
    data: str = "digits"

    def config(self, workspace: Path, run: Path, **trainer: Any) -> Path:
        """Write the configuration of a run beside its folder."""
        sections = {name: value for name, value in self.sections.items() if name != "phases"}
        sections["trainer"] = {**EVERY, **sections.get("trainer", {}), **trainer}
        made = run_config(run, workspace / "digits", **sections)
        if self.data == "mazes":
            params = {"turns": 3}
            path = str(workspace / "mazes" / "train.jsonl")
            made["data"] = {"task": "maze_walk", "path": path, "params": params}
        if "phases" in self.sections:
            made["phases"] = self.sections["phases"]
        return write_config(run.with_suffix(".yaml"), made)


KL = {"kl_coefficient": 0.02, "updates": {"mini_batches": 2}}
SUBJECTS = (
    Subject(
        "grpo",
        "several updates a step, KL to the start, a warm-up",
        {"algorithm": KL, "optimizer": {"warmup_steps": 3, "schedule": "linear"}},
    ),
    Subject(
        "phases",
        "supervised, then GRPO with the reference of its own start",
        {
            "phases": [
                {**WARM_UP, "trainer": {"steps": 3, "prompts_per_step": 2}},
                {"name": "rl", "algorithm": {"name": "grpo", **KL}, "trainer": {"steps": 3}},
            ]
        },
    ),
    Subject(
        "staleness",
        "a copy that rolls out two steps ahead",
        {"rollout": {"engine": "hf_copy", "max_staleness": 2}, "algorithm": {"name": "dapo"}},
    ),
    Subject("replay", "groups replayed from a buffer", {"algorithm": {"name": "ssb"}}),
    Subject("lora", "adapters", {"model": {"lora": {"rank": 4, "dropout": 0.1}}, "algorithm": KL}),
    Subject("critic", "a critic with an optimiser of its own", {"algorithm": {"name": "ppo"}}),
    Subject(
        "episodes",
        "walks of several turns, credit by turn",
        {
            "algorithm": {"name": "gigpo"},
            "rollout": {"max_new_tokens": 60, "max_turn_tokens": 8},
        },
        data="mazes",
    ),
)


def make_workspace(folder: Path) -> Path:
    """Data of every subject."""
    make_digits(folder / "digits", train=20, test=4)
    importlib.import_module("mmrl.data_recipes.mazes").build(
        None, folder / "mazes", train=8, validation=1, test=2
    )
    return folder


@dataclass(frozen=True)
class Traces:
    """What two runs that are one must have in common."""

    weights: Mapping[str, torch.Tensor]
    critic: Mapping[str, torch.Tensor]
    optimizer: Mapping[str, torch.Tensor]
    consumed: list[Any]
    rewards: list[Any]
    held_out: Any

    @classmethod
    def of(cls, run: Path) -> Traces:
        """Read a finished run's."""
        last = run / "checkpoints" / f"step_{STEPS}"
        weights = next(p for p in last.glob("*.safetensors"))
        critic = last / "trainer" / "critic.safetensors"
        return cls(
            load_file(weights),
            load_file(critic) if critic.exists() else {},
            load_file(last / "trainer" / "optimizer.safetensors"),
            [(row["step"], row["ids"]) for row in Journal(run / "consumed.jsonl").rows()],
            [row["reward/mean"] for row in Journal(run / "metrics.jsonl").rows()],
            json.loads((run / "result.json").read_text())["after"],
        )

    def difference(self, other: Traces) -> str:
        """The first thing that differs; "" if nothing does."""
        for name in ("consumed", "rewards", "held_out"):
            if getattr(self, name) != getattr(other, name):
                return name
        for name in ("weights", "critic", "optimizer"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine.keys() != theirs.keys():
                return f"names of {name}"
            for key, value in mine.items():
                if not torch.equal(value, theirs[key]):
                    return f"{name} {key}"
        return ""


def leftovers(run: Path) -> list[str]:
    """What a finished run has no use for: locks, files half written, folders put aside."""
    names = [path.name for path in (*run.parent.iterdir(), *run.rglob("*"))]
    ours = (f".{run.name}.lock", f"{run.name}.replaced", f"{run.name}.removing")
    return [n for n in names if n in ours or n.startswith((".writing", ".before")) or ".tmp" in n]
