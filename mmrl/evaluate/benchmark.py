"""A checkpoint on a benchmark, from its folder to the number, the JSON file and the page."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from mmrl.data.samples import load_samples
from mmrl.engines.engine import Engine, Sampling
from mmrl.evaluate.answers import Answers
from mmrl.evaluate.ask import Asking, ask, sampling_settings, score
from mmrl.evaluate.evaluation_page import write_page
from mmrl.evaluate.summary import Evaluation, summarise
from mmrl.evaluate.votes import readings
from mmrl.evaluate.ways import InWays, WaysConfig
from mmrl.model_config import ModelConfig
from mmrl.policy.encoder import Encoder
from mmrl.policy.model_folder import model_folder
from mmrl.policy.policy import load_policy
from mmrl.rollout.build import build_engine
from mmrl.rollout.episode import Episodes
from mmrl.rollout.follow_ups import following
from mmrl.rollout.history import history_of
from mmrl.rollout_config import RolloutConfig
from mmrl.runlog.transcript import Thumbnails
from mmrl.scoring.living import Living
from mmrl.scoring.pool import Scorer, TaskSpec
from mmrl.scoring.tasks import fixture_path, load_task
from mmrl.task import Task
from mmrl.types import Sample
from mmrl.validation import Section, apply_override, validate


class EvalConfig(Section):
    """What to ask of which model, and how; files are written where `out` says."""

    task: str
    data: Path
    model: ModelConfig
    params: Mapping[str, Any] = Field(default_factory=dict, description="the task's parameters")
    weights: Mapping[str, float] = Field(default_factory=dict)
    media: Mapping[str, Mapping[str, Any]] = Field(default_factory=dict)
    rollout: RolloutConfig = RolloutConfig()
    columns: Mapping[str, str | None] = Field(
        default_factory=dict, description="as of a run's data"
    )
    media_roots: tuple[Path, ...] = Field((), description="as of a run's data")
    limit: int | None = Field(None, gt=0, description="the first records only")
    samples: int = Field(1, gt=0, description="answers to each record")
    temperature: float | None = Field(
        None, ge=0, description="0 is greedy; default: 0 for one answer, rollout's for several"
    )
    k: tuple[int, ...] = Field((), description="of pass@k; default: 1, 2, 4 ... samples")
    pass_threshold: float | None = Field(
        None, description="metric from which an answer passes; default: 1, or an error of 0"
    )
    ways: WaysConfig = Field(
        WaysConfig(), description="ask each record so: forced beginnings, budgets of thinking"
    )
    verify: str = Field(
        "",
        description="ask the model so about each of its answers, whose votes then count by the "
        "chance of a Yes",
    )
    seed: int = 0
    out: Path | None = None

    @model_validator(mode="after")
    def _several_answers_are_sampled(self) -> EvalConfig:
        if self.samples > 1 and self.temperature == 0:
            raise ValueError("several greedy answers are all the same: give a temperature")
        if any(not 1 <= k <= self.samples for k in self.k):
            raise ValueError(f"k goes from 1 to samples, which is {self.samples}")
        if self.ways.names and (self.k or self.verify):
            raise ValueError("k and verify are for one way of asking: leave them or ways out")
        if self.verify and self.samples == 1:
            raise ValueError("verify weighs votes: give samples above 1")
        return self

    @property
    def ks(self) -> tuple[int, ...]:
        """The k of pass@k, in order; none for one answer unless asked for."""
        if self.k or self.samples == 1 or self.ways.names:
            return tuple(sorted(set(self.k)))
        doubled = [2**i for i in range(self.samples.bit_length())]
        return tuple(sorted({*doubled, self.samples}))

    @property
    def asking(self) -> Asking:
        temperature = self.temperature
        if temperature is None:
            temperature = 0.0 if self.samples == 1 else self.rollout.temperature
        rollout = self.rollout
        sampling = Sampling(rollout.max_new_tokens, temperature, rollout.top_p, rollout.top_k)
        return Asking(sampling, self.count, self.seed, self.verify)

    @property
    def count(self) -> int:
        """Answers to each record, in all ways together."""
        return self.samples * max(1, len(self.ways.names))

    @property
    def folder(self) -> Path | None:
        """Where the answers are kept, beside the result."""
        return None if self.out is None else self.out.with_suffix(".answers")


def settings_of(flags: Mapping[str, Any], overrides: Sequence[str]) -> EvalConfig:
    """The settings that command-line flags (None: not given) and `a.b=c` overrides ask for."""
    values: dict[str, Any] = {
        name: flags[name]
        for name in EvalConfig.model_fields
        if name != "model" and flags.get(name) is not None
    }
    values.setdefault("data", None)
    values["model"] = {"path": flags["model"]}
    values["rollout"] = {
        name: flags[name] for name in ("engine", "max_new_tokens") if flags[name] is not None
    }
    for override in overrides:
        apply_override(values, override)
    if values["data"] is None:
        values["data"] = fixture_path(values["task"])
    return validate(EvalConfig, values, "eval")


@dataclass(frozen=True)
class Outcome:
    """An evaluation and where its page was written."""

    evaluation: Evaluation
    page: Path | None


def run_benchmark(
    config: EvalConfig,
    *,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Outcome:
    """Ask, score, write; answers that an earlier, killed call has kept are not asked again."""
    task = load_task(config.task, config.params)
    rejected: list[dict[str, str]] = []
    samples = load_samples(
        task,
        config.data,
        config.task,
        lambda record, reason: rejected.append({"id": record, "reason": reason}),
        config.limit,
        config.columns,
        config.media_roots,
    )
    answers = _open_answers(config, overwrite)
    if any(answers.find(sample, config.count) is None for sample in samples):
        _ask(config, task, samples, answers, on_progress)
    evaluation = replace(_summary(config, task, samples, answers), rejected=tuple(rejected))
    if config.out is None or config.folder is None:
        return Outcome(evaluation, None)
    _write_json(config, evaluation)
    page = config.out.with_suffix(".html")
    write_page(page, evaluation, _facts(config), samples, answers, config.folder)
    return Outcome(evaluation, page)


def _ask(
    config: EvalConfig,
    task: Task,
    samples: Sequence[Sample],
    answers: Answers,
    on_progress: Callable[[int, int], None],
) -> None:
    """Load the model, ask what is missing, and free the model before anything is scored."""
    policy = load_policy(config.model)
    encoder = Encoder(policy.family, defaults=config.media, overflow=config.model.overflow)
    engine = build_engine(policy, config.model, config.rollout, {config.task: task})
    pictures = Thumbnails(config.folder) if config.folder else None
    specs = {config.task: TaskSpec(config.task, config.params)}
    steps = Living(_scorer(config, specs), {config.task: task})
    rollout = config.rollout
    most, observed = rollout.max_turn_tokens, rollout.max_environment_tokens
    waves = rollout.waves if task.world else 1
    history = history_of(encoder, rollout.history_screens, rollout.history_pixels)
    playing: Engine = Episodes(engine, steps, encoder, most, observed, waves, history)
    playing = following(playing, {config.task: task}, encoder)
    if config.ways.names:
        playing = InWays(playing, config.ways, policy.family, policy.processor.tokenizer)
    try:
        ask(
            samples,
            config.asking,
            encoder,
            playing,
            answers,
            lambda done: on_progress(done, len(samples)),
            pictures,
        )
    finally:
        steps.close()
        encoder.close()
        engine.close()


def _scorer(config: EvalConfig, specs: Mapping[str, TaskSpec]) -> Scorer:
    rollout = config.rollout
    return Scorer(
        specs,
        rollout.scoring_workers,
        rollout.scoring_timeout_seconds,
        secrets=rollout.scoring_secrets,
    )


def _summary(
    config: EvalConfig, task: Task, samples: Sequence[Sample], answers: Answers
) -> Evaluation:
    """The task's own reading, and beside it the benchmark's where that is another."""
    official = load_task(config.task, {**config.params, **task.official})
    other = f"{config.task} (official)"
    specs = {config.task: TaskSpec(config.task, config.params, config.weights)}
    if official != task:
        specs[other] = TaskSpec(config.task, {**config.params, **task.official}, config.weights)
    with _scorer(config, specs) as scorer:
        rows = score(samples, config.task, config.count, answers, scorer)
        main = summarise(rows, task, config.count, config.ks, config.pass_threshold)
        main = replace(main, readings=readings(rows, task, config.ways, config.samples))
        if official == task:
            return main
        rows = score(samples, other, config.count, answers, scorer)
    theirs = summarise(rows, official, config.count, config.ks, config.pass_threshold)
    kept = ("metric", "low", "high", "unscorable", "unparsable", "pass_at_k", "breakdown")
    reading = {name: value for name, value in asdict(theirs).items() if name in kept}
    return replace(main, official={"params": dict(task.official), **reading})


def _open_answers(config: EvalConfig, overwrite: bool) -> Answers:
    folder = config.folder
    if folder is not None and overwrite and folder.exists():
        shutil.rmtree(folder)
    return Answers(folder, _settings(config))


OF_EPISODES = ("max_turn_tokens", "max_environment_tokens", "history_screens", "history_pixels")
"""Settings of rollouts that an episode's answers depend on."""


