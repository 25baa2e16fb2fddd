"""What learns in a phase, and what it is compared with: policy, reference, critic, backend."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from mmrl.algorithm import Algorithm
from mmrl.backend.backend import Backend
from mmrl.backend.local import LocalBackend
from mmrl.config import OptimizerConfig, RunConfig
from mmrl.data.sources import Say
from mmrl.errors import ConfigError
from mmrl.policy import linears
from mmrl.policy.family import Family
from mmrl.policy.packing import default_budget
from mmrl.policy.policy import Policy, load_policy
from mmrl.rewards.thoughts import note_of
from mmrl.stage import NEEDS
from mmrl.train import checkpoint
from mmrl.train.critic import Critic
from mmrl.train.requirements import ONE_PROCESS
from mmrl.train.setting import Setting


@dataclass(frozen=True)
class ModelParts:
    """The policy with the backend that moves it, its frozen reference and its critic, if any.

    `budget` is how many trunk tokens one forward takes. In the first `critic_steps` steps the
    critic learns alone.
    """

    policy: Policy
    backend: Backend
    reference: Policy | None
    critic: Critic | None
    budget: int
    critic_steps: int


def build_models(setting: Setting, algorithm: Algorithm) -> ModelParts:
    """Load the model as the phase begins with it, and put it into the hands of a backend."""
    config, phase = setting.config, setting.phase
    _refuse_many(setting, algorithm)
    policy = load_and_say(config, setting.say)
    budget = config.trainer.tokens_per_micro_batch or default_budget(policy.device)
    # The reference is copied before a backend may shard the policy.
    reference = take_start(policy, setting, needed="reference" in algorithm.needs)
    critic = Critic(policy, config.critic, budget) if "values" in algorithm.needs else None
    fresh = "critic" not in phase.keep and not config.critic.path
    critic_steps = algorithm.updates.critic_alone(config.trainer.steps, new=fresh)
    updates = algorithm.updates.passes * algorithm.updates.mini_batches
    total = (config.trainer.steps - critic_steps) * updates
    if config.trainer.backend == "local":
        factors = rate_factors(policy.family, config.optimizer)
        local = LocalBackend(
            policy.model, config.optimizer, total, setting.world, config.seed, factors
        )
        return ModelParts(policy, local, reference, critic, budget, critic_steps)
    from mmrl.backend.deepspeed import DeepSpeedBackend

    sharded = DeepSpeedBackend(policy, reference, config, total, setting.world)
    policy = sharded.carrying(policy)
    reference = sharded.carrying(reference) if reference else None
    return ModelParts(policy, sharded, reference, critic, budget, critic_steps)


def rate_factors(family: Family, config: OptimizerConfig) -> dict[nn.Parameter, float]:
    """What the learning rate of encoders and projectors is multiplied by, where it is their own.

    Raises ConfigError where a rate is given for a part of which nothing learns.
    """
    factors: dict[nn.Parameter, float] = {}
    for name, rate, parameters in (
        ("tower", config.tower_learning_rate, family.tower_parameters()),
        ("projector", config.projector_learning_rate, family.projector_parameters()),
    ):
        learning = [p for p in parameters if p.requires_grad]
        if rate is not None and not learning:
            raise ConfigError(f"optimizer.{name}_learning_rate: nothing of the {name} learns")
        factors |= {p: rate / config.learning_rate for p in learning if rate is not None}
    return factors


def load_and_say(config: RunConfig, say: Say) -> Policy:
    """Load the model, and say what came of it: of a large one this takes a while."""
    say(f"loading {config.model.path}")
    policy = load_policy(config.model, seed=config.seed)
    parameters = list(policy.model.parameters())
    total = sum(p.numel() for p in parameters)
    learning = sum(p.numel() for p in parameters if p.requires_grad)
    say(
        f"{type(policy.model).__name__}: {total / 1e6:.1f} M parameters in "
        f"{config.model.dtype} on {policy.device}, {learning / 1e6:.1f} M of them learn"
        f"{'; linears by oneDNN' if linears.uses_onednn(policy.model) else ''}"
    )
    if note := note_of(policy.family.trial().opening):
        say(note)
    return policy


def take_start(policy: Policy, setting: Setting, *, needed: bool) -> Policy | None:
    """Let the policy take over the weights the phase begins with.

    Returns the frozen reference, if it is needed: what the policy was at the start of the phase
    that the reference is kept from.
    """
    run, first = setting.config.run, setting.place.before
    step = setting.place.reference_start(setting.phases)
    if needed and step and setting.config.model.lora:
        raise ConfigError(
            f"phase '{setting.phase.name}': the reference of adapters is their base; "
            "say so with keep: [state, reference] in every phase before it and in it"
        )
    if needed and step:
        checkpoint.at(run, step).load_weights(policy)
    copied = policy.frozen_copy() if needed else None
    if first != step or (first and not needed):
        checkpoint.at(run, first).load_weights(policy)
    return copied


def _refuse_many(setting: Setting, algorithm: Algorithm) -> None:
    """Raise ConfigError where processes share what must be measured in one."""
    config = setting.config
    alone = sorted(algorithm.needs & ONE_PROCESS)
    if alone and (setting.world.size > 1 or config.trainer.backend != "local"):
        raise ConfigError(
            f"algorithm '{config.algorithm_name}' needs {NEEDS[alone[0]]}: run it in one "
            "process with trainer.backend=local"
        )
