"""What learns in a phase, and what it is compared with: policy, reference, critic, backend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from mmrl.algorithm import Algorithm, Follows
from mmrl.backend.backend import Backend
from mmrl.backend.deepspeed import shards_weights
from mmrl.backend.local import LocalBackend
from mmrl.config import OptimizerConfig, RunConfig
from mmrl.data.sources import Say
from mmrl.data_config import OWN_PHASE
from mmrl.errors import ConfigError
from mmrl.policy import linears
from mmrl.policy.encoder import Encoder
from mmrl.policy.family import Family
from mmrl.policy.packing import default_budget
from mmrl.policy.policy import Policy, default_device, load_policy
from mmrl.rewards.thoughts import note_of
from mmrl.stage import NEEDS
from mmrl.train import checkpoint
from mmrl.train.checkpoint_files import newest
from mmrl.train.critic import Critic
from mmrl.train.reference import ReferencePolicy, Teacher, average_weights, refuse_other_tokens
from mmrl.train.reference_config import (
    START,
    ReferenceConfig,
    TeacherConfig,
    following,
    reference_of,
)
from mmrl.train.requirements import ONE_PROCESS
from mmrl.train.setting import Setting
from mmrl.train.start import take_language


@dataclass(frozen=True)
class ModelParts:
    """The policy with the backend that moves it, its frozen reference and its critic, if any.

    `budget` is how many trunk tokens one forward takes. In the first `critic_steps` steps the
    critic learns alone.
    """

    policy: Policy
    backend: Backend
    reference: ReferencePolicy | None
    critic: Critic | None
    budget: int
    critic_steps: int


def build_models(setting: Setting, algorithm: Algorithm) -> ModelParts:
    """Load the model as the phase begins with it, and put it into the hands of a backend."""
    config, phase = setting.config, setting.phase
    _refuse_many(setting, algorithm)
    policy = load_and_say(config, setting.say)
    budget = config.trainer.tokens_per_micro_batch or default_budget(default_device())
    # The reference is copied before a backend may shard the policy.
    needed = "reference" in algorithm.needs
    reference = build_reference(policy, setting, needed=needed, follows=algorithm.follows)
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
        seeing = reference.with_features_of(policy) if reference else None
        return ModelParts(policy, local, seeing, critic, budget, critic_steps)
    from mmrl.backend.deepspeed import DeepSpeedBackend

    start = reference.only() if reference else None
    sharded = DeepSpeedBackend(policy, start, config, total, setting.world)
    policy = sharded.carrying(policy)
    reference = ReferencePolicy([Teacher(sharded.carrying(start))]) if start else None
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
    policy = load_policy(config.model, place_to_load(config), config.seed)
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


def place_to_load(config: RunConfig) -> torch.device:
    """Where a model is loaded: where it works, or in host memory where processes shard it."""
    quantised = config.model.lora is not None and config.model.lora.quantize != "none"
    return torch.device("cpu") if shards_weights(config) and not quantised else default_device()


def build_reference(
    policy: Policy, setting: Setting, *, needed: bool, follows: Follows | None = None
) -> ReferencePolicy | None:
    """Let the policy take its start, and make what it is compared with, if that is needed.

    It follows the policy as the run says, else as the algorithm does. Raises ConfigError for a
    reference that nothing compares with, or that cannot follow here.
    """
    config = following(reference_of(setting.config.reference), follows)
    if setting.config.reference and not needed:
        raise ConfigError(
            "reference: nothing is compared with it: set algorithm.kl_coefficient, or take an "
            "algorithm such as opd or dpo"
        )
    _refuse_moving(config, setting)
    start = take_start(policy, setting, needed=needed and config.is_start)
    if not needed:
        return None
    rank = setting.world.rank
    if start is not None:
        return ReferencePolicy(
            [Teacher(start)], average=config.average, every=config.every, rank=rank
        )
    if config.teachers:
        taught = [_teacher(policy, setting, teacher) for teacher in config.teachers]
        return ReferencePolicy(taught, rank=rank)
    paths = [config.path] if config.path else config.mean_of
    first, *others = [_other(policy, setting, path, {}) for path in paths]
    average_weights(first, others)
    return ReferencePolicy([Teacher(first)], average=config.average, every=config.every)


def _teacher(policy: Policy, setting: Setting, config: TeacherConfig) -> Teacher:
    """A teacher, with prompts of its own where it has pixel budgets or is of another family."""
    budgets = {"min_pixels": config.min_pixels, "max_pixels": config.max_pixels}
    own = {name: value for name, value in budgets.items() if value is not None}
    other = _other(policy, setting, config.path, own)
    alike = type(other.family) is type(policy.family)
    if alike and not own:
        return Teacher(other, config.weight)
    whole = setting.config
    encoder = Encoder(other.family, defaults=whole.media, overflow=whole.model.overflow)
    return Teacher(other, config.weight, encoder)


def _other(policy: Policy, setting: Setting, path: str, own: Mapping[str, int]) -> Policy:
    """Another frozen model with the policy's tokens, seen as the policy is but for `own`."""
    folder = _folder(setting, path)
    changes = {"path": folder, "lora": None, "gradient_checkpointing": False, **own}
    setting.say(f"loading the reference {folder}")
    found = load_policy(
        setting.config.model.model_copy(update=changes), place_to_load(setting.config)
    )
    found.model.eval().requires_grad_(False)
    if path == OWN_PHASE + START:
        take_language(found, setting.phases[0].config.start)
    refuse_other_tokens(policy, found, path)
    return found


