"""Engines around the real one, and runs that roll out ahead, for tests of the overlap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from mmrl.config import RunConfig
from mmrl.engines.engine import Engine, Sampling
from mmrl.engines.hf_copy import CopyEngine
from mmrl.policy.weights import Weights
from mmrl.train import rollout_parts
from mmrl.train.run import train
from mmrl.types import Prompt, Response
from mmrl.validation import validate
from tests.runs import run_config


def ahead(folder: Path, digits: Path, staleness: int, **sections: Any) -> RunConfig:
    """A small run whose engine works so many steps ahead."""
    rollout = {"engine": "hf_copy", "max_staleness": staleness, **sections.pop("rollout", {})}
    values = run_config(folder, digits, rollout=rollout, **sections)
    values["data"].pop("eval_path")
    return validate(RunConfig, values, "test")


def start(*args: Any, resume: bool = False, **sections: Any) -> Path:
    """Carry such a run out; returns its folder."""
    config = ahead(*args, **sections)
    train(config, resume=resume)
    return config.run


def fingerprint(weights: dict[str, torch.Tensor]) -> tuple[float, ...]:
    """Numbers that differ where any weight does, but for a coincidence; tied ones count once."""
    distinct = {value.data_ptr(): value for value in weights.values()}
    return tuple(sorted(float(value.double().square().sum()) for value in distinct.values()))


class Watched:
    """The engine it is given, with its calls noted.

    `before` and `after` are called around each `generate`, `loading` at the start of each `sync`.
    """

    takes_adapter = False

    def __init__(
        self,
        engine: CopyEngine,
        before: Callable[[], None] = lambda: None,
        loading: Callable[[], None] = lambda: None,
        after: Callable[[], None] = lambda: None,
    ) -> None:
        self.engine, self.before, self.loading, self.after = engine, before, loading, after
        self.used: list[tuple[float, ...]] = []
        self.made: list[tuple[Sequence[Prompt], list[list[Response]]]] = []

    def generate(
        self, prompts: Sequence[Prompt], counts: Sequence[int], sampling: Sampling, seed: int
    ) -> list[list[Response]]:
        self.used.append(fingerprint(self.engine._copy.model.state_dict()))
        self.before()
        made = self.engine.generate(prompts, counts, sampling, seed)
        self.after()
        self.made.append((prompts, made))
        return made

    @property
    def version(self) -> int | None:
        return self.engine.version

    def sync(self, weights: Weights) -> None:
        self.loading()
        self.engine.sync(weights)

    def close(self) -> None:
        self.engine.close()


def watch(
    monkeypatch: pytest.MonkeyPatch,
    before: Callable[[], None] = lambda: None,
    loading: Callable[[], None] = lambda: None,
    after: Callable[[], None] = lambda: None,
) -> list[Watched]:
    """Put the engines of the runs to come into a `Watched`; they are appended to the list."""
    build = rollout_parts.build_engine
    made: list[Watched] = []

    def watched(*args: Any) -> Engine:
        engine = build(*args)
        assert isinstance(engine, CopyEngine)
        made.append(Watched(engine, before, loading, after))
        return made[-1]

    monkeypatch.setattr(rollout_parts, "build_engine", watched)
    return made
