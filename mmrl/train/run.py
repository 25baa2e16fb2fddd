"""A run from its configuration: build the parts, train, record every step, evaluate, report."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from rich.console import Console
from torch import Tensor, nn

from mmrl.algorithm import NEEDS, Algorithm, Context, Need
from mmrl.algorithms.compose import compose, require
from mmrl.algorithms.stages.turns import require_episodes
from mmrl.backend.backend import Backend
from mmrl.backend.local import LocalBackend
from mmrl.backend.world import World, is_lost, join, leave, lost
from mmrl.config import OptimizerConfig, RolloutConfig, RunConfig
from mmrl.data.samples import CHECKED
from mmrl.data.sources import Say, load_sources
from mmrl.data.stream import PromptStream, build_missing
from mmrl.engines.background import BackgroundEngine, view_of
from mmrl.engines.engine import Engine, Sampling
from mmrl.engines.hf import HFEngine
from mmrl.engines.parity import MAX_NEW_TOKENS, Parity, parity_limit, probes
from mmrl.engines.split import SplitEncoder, SplitEngine, SplitScorer
from mmrl.errors import UserError
from mmrl.evaluate.held_out import HeldOut
from mmrl.policy.encoder import Encoder
from mmrl.policy.family import Family
from mmrl.policy.packing import default_budget
from mmrl.policy.policy import Policy, load_policy
from mmrl.policy.weights import Weights, weights_of
from mmrl.report import write_report
from mmrl.rollout.build import OTHER_CODE, WITH_WEIGHTS, build_engine, holding
from mmrl.rollout.episode import Episodes
from mmrl.rollout.rollouts import Rollouts
from mmrl.rollout.thinking import Thinking
from mmrl.runlog.diagnosis import below_greedy, diagnose
from mmrl.runlog.metrics import group_metrics, memory_metrics
from mmrl.runlog.progress import Progress
from mmrl.runlog.run_folder import Records, prepare_folder, record_folder
from mmrl.runlog.trackers import Trackers
from mmrl.runlog.transcript import Entry, advantages_of
from mmrl.scoring.pool import Scorer
from mmrl.train import checkpoint
from mmrl.train.ahead import Ahead, older, refuse_stale
from mmrl.train.batches import Asker, Batches, OnPolicy, derived_seed
from mmrl.train.correction import Correction
from mmrl.train.critic import FILE, Critic, saved_critic
from mmrl.train.learner import Learner
from mmrl.train.phases import Phase, Place, phases_of, place_of, require_critics
from mmrl.train.trainer import StepResult, Trainer, update_metrics
from mmrl.types import Floats, Group, Sample

PARITY = 0xBA12  # keeps the seeds of parity checks apart from those of rollouts

PROVIDED: frozenset[Need] = frozenset(
    {
        "reference",
        "entropy",
        "self_certainty",
        "values",
        "greedy",
        "gradient_norms",
        "offsets",
        "steps",
    }
)
"""What a run provides to algorithms besides what their data do."""

ONE_PROCESS: frozenset[Need] = frozenset({"entropy", "self_certainty", "values", "gradient_norms"})
"""What is measured on every sample, and so where all media are."""


def train(config: RunConfig, *, resume: bool = False, overwrite: bool = False) -> dict[str, Any]:
    """Carry a run out and return its result: held-out metric before and after, seconds, seed.

    Started several times by a launcher, the processes carry it out together; the first one writes.
    """
    alone_too = config.trainer.backend == "deepspeed"
    world = join(config.trainer.exchange_timeout_seconds, alone_too=alone_too)
    try:
        result = _train(config, world, resume, overwrite)
    except RuntimeError as error:
        if world.size == 1 or not is_lost(error):
            raise
        raise UserError(lost(error)) from error
    leave()
    return result


def _train(config: RunConfig, world: World, resume: bool, overwrite: bool) -> dict[str, Any]:
    started = time.monotonic()
    phases = phases_of(config)
    refuse_phases(phases, resume=resume)  # a mistake in the last is told before the first
    world.once(lambda: prepare_folder(config, resume, overwrite))
    found = world.once(lambda: checkpoint.latest(config.run) if resume else None)
    with record_folder(config, world) as folder:
        records = Records(folder)
        records.rewind(found.step if found else 0)
        console = None if world.first else Console(quiet=True)
        done = found.step if found else 0
        place = place_of(found.state(), done, phases) if found else Place()
        started -= float(found.state()["seconds"]) if found else 0.0
        with Progress(place.remaining(phases), done=done, console=console) as progress:
            while True:
                with Run(phases, place, records, progress.say, world) as run:
                    first_step, before = run.start(found)
                    run.trainer.train(first_step, lambda r: run.after_step(r, progress, started))
                    found = run.end(started)
                    if place.phase + 1 == len(phases):
                        result = run.finish(before, started)
                        break
                place = place.next(found.step)
                progress.say(f"phase '{phases[place.phase].name}' begins after step {found.step}")
            recent = records.metrics.recent
            longest = phases[place.phase].config.rollout.max_new_tokens
            last = run.held_out.last
            for line in diagnose(recent, max_new_tokens=longest, held_out=last):
                progress.say(line)
            if line := records.quarantine.line():
                progress.say(line)
    if world.first:
        write_report(config.run)
    return result


class Run:
    """The built parts of one phase of a run, closed together."""

    def __init__(
        self, phases: Sequence[Phase], place: Place, records: Records, say: Say, world: World
    ) -> None:
        self._phase, self._place, self._last = phases[place.phase], place, place.before
        self._config, self._records, self._say = self._phase.config, records, say
        self._is_last_phase = place.phase + 1 == len(phases)
        self._seed = phases[0].config.seed  # the run's own: later phases draw with others
        self._world, config = world, self._config
        self._algorithm = load_algorithm(config)
        for note in filter(None, (self._phase.note, *self._algorithm.notes)):
            say(note)
        world.once(lambda: [build_missing(data) for data in config.data])
        self.sources = load_sources(config, records.quarantine, say)
        first = (s for source in self.sources for s in source.train.usable(CHECKED))
        require_episodes(self._algorithm, first)
        self._policy = self._load_policy()
        self._budget = config.trainer.tokens_per_micro_batch or default_budget(self._policy.device)
        # The reference is copied before a backend may shard the policy.
        self._reference = self._load_start(place.reference_start(phases))
        self._critic = self._make_critic()
        self._critic_steps = self._algorithm.updates.critic_alone(
            config.trainer.steps, new="critic" not in self._phase.keep and not config.critic.path
        )
        self._backend = self._make_backend()
        self._encoder = SplitEncoder(
            Encoder(self._policy.family, defaults=config.media, overflow=config.model.overflow),
            world,
        )
        self._background: BackgroundEngine | None = None
        self._workers = Scorer(
            {source.key: source.spec for source in self.sources},
            workers=config.rollout.scoring_workers,
            timeout_seconds=config.rollout.scoring_timeout_seconds,
        )
        self._scorer = SplitScorer(self._workers, world)
        self._engine, self._sampler = self._engines()
        self.held_out = HeldOut(
            config, self.sources, self._encoder, self._sampler, self._scorer, world, say
        )
        trackers = config.trainer.trackers if world.first else ()
        self._trackers = Trackers(trackers, config.run, config.model_dump(mode="json"), say)
        self._ahead: Ahead | None = None
        self.trainer = self._trainer()
        self._parity = self._make_parity()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *exception: object) -> None:
        self._engine.close()  # first: what works in the background may use the others
        self._encoder.close()
        self._scorer.close()
        self._trackers.close()

    def start(self, found: checkpoint.Checkpoint | None) -> tuple[int, float | None]:
        """Evaluate the start, or take up a checkpoint; returns the first step and `before`."""
        before = self.held_out.before(first_phase=self._place.phase == 0)
        done = found.step - self._place.before if found else 0
        if done < self._critic_steps:
            self._say(f"the critic learns alone in {self._in_phase(self._critic_steps)}")
        if found is None:
            self._begin_critic(None)
            self._check_parity(0)
            return 1, before
        state, border = found.state(), found.step == self._place.before
        self._last = found.step
        if not border or "state" in self._phase.keep:
            self.trainer.asker.state.update(state["algorithm"])
        if not border:
            with self._backend.gathered():
                found.load_weights(self._policy)
            self.trainer.asker.stream.load_state(state["stream"])
            self._load_ahead(found, state)
            if self._critic is not None:
                self._critic.load_state(found.tensors(FILE), state["critic"])
            self._say(f"resumed after step {found.step}")
        else:
            self._begin_critic(found)
        if not border or "optimizer" in self._phase.keep:
            found.restore(self._backend)
        self._engine.sync(self._weights(done))
        self._check_parity(found.step)
        return done + 1, before

    def _load_policy(self) -> Policy:
        """Load the model, and say what came of it: of a large one this takes a while."""
        path = self._config.model.path
        self._say(f"loading {path}")
        policy = load_policy(self._config.model, seed=self._config.seed)
        parameters = list(policy.model.parameters())
        total = sum(p.numel() for p in parameters)
        learning = sum(p.numel() for p in parameters if p.requires_grad)
        self._say(
            f"{type(policy.model).__name__}: {total / 1e6:.1f} M parameters in "
            f"{self._config.model.dtype} on {policy.device}, {learning / 1e6:.1f} M of them learn"
        )
        return policy

    def _begin_critic(self, found: checkpoint.Checkpoint | None) -> None:
        """Let the phase's critic start as the last phase's, as another run's, or anew."""
        critic, path = self._critic, self._config.critic.path
        if critic is None:
            return
        if found is not None and "critic" in self._phase.keep:
            if "optimizer" in self._phase.keep:  # the schedule is the phase's own
                critic.load_state(found.tensors(FILE), {**found.state()["critic"], "updates": 0})
            else:
                critic.take(found.tensors(FILE))
        elif path is not None:
            critic.take(saved_critic(path).tensors(FILE))
        elif found is not None and "critic" in found.state():
            self._say(
                f"phase '{self._phase.name}' begins with a new critic; keep: [state, critic] would "
                "go on with the last one"
            )

    def _in_phase(self, steps: int) -> str:
        """So many first steps of the phase, in words."""
        phase = f"of phase '{self._phase.name}'" if self._phase.name else "of the run"
        return f"the first {steps} of the {self._config.trainer.steps} steps {phase}"

    def _load_start(self, reference: int) -> Policy | None:
        """Take over the weights the phase begins with; the frozen reference, if it is needed.

        It is what the policy was after `reference` steps of the run.
        """
        run, first = self._config.run, self._place.before
        needed = "reference" in self._algorithm.needs
        if needed and reference and self._config.model.lora:
            raise UserError(
                f"phase '{self._phase.name}': the reference of adapters is their base; "
                "say so with keep: [state, reference] in every phase before it and in it"
            )
        if needed and reference:
            checkpoint.at(run, reference).load_weights(self._policy)
        copied = self._policy.frozen_copy() if needed else None
        if first != reference or (first and not needed):
            checkpoint.at(run, first).load_weights(self._policy)
        return copied

    def after_step(self, result: StepResult, progress: Progress, started: float) -> None:
        """Record a step, show it, and write a checkpoint or evaluate when due."""
        config, step = self._config.trainer, self._place.before + result.step
        metrics = self._step_metrics(result)
        self._last = step
        if self._world.first:
            self._write_down(step, result)
        over = self._is_last_phase and result.step == config.steps  # `finish` evaluates then
        if config.eval_every and step % config.eval_every == 0 and not over:
            metrics |= self.held_out.metrics()
        if step == 1 or step % (self._config.rollout.parity_every or step + 1) == 0:
            metrics |= self._check_parity(step)
        if step == 1:
            self._compare_with_greedy(metrics)
        self._records.metrics.write(step, metrics)
        self._trackers.log(step, metrics)
        progress.step(step, metrics)
        due = config.checkpoint_every and step % config.checkpoint_every == 0
        if due and result.step < config.steps:
            self._checkpoint(step, time.monotonic() - started)

    def _compare_with_greedy(self, metrics: Mapping[str, float]) -> None:
        """Say early on that answers are sampled from a much flatter policy than is evaluated."""
        if self._config.rollout.engine != "targets" and self.held_out.last:
            line = below_greedy(self.held_out.last, metrics.get("metric/mean", math.nan))
            if line:
                self._say(line)

    def end(self, started: float) -> checkpoint.Checkpoint:
        """Write the phase's last checkpoint; it may have ended before its steps were used up."""
        if self._last == self._place.before:
            raise UserError(f"phase '{self._phase.name}': there was nothing to ask")
        self._checkpoint(self._last, time.monotonic() - started, ended=True)
        return checkpoint.at(self._config.run, self._last)

    def _write_down(self, step: int, result: StepResult) -> None:
        """Append what was asked and answered to the run folder."""
        config = self._config.trainer
        self._records.consumed.append(
            [{"step": step, "ids": [g.prompt.sample.id for g in result.groups]}]
        )
        if step % config.write_rollouts_every == 0:
            shown = advantages_of(result.groups, result.samples)
            pairs = zip(result.groups, shown, strict=True)
            self._records.transcript.write(step, [self._entry(*pair) for pair in pairs])

    def finish(self, before: float | None, started: float) -> dict[str, Any]:
        """Evaluate the trained policy and write `result.json`."""
        after = self.held_out.write("eval_after.json")
        result = {
            "before": before,
            "after": after,
            "seconds": round(time.monotonic() - started, 1),
            "seed": self._seed,
            "steps": self._last,
        }
        text = json.dumps(result, indent=1)
        if self._world.first:
            (self._config.run / "result.json").write_text(text + "\n", encoding="utf-8")
        return result

    def _make_backend(self) -> Backend:
        updates, config = self._algorithm.updates, self._config
        steps = config.trainer.steps - self._critic_steps
        total = steps * updates.passes * updates.mini_batches
        alone = sorted(self._algorithm.needs & ONE_PROCESS)
        if alone and (self._world.size > 1 or config.trainer.backend != "local"):
            raise UserError(
                f"algorithm '{config.algorithm_name}' needs {NEEDS[alone[0]]}: run it in one "
                "process with trainer.backend=local"
            )
        if config.trainer.backend == "local":
            factors = rate_factors(self._policy.family, config.optimizer)
            return LocalBackend(
                self._policy.model, config.optimizer, total, self._world, config.seed, factors
            )
        from mmrl.backend.deepspeed import DeepSpeedBackend

        return DeepSpeedBackend(self._policy, self._reference, config, total, self._world)

    def _engines(self) -> tuple[Engine, Engine]:
        """What rolls out, and what answers when the policy is evaluated."""
        config = self._config
        tasks = {source.key: source.task for source in self.sources}
        if config.rollout.engine == "vllm" and self._world.size > 1:
            raise UserError(
                "rollout.engine=vllm runs in one process: use rollout.engine=vllm_server"
            )
        ahead = config.rollout.max_staleness > 0
        view = view_of(self._policy) if ahead else self._policy
        # A thread of its own needs an exchange of its own: for all that an engine says to others.
        timeout = config.trainer.exchange_timeout_seconds
        self._engines_world = self._world.beside(timeout) if ahead else self._world
        with self._backend.gathered():
            made = build_engine(
                view, config.model, config.rollout, tasks, self._engines_world, self._budget
            )
        if ahead:
            self._background = made = BackgroundEngine(holding(made))
        engine = self._split(made)
        if config.rollout.engine != "targets":
            return engine, engine
        judge = HFEngine(self._policy, config.rollout.max_sequences, self._budget)
        return engine, self._split(judge)

    def _split(self, engine: Engine) -> Engine:
        return self._played(SplitEngine(engine, self._world, self._backend.gathered), self._scorer)

    def _played(self, engine: Engine, scorer: SplitScorer) -> Episodes:
        longest = self._config.rollout.max_turn_tokens
        return Episodes(engine, scorer, self._policy.family, longest)

    def _make_parity(self) -> Parity | None:
        """The gate of an engine with weights of its own."""
        rollout = self._config.rollout
        if rollout.engine not in WITH_WEIGHTS or not rollout.parity_every:
            return None
        limit = rollout.parity_limit or parity_limit(self._config.model.dtype)
        samples = (s for source in self.sources for s in source.train.usable(CHECKED))
        sampling = Sampling(
            min(rollout.max_new_tokens, MAX_NEW_TOKENS),
            rollout.temperature,
            rollout.top_p,
            rollout.top_k,
        )
        return Parity(
            self._engine, self.trainer.learner.own, probes(samples, self._encoder), sampling, limit
        )

    def _check_parity(self, step: int) -> dict[str, float]:
        """Compare engine and trainer; `step` 0 is the start."""
        if self._parity is None:
            return {}
        return self._parity.check(derived_seed(self._config.seed, step, PARITY))

    def _make_critic(self) -> Critic | None:
        if "values" not in self._algorithm.needs:
            return None
        config = self._config
        return Critic(self._policy, config.critic, self._budget)

    def _load_ahead(self, found: checkpoint.Checkpoint, state: Mapping[str, Any]) -> None:
        rows = state.get("ahead", [])
        if self._ahead is not None:
            tokens = found.tensors("ahead") if rows else {}
            self._ahead.load_state(found.step - self._place.before, rows, tokens)
        elif rows:
            raise older(len(rows))

    def _batches(self, asker: Asker, rollouts: Rollouts) -> Batches:
        if self._background is None:
            return OnPolicy(asker, rollouts)
        # The engine's own weights are whole as they are.
        engine = self._played(
            SplitEngine(self._background.engine, self._engines_world, nullcontext),
            SplitScorer(self._workers, self._engines_world),
        )
        self._ahead = Ahead(
            asker,
            dataclasses.replace(rollouts, engine=engine),
            self._background,
            self._backend.gathered,
            self._config.rollout.max_staleness,
        )
        return self._ahead

    def _trainer(self) -> Trainer:
        config = self._config
        rollouts = Rollouts(
            self._engine,
            self._scorer,
            config.rollout,
            greedy_too="greedy" in self._algorithm.needs,
            thinking=self._thinking(),
        )
        asker = Asker(
            algorithm=self._algorithm,
            encoder=self._encoder,
            stream=PromptStream(
                [(s.train, s.config.mix, s.config.shuffle) for s in self.sources], config.seed
            ),
            quarantine=self._records.quarantine,
            config=config.trainer,
            seed=config.seed,
            state={},
            change=self._change,
            max_unusable_share=max(s.config.max_unusable_share for s in self.sources),
        )
        return Trainer(
            algorithm=self._algorithm,
            learner=Learner(
                self._policy,
                self._algorithm,
                self._backend,
                temperature=config.rollout.temperature,
                tokens_per_micro_batch=self._budget,
                reference=self._reference,
                world=self._world,
                critic=self._critic,
                correction=make_correction(config.rollout),
                other_engine=config.rollout.engine in OTHER_CODE,
            ),
            rollouts=rollouts,
            asker=asker,
            batches=self._batches(asker, rollouts),
            config=config.trainer,
            weights=self._weights,
            critic_steps=self._critic_steps,
        )

    def _weights(self, step: int) -> Weights:
        """What the policy is, after so many steps of the phase."""
        return weights_of(self._policy, step)

    def _thinking(self) -> Thinking | None:
        cuts, policy = self._algorithm.cuts, self._policy
        return Thinking(cuts, policy.family, policy.processor.tokenizer) if cuts else None

    def _change(self, sample: Sample, options: Mapping[str, Any]) -> Sample:
        """Ask a sample with changed pictures, if its task knows the gold then."""
        (source,) = (source for source in self.sources if source.key == sample.task)
        changed = source.task.changed(sample, options)
        if changed is None:
            named = ", ".join(f"{key} {value}" for key, value in options.items())
            raise UserError(
                f"task '{source.task.name}' does not say its gold for changed pictures ({named}): "
                "take the changes out of the algorithm, or give the task a `changed`"
            )
        return changed

    def _step_metrics(self, result: StepResult) -> dict[str, float]:
        responses = sum(len(group.responses) for group in result.groups)
        return {
            **group_metrics(result.groups),
            **update_metrics(result.updates),
            **result.seconds,
            **result.overlap,
            **memory_metrics(),
            **self._records.quarantine.metrics(),
            **({"phase": self._place.phase + 1.0} if self._phase.name else {}),
            "train/kl_coefficient": result.kl_coefficient,
            "train/rows": float(len(result.samples)),
            "train/rows_to_responses": len(result.samples) / max(responses, 1),
            "prompts/drawn": float(result.prompts_drawn),
            "prompts/kept": float(len(result.groups)),
        }

    def _entry(self, group: Group, advantages: Sequence[Floats | None]) -> Entry:
        tokenizer = self._policy.processor.tokenizer
        return Entry(
            group=group,
            prompt=tokenizer.decode(list(group.prompt.compact_ids)),
            media=self._encoder.decoded(group.prompt, self._records.transcript.lacks),
            advantages=advantages,
            tokens=[[tokenizer.decode([i]) for i in r.ids.tolist()] for r in group.responses],
        )

    def _checkpoint(self, step: int, seconds: float, ended: bool = False) -> None:
        state = {
            "phases": self._place.to_state(ended=ended),
            "stream": self.trainer.asker.stream.state(),
            "algorithm": self.trainer.asker.state,
            "seconds": seconds,
        }
        more: dict[str, dict[str, Tensor]] = {}
        if self._ahead is not None:
            state["ahead"], tokens = self._ahead.state()
            more |= {"ahead": tokens} if state["ahead"] else {}
        if self._critic is not None:
            more[FILE], state["critic"] = self._critic.state()
        keep = self._config.trainer.keep_checkpoints
        run, pinned = self._config.run, self._place.starts
        checkpoint.save(
            run, step, self._policy, self._backend, state, keep, self._world, more, pinned
        )