def _folder(setting: Setting, path: str) -> str:
    """Where a reference lies: a model, a run's newest checkpoint, or what a phase ended with."""
    if not path.startswith(OWN_PHASE):
        return str(newest(Path(path)) or path)
    step = setting.place.ended(setting.phases, path.removeprefix(OWN_PHASE))
    return str(checkpoint.at(setting.config.run, step).path) if step else setting.config.model.path


def _refuse_moving(config: ReferenceConfig, setting: Setting) -> None:
    """Raise ConfigError where a reference is to follow a policy that it cannot follow."""
    whole = setting.config
    if config.moves and whole.model.lora:
        raise ConfigError(
            "reference: adapters are compared with their base, which stays: leave average and "
            "every out, or take an algorithm whose reference stays"
        )
    if whole.trainer.backend != "local" and (config.moves or config.teachers):
        raise ConfigError(
            "reference: average, every and teachers are for trainer.backend=local; others take "
            "reference.path"
        )


def take_start(policy: Policy, setting: Setting, *, needed: bool) -> Policy | None:
    """Let the policy take over the weights the phase begins with.

    Returns the frozen reference, if it is needed: what the policy was at the start of the phase
    that the reference is kept from.
    """
    place, phases = setting.place, setting.phases
    own, kept = place.phase, place.reference_phase(phases)
    adapters = setting.config.model.lora is not None
    if needed and adapters and place.begun(phases, kept):
        raise ConfigError(
            f"phase '{setting.phase.name}': the reference of adapters is their base; "
            "say so with keep: [state, reference] in every phase before it and in it"
        )
    if adapters and setting.config.start.language:
        raise ConfigError("start.language: adapters stay on the base they were made for")
    if own == kept:
        _begin(policy, setting, own)
        sharing = shards_weights(setting.config)
        return policy.frozen_copy(sharing=sharing) if needed else None
    copied = policy.frozen_copy() if needed else None
    if copied is not None:
        _begin(copied, setting, kept)
    _begin(policy, setting, own)
    return copied


def _begin(policy: Policy, setting: Setting, index: int) -> None:
    """Let a policy, as the run loads it, take over the weights that a phase begins with."""
    step = setting.place.begun(setting.phases, index)
    if step:
        checkpoint.at(setting.config.run, step).load_weights(policy)
    take_language(policy, setting.phases[index].config.start)


def _refuse_many(setting: Setting, algorithm: Algorithm) -> None:
    """Raise ConfigError where processes share what must be measured in one."""
    config = setting.config
    alone = sorted(algorithm.needs & ONE_PROCESS)
    if alone and (setting.world.size > 1 or config.trainer.backend != "local"):
        raise ConfigError(
            f"algorithm '{config.algorithm_name}' needs {NEEDS[alone[0]]}: run it in one "
            "process with trainer.backend=local"
        )
    if algorithm.updates.extragradient and (
        setting.world.size > 1 or config.trainer.backend != "local"
    ):
        raise ConfigError(
            f"algorithm '{config.algorithm_name}' goes back to earlier weights: run it in one "
            "process with trainer.backend=local, or set updates.extragradient=false"
        )