def _settings(config: EvalConfig) -> dict[str, Any]:
    """All that answers depend on besides the question; `samples` may grow or shrink."""
    settings = sampling_settings(config.asking)
    if not config.ways.names:
        del settings["samples"]
    settings |= {"ways": config.ways.model_dump(exclude={"consensus"})} if config.ways.names else {}
    limits = {name: getattr(config.rollout, name) for name in OF_EPISODES}
    settings |= {name: value for name, value in limits.items() if value is not None}
    return {
        "model": config.model.model_dump(mode="json"),
        "weights": _fingerprint(model_folder(config.model.path)),
        "engine": config.rollout.engine,
        "media": config.media,
        **settings,
    }


def _fingerprint(folder: Path) -> str:
    """Changes when the weights are written anew."""
    stats = [
        f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}"
        for path in sorted(folder.glob("*.safetensors"))
    ]
    return sha256("\n".join(stats).encode()).hexdigest()[:16]


def _facts(config: EvalConfig) -> dict[str, str]:
    asking = config.asking
    greedy = asking.sampling.temperature == 0
    return {
        "Model": config.model.path,
        "Task": config.task,
        "Records": str(config.data),
        "Parameters": ", ".join(f"{name} = {value}" for name, value in config.params.items()),
        "Answers": "1, greedy"
        if greedy
        else f"{asking.count} at temperature {asking.sampling.temperature:g}, seed {config.seed}",
        "Engine": config.rollout.engine,
    }


def _write_json(config: EvalConfig, evaluation: Evaluation) -> None:
    assert config.out is not None
    config.out.parent.mkdir(parents=True, exist_ok=True)
    payload = {**evaluation.to_json(), "settings": config.model_dump(mode="json")}
    half = config.out.with_name(config.out.name + ".tmp")
    half.write_text(json.dumps(payload, indent=1) + "\n", encoding="utf-8")
    os.replace(half, config.out)
