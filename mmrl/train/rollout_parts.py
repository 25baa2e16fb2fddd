"""What asks and answers in a phase: encoder, scoring workers, engines, and the engines' gate."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass

from mmrl.backend.world import World
from mmrl.data.samples import CHECKED
from mmrl.data.sources import Source
from mmrl.engines.background import BackgroundEngine, view_of
from mmrl.engines.engine import Engine, Sampling
from mmrl.engines.hf import HFEngine
from mmrl.engines.parity import MAX_NEW_TOKENS, Parity, Scoring, parity_limit, probes
from mmrl.engines.split import Gathered, SplitEncoder, SplitEngine, SplitScorer
from mmrl.errors import ConfigError
from mmrl.policy.appended import differences
from mmrl.policy.encoder import Encoder
from mmrl.rewards.custom import load_callable
from mmrl.rollout.build import WITH_WEIGHTS, build_engine, holding
from mmrl.rollout.episode import Episodes
from mmrl.rollout.follow_ups import following
from mmrl.rollout.history import history_of
from mmrl.rollout.hosted import Hosted
from mmrl.scoring.judges.judge_config import judges_of
from mmrl.scoring.judges.panel import Panel
from mmrl.scoring.living import Living
from mmrl.scoring.pool import Scorer, Workers
from mmrl.train.model_parts import ModelParts
from mmrl.train.setting import Setting


@dataclass(frozen=True)
class RolloutParts:
    """What rolls out, scores, and answers when the policy is evaluated (`judge`).

    `panel` are the models that judge answers besides.

    With rollouts ahead of the update, `background` works in a thread of its own, and `aside` is
    the exchange that this thread has with other processes.
    """

    encoder: SplitEncoder
    workers: Workers
    scorer: SplitScorer
    engine: Engine
    judge: Engine
    background: BackgroundEngine | None
    aside: World
    panel: Panel | None


def build_rollout(
    setting: Setting, sources: Sequence[Source], models: ModelParts, closing: ExitStack
) -> RolloutParts:
    """Start what a phase asks and answers with; `closing` stops it, the engine first.

    What an engine does in the background may use the others.
    """
    config, world = setting.config, setting.world
    family = models.policy.family
    made = Encoder(family, defaults=config.media, overflow=config.model.overflow)
    encoder = SplitEncoder(made, world)
    closing.callback(encoder.close)
    pool = Scorer(
        {source.key: source.spec for source in sources},
        workers=config.rollout.scoring_workers,
        timeout_seconds=config.rollout.scoring_timeout_seconds,
        secrets=config.rollout.scoring_secrets,
    )
    workers = Living(pool, {source.key: source.task for source in sources})
    closing.callback(workers.close)
    scorer = SplitScorer(workers, world)
    panel = Panel(judges, config.run, world) if (judges := judges_of(config.judges)) else None
    if panel is not None:
        closing.callback(panel.close)
    _probe_turns(sources, models)
    engine, background, aside = _start_engine(setting, sources, models)
    closing.callback(engine.close)
    own = models.backend.gathered
    gathered = own if config.rollout.engine == "hf" else nullcontext
    home = at_home(setting, sources, made, workers, engine)
    closing.callback(end_hosts, home)
    rolls = everywhere(sources, encoder, home, gathered)
    if config.rollout.engine != "targets":
        return RolloutParts(encoder, workers, scorer, rolls, rolls, background, aside, panel)
    rollout = config.rollout
    greedy = HFEngine(models.policy, rollout.max_sequences, models.budget, rollout.prefix_tokens)
    judging = at_home(setting, sources, made, workers, greedy)
    closing.callback(end_hosts, judging)
    judge = everywhere(sources, encoder, judging, own)
    return RolloutParts(encoder, workers, scorer, rolls, judge, background, aside, panel)


def _probe_turns(sources: Sequence[Source], models: ModelParts) -> None:
    """Warn where the model's template would write an episode's earlier turns otherwise."""
    first = (next(iter(source.train.usable(1)), None) for source in sources)
    if not any(sample is not None and sample.start is not None for sample in first):
        return
    policy = models.policy
    if found := differences(policy.processor, policy.family):
        warnings.warn(
            f"in a conversation as a whole the model's chat template changes earlier turns "
            f"({'; '.join(found)}): episodes are trained as they were sampled, turn after turn, so "
            "serve the model that way; see docs/episodes.md",
            stacklevel=2,
        )


def _start_engine(
    setting: Setting, sources: Sequence[Source], models: ModelParts
) -> tuple[Engine, BackgroundEngine | None, World]:
    """The configured engine, itself in the background where it works ahead, and its exchange."""
    config, world = setting.config, setting.world
    if config.rollout.engine == "vllm" and world.size > 1:
        raise ConfigError("rollout.engine=vllm runs in one process: use rollout.engine=vllm_server")
    ahead = config.rollout.max_staleness > 0
    view = view_of(models.policy) if ahead else models.policy
    # A thread of its own needs an exchange of its own: for all that an engine says to others.
    aside = world.beside(config.trainer.exchange_timeout_seconds) if ahead else world
    tasks = {source.key: source.task for source in sources}
    engine = build_engine(view, config.model, config.rollout, tasks, aside, models.budget)
    if not ahead:
        return engine, None, aside
    background = BackgroundEngine(holding(engine))
    return background, background, aside


def at_home(
    setting: Setting,
    sources: Sequence[Source],
    encoder: Encoder,
    workers: Workers,
    engine: Engine,
) -> Engine:
    """This process's engine with the turns that environments play with it, or that call it.

    An episode is played to its end where its prompt's media are, so that nothing of it travels.
    """
    rollout = setting.config.rollout
    most, observed = rollout.max_turn_tokens, rollout.max_environment_tokens
    tasks = {source.key: source.task for source in sources}
    waves = rollout.waves if any(task.world for task in tasks.values()) else 1
    history = history_of(encoder, rollout.history_screens, rollout.history_pixels)
    episodes = Episodes(engine, workers, encoder, most, observed, waves, history)
    hosted = {key: task for key, task in tasks.items() if task.hosting}
    if not hosted:
        return episodes
    if rollout.max_staleness:
        raise ConfigError(
            "episodes that other packages play are not rolled out ahead of the update: set "
            "rollout.max_staleness=0"
        )
    known = {key: load_callable(task.hosting, "hosting")(task) for key, task in hosted.items()}
    return Hosted(episodes, engine, encoder, known, most, observed)


def everywhere(
    sources: Sequence[Source], encoder: SplitEncoder, home: Engine, gathered: Gathered
) -> Engine:
    """The engine of all processes, each with its own `home`, and tasks' second questions."""
    split = SplitEngine(home, encoder.world, gathered)
    return following(split, {source.key: source.task for source in sources}, encoder)


def end_hosts(engine: Engine) -> None:
    """End the processes of other packages' environments, if the engine has any."""
    if isinstance(engine, Hosted):
        engine.end_hosts()


def build_parity(
    setting: Setting, sources: Sequence[Source], rollout: RolloutParts, own: Scoring
) -> Parity | None:
    """The gate of an engine with weights of its own; `own` gives the trainer's log-probs."""
    config = setting.config.rollout
    if config.engine not in WITH_WEIGHTS or not config.parity_every:
        return None
    limit = config.parity_limit or parity_limit(setting.config.model.dtype)
    samples = (s for source in sources for s in source.train.usable(CHECKED))
    longest = min(config.max_new_tokens, MAX_NEW_TOKENS)
    sampling = Sampling(longest, config.temperature, config.top_p, config.top_k)
    return Parity(rollout.engine, own, probes(samples, rollout.encoder), sampling, limit)
