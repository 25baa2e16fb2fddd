"""The public Python functions: thin, typed, and the same code the command line runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mmrl.config import ModelConfig, RolloutConfig, RunConfig, load_config
from mmrl.data import load_samples
from mmrl.errors import UserError
from mmrl.evaluator import Evaluation
from mmrl.evaluator import evaluate as evaluate_samples
from mmrl.policy.encoder import Encoder
from mmrl.policy.policy import Policy
from mmrl.policy.policy import load_policy as load_policy_from
from mmrl.rollout.engine import Sampling
from mmrl.rollout.hf import HFEngine
from mmrl.rollout.score import Scorer, TaskSpec
from mmrl.run import train as train_run
from mmrl.tasking import load_task

__all__ = ["evaluate", "load_policy", "load_task", "train"]


def train(
    config: RunConfig | Path | str, *, resume: bool = False, overwrite: bool = False
) -> dict[str, Any]:
    """Carry out a run and return its result; a path is read as a YAML configuration."""
    if not isinstance(config, RunConfig):
        config = load_config(Path(config))
    return train_run(config, resume=resume, overwrite=overwrite)


def load_policy(path: Path | str, **options: Any) -> Policy:
    """Load a model folder; options are those of the configuration's `model` section."""
    return load_policy_from(ModelConfig(path=str(path), **options))


def evaluate(
    model: Path | str,
    task: str,
    data: Path | str,
    *,
    params: Mapping[str, Any] | None = None,
    limit: int | None = None,
    sampling: Sampling | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Score a model on a task's records with the task's own `score()`; greedy by default."""
    loaded = load_task(task, params or {})
    rejected: list[str] = []

    def reject(record: str, reason: str) -> None:
        rejected.append(f"{record}: {reason}")

    samples = load_samples(loaded, Path(data), task, reject, limit)
    if rejected:
        raise UserError(f"{len(rejected)} records have no usable gold, first {rejected[0]}")
    policy = load_policy(model)
    rollout = RolloutConfig()
    with Scorer(
        {task: TaskSpec(task, params or {}, {})},
        workers=rollout.scoring_workers,
        timeout_seconds=rollout.scoring_timeout_seconds,
    ) as scorer:
        return evaluate_samples(
            samples,
            loaded,
            Encoder(policy.family),
            HFEngine(policy),
            scorer,
            sampling or Sampling(rollout.max_new_tokens, temperature=0.0),
            on_progress=lambda done: on_progress(done, len(samples)),
        )