def refuse_phases(phases: Sequence[Phase], *, resume: bool) -> None:
    """Raise UserError where a phase's algorithm or critic cannot be what it is said to be.

    A run that is resumed has its own copy of what it began with.
    """
    algorithms = [load_algorithm(phase.config) for phase in phases]
    have = ["values" in algorithm.needs for algorithm in algorithms]
    require_critics(phases, have)
    for phase, algorithm, has in zip(phases, algorithms, have, strict=True):
        critic = phase.config.critic
        if has and critic.frozen and algorithm.updates.critic_steps:
            raise UserError("critic.frozen learns nothing: set the algorithm's critic_steps to 0")
        if has and critic.path is not None and "critic" not in phase.keep and not resume:
            saved_critic(critic.path)


def load_algorithm(config: RunConfig) -> Algorithm:
    """Build the configured algorithm; the shuffle control adds one stage to it."""
    algorithm = compose(config.algorithm, config.rollout.max_new_tokens)
    require(algorithm, PROVIDED)
    if config.trainer.reward_control == "shuffle":
        algorithm = dataclasses.replace(algorithm, shape=(*algorithm.shape, shuffle_rewards))
    refuse_stale(algorithm, config.rollout)
    return algorithm


def rate_factors(family: Family, config: OptimizerConfig) -> dict[nn.Parameter, float]:
    """What the learning rate of encoders and projectors is multiplied by, where it is their own.

    Raises UserError where a rate is given for a part of which nothing learns.
    """
    factors: dict[nn.Parameter, float] = {}
    for name, rate, parameters in (
        ("tower", config.tower_learning_rate, family.tower_parameters()),
        ("projector", config.projector_learning_rate, family.projector_parameters()),
    ):
        learning = [p for p in parameters if p.requires_grad]
        if rate is not None and not learning:
            raise UserError(f"optimizer.{name}_learning_rate: nothing of the {name} learns")
        factors |= {p: rate / config.learning_rate for p in learning if rate is not None}
    return factors


def make_correction(rollout: RolloutConfig) -> Correction | None:
    """The importance correction that is configured."""
    if rollout.correction is None:
        return None
    return Correction(rollout.correction, rollout.correction_limit)


def shuffle_rewards(groups: list[Group], context: Context) -> list[Group]:
    """Permute the scores within each group: a control from which nothing can be learnt."""
    return [
        dataclasses.replace(
            group, scores=tuple(group.scores[i] for i in context.rng.permutation(len(group.scores)))
        )
        for group in groups
    ]
