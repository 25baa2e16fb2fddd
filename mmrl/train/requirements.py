"""What an algorithm asks of a run, and what a run refuses before anything heavy is imported."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from mmrl.algorithm import Algorithm
from mmrl.algorithms.compose import compose, require
from mmrl.config import RunConfig
from mmrl.errors import ConfigError
from mmrl.rollout_config import RolloutConfig
from mmrl.stage import Context, Need
from mmrl.train.checkpoint_files import CRITIC, newest
from mmrl.train.phases import Phase, require_critics, require_earlier
from mmrl.types import Group

PROVIDED: frozenset[Need] = frozenset(
    {
        "reference",
        "entropy",
        "self_certainty",
        "indecision",
        "values",
        "greedy",
        "gradient_norms",
        "offsets",
        "steps",
        "collision",
        "implied",
        "mismatched",
        "aided",
    }
)
"""What a run provides to algorithms besides what their data do."""

ONE_PROCESS: frozenset[Need] = frozenset(
    {"entropy", "self_certainty", "indecision", "values", "gradient_norms", "collision"}
)
"""What is measured on every sample, and so where all media are."""


def load_algorithm(config: RunConfig) -> Algorithm:
    """Build the configured algorithm; the shuffle control adds one stage to it."""
    algorithm = compose(config.algorithm, config.rollout.max_new_tokens)
    require(algorithm, PROVIDED)
    if config.trainer.reward_control == "shuffle":
        algorithm = dataclasses.replace(algorithm, shape=(*algorithm.shape, shuffle_rewards))
    refuse_stale(algorithm, config.rollout)
    rollout = config.rollout
    if algorithm.supervised and rollout.engine != "targets" and not rollout.stored:
        raise ConfigError(
            f"algorithm '{algorithm.name}' learns the records' answers, and rollout.engine="
            f"{rollout.engine} gives it the model's own: set rollout.engine=targets"
        )
    return algorithm


def shuffle_rewards(groups: list[Group], context: Context) -> list[Group]:
    """Permute the scores within each group: a control from which nothing can be learnt."""
    return [
        dataclasses.replace(
            group, scores=tuple(group.scores[i] for i in context.rng.permutation(len(group.scores)))
        )
        for group in groups
    ]


def refuse_stale(algorithm: Algorithm, rollout: RolloutConfig) -> None:
    """Raise ConfigError where an algorithm would take older weights' responses for its own.

    Also where it asks for more than responses: chains and their answers are not kept over a stop.
    """
    if rollout.max_staleness and algorithm.cuts is not None:
        raise ConfigError(
            f"algorithm '{algorithm.name}' cuts thinking at budgets, which is not rolled out "
            "ahead: set rollout.max_staleness=0"
        )
    stored = rollout.engine == "targets" or rollout.stored
    if algorithm.resets is not None and (rollout.max_staleness or stored):
        raise ConfigError(
            f"algorithm '{algorithm.name}' begins its own answers within the record's: set "
            "rollout.max_staleness=0, rollout.stored=0 and an engine that samples"
        )
    if rollout.max_staleness and algorithm.updates.extragradient:
        raise ConfigError(
            f"algorithm '{algorithm.name}' answers with the policy of the step before: set "
            "rollout.max_staleness=0"
        )
    if rollout.max_staleness and rollout.history_screens:
        raise ConfigError(
            "episodes whose history is cut are not rolled out ahead, since a checkpoint would keep "
            "their first part alone: set rollout.max_staleness=0, or no rollout.history_screens"
        )
    alone = algorithm.always_on_policy or algorithm.objective.on_policy
    if rollout.max_staleness and alone and rollout.correction is None:
        raise ConfigError(
            f"algorithm '{algorithm.name}' holds for its own responses only, and "
            f"rollout.max_staleness={rollout.max_staleness} gives it those of older weights: set "
            "rollout.correction=token_truncate, or rollout.max_staleness=0"
        )


def refuse_phases(phases: Sequence[Phase], *, resume: bool) -> None:
    """Raise ConfigError where a phase's algorithm, critic or start cannot be what it is said to be.

    A run that is resumed has its own copy of what it began with.
    """
    require_earlier(phases)
    algorithms = [load_algorithm(phase.config) for phase in phases]
    have = ["values" in algorithm.needs for algorithm in algorithms]
    require_critics(phases, have)
    for phase, algorithm, has in zip(phases, algorithms, have, strict=True):
        critic = phase.config.critic
        if has and critic.frozen and algorithm.updates.critic_steps:
            raise ConfigError("critic.frozen learns nothing: set the algorithm's critic_steps to 0")
        if has and critic.path is not None and "critic" not in phase.keep and not resume:
            critic_folder(critic.path)


def critic_folder(path: Path) -> Path:
    """The checkpoint that a path names, a run's newest; one without a critic raises ConfigError."""
    found = newest(path) or path
    if not (found / "trainer" / f"{CRITIC}.safetensors").is_file():
        raise ConfigError(
            f"critic.path: {path} holds no critic: name a run of an algorithm with one, or its "
            "checkpoints/step_N"
        )
    return found
