"""A run's configuration: one YAML file plus `a.b=c` overrides -> frozen pydantic models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, field_validator, model_validator

from mmrl.alarm import Action, Alarm
from mmrl.data_config import DataConfig
from mmrl.model_config import ModelConfig
from mmrl.paper_config import run_sections
from mmrl.rollout_config import RolloutConfig
from mmrl.validation import Section, read_values, validate


class CriticConfig(Section):
    """Of algorithms with a critic only."""

    trunk: Literal["own", "shared"] = Field(
        "own", description="own: a copy of the start, trained; shared: the policy's, only read"
    )
    path: Path | None = Field(
        None,
        description="run or checkpoint of the same model whose critic it starts as; default: a "
        "value of 0 everywhere",
    )
    frozen: bool = Field(False, description="its values are used, and it learns nothing")
    learning_rate: float = Field(1e-5, gt=0, description="of the critic")
    warmup_steps: int = Field(0, ge=0, description="updates until the full learning rate")
    clip: float | None = Field(0.5, gt=0, description="how far a value may move in a step")
    max_grad_norm: float = Field(1.0, gt=0, description="gradients of the critic are clipped to it")

    @model_validator(mode="after")
    def _frozen_with_a_trunk_of_its_own(self) -> CriticConfig:
        if self.frozen and self.trunk == "shared":
            raise ValueError("frozen needs trunk: own, a shared one moves with the policy")
        return self


FLOAT16 = (
    "model.dtype: float16 is for evaluation, small gradients are 0 in it: train in bfloat16 or "
    "float32"
)


class OptimizerConfig(Section):
    learning_rate: float = Field(1e-6, gt=0, description="the highest; see schedule")
    tower_learning_rate: float | None = Field(
        None, gt=0, description="of the media encoders; default: learning_rate"
    )
    projector_learning_rate: float | None = Field(
        None, gt=0, description="of what projects from them; default: learning_rate"
    )
    betas: tuple[float, float] = Field((0.9, 0.999), description="AdamW's")
    weight_decay: float = Field(0.0, ge=0, description="of matrices; vectors do not decay")
    warmup_steps: int = Field(
        0,
        ge=0,
        description="updates until the full rate; they and a decay are counted by the plan (steps "
        "x passes x mini-batches), of which a step with few groups may make fewer",
    )
    schedule: Literal["constant", "linear", "cosine"] = Field(
        "constant", description="of the learning rate after the warm-up"
    )
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are clipped to it")
    skip_above: float | None = Field(
        None,
        gt=0,
        description="skip and count updates whose gradient's norm is above it or not a number",
    )
    moments: Literal["float32", "bfloat16"] = Field(
        "float32", description="bfloat16: moments in half the memory, rounded at random"
    )


class TrainerConfig(Section):
    steps: int = Field(gt=0, description="batches of prompts that are rolled out and trained on")
    prompts_per_step: int = Field(8, gt=0, description="each gets a group of answers")
    tokens_per_micro_batch: int | None = Field(
        None,
        gt=0,
        description="trunk tokens of one forward; default: 16384, on a CPU 1024 a thread",
    )
    kept_prompt_tokens: int | None = Field(
        None,
        ge=0,
        description="trunk tokens of prompts whose pass in the rollout is kept for the update, "
        "with rollout.engine=hf and one update a step; default: half a micro-batch; 0: none",
    )
    backend: Literal["local", "deepspeed"] = Field(
        "local", description="deepspeed: ZeRO, see docs/scaling.md"
    )
    deepspeed: Path | None = Field(
        None, description="DeepSpeed's JSON, such as configs/deepspeed/zero2.json"
    )
    exchange_timeout_seconds: float = Field(
        1800.0, gt=0, description="wait so long for other processes before giving the run up"
    )
    checkpoint_every: int = Field(
        0, ge=0, description="steps between checkpoints; 0: only after the last step, and in time"
    )
    checkpoint_minutes: float = Field(
        30.0,
        ge=0,
        description="a checkpoint after a step where none was written for so long; 0: no",
    )
    keep_checkpoints: int = Field(2, gt=0, description="older ones are deleted")
    eval_every: int = Field(
        0, ge=0, description="steps between evaluations; 0: only before and after"
    )
    eval_limit: int | None = Field(
        None, gt=0, description="evaluate on so many held-out records only"
    )
    reward_control: Literal["none", "shuffle"] = Field(
        "none",
        description="shuffle: permute rewards between answers, a control that must not learn",
    )
    on_alarm: Mapping[Alarm, Action] = Field(
        {}, description="what an alarm does (docs/read_your_run.md); default: warn, in one line"
    )
    trackers: tuple[str, ...] = Field((), description="tensorboard, wandb, trackio, mlflow")
    tracked_answers: int = Field(16, ge=0, description="answers of a step in trackers' tables")
    write_rollouts_every: int = Field(1, gt=0, description="steps between written rollouts")
    max_refills: int = Field(10, ge=0, description="extra rollouts an editor may ask for in a step")


Frozen = Literal["freeze_tower", "freeze_projector", "freeze_language"]


class PhaseConfig(Section):
    """A part of a run: sections here stand over the run's own, option by option.

    `data` and an `algorithm` with a name take the place of the run's.
    """

    name: str = Field("", description="default: its number")
    keep: tuple[Literal["state", "optimizer", "reference", "critic"], ...] = Field(
        ("state",), description="what it takes over besides the weights"
    )
    weights: str | None = Field(
        None,
        description="what it begins with: `start` is model.path, an earlier phase's name what that "
        "ended with; default: what the phase before it ended with",
    )
    model: Mapping[Frozen, bool] | None = Field(
        None, description="which parts stay as they are: freeze_... over the run's"
    )
    language: str | None = Field(
        None, description="start.language, where the phase begins; needs no adapters"
    )
    data: Any = Field(None, description="sources in place of the run's")
    algorithm: Mapping[str, Any] | None = Field(
        None, description="with a name: in place of the run's; else options of it"
    )
    media: Mapping[str, Mapping[str, Any]] | None = Field(
        None, description="options over the run's"
    )
    rollout: Mapping[str, Any] | None = Field(None, description="options over the run's")
    optimizer: Mapping[str, Any] | None = Field(None, description="options over the run's")
    critic: Mapping[str, Any] | None = Field(None, description="options over the run's")
    reference: Mapping[str, Any] | None = Field(None, description="in place of the run's")
    trainer: Mapping[str, Any] | None = Field(None, description="options over the run's")


class StartConfig(Section):
    """What is changed of the model before it is trained."""

    add_tokens: tuple[str, ...] = Field(
        (),
        description="become tokens of the vocabulary, such as control tokens; <TOK_{0..255}> are "
        "256; each starts as the mean of those it is written with",
    )
    language: str | None = Field(
        None,
        description="folder of the same language model, whose weights take the place of the "
        "model's: its encoder and projector stay",
    )


class RunConfig(Section):
    """Everything a run is made of; the resolved form is written to the run folder."""

    run: Path = Field(description="folder that the run writes into")
    seed: int = Field(0, description="all random numbers of the run follow from it")
    model: ModelConfig
    start: StartConfig = StartConfig()
    data: tuple[DataConfig, ...]
    algorithm: Mapping[str, Any] = Field(
        default_factory=lambda: {"name": "grpo"},
        description="its name, its options, and stages put in place of its own",
    )
    media: Mapping[str, Mapping[str, Any]] = Field(
        default_factory=dict, description="options by modality: image, screenshot, video, audio"
    )
    rollout: RolloutConfig = RolloutConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    critic: CriticConfig = CriticConfig()
    judges: Mapping[str, Mapping[str, Any]] = Field(
        default_factory=dict, description="models that judge answers, by name; see docs/judges.md"
    )
    reference: Mapping[str, Any] = Field(
        default_factory=dict, description="what the policy is held to; default: its start"
    )
    phases: tuple[PhaseConfig, ...] = Field(
        (), description="parts of the run with settings of their own, one after the other"
    )
    trainer: TrainerConfig

    @model_validator(mode="before")
    @classmethod
    def _one_source_or_many(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("data"), dict):
            return {**values, "data": (values["data"],)}
        return values

    @field_validator("algorithm", mode="before")
    @classmethod
    def _is_a_section(cls, value: Any) -> Any:
        if isinstance(value, str):
            raise ValueError(f"it is a section of options: write algorithm.name={value}")
        return value

    @model_validator(mode="after")
    def _deepspeed_has_a_file(self) -> RunConfig:
        if self.trainer.backend == "deepspeed" and self.trainer.deepspeed is None:
            raise ValueError(
                "trainer.deepspeed must name a JSON, such as configs/deepspeed/zero2.json"
            )
        for name in ("tower_learning_rate", "projector_learning_rate", "skip_above"):
            if self.trainer.backend == "deepspeed" and getattr(self.optimizer, name):
                raise ValueError(f"optimizer.{name} is for trainer.backend=local")
        if self.trainer.backend == "deepspeed" and self.optimizer.moments != "float32":
            raise ValueError(
                "optimizer.moments=bfloat16 is for trainer.backend=local: ZeRO shards float32 ones"
            )
        return self

    @model_validator(mode="after")
    def _goes_back_to_a_checkpoint(self) -> RunConfig:
        if "roll_back" in self.trainer.on_alarm.values():
            if not self.trainer.checkpoint_every:
                raise ValueError("trainer.on_alarm: roll_back needs trainer.checkpoint_every")
            if self.rollout.max_staleness:
                raise ValueError(
                    "trainer.on_alarm: roll_back would train on answers of the weights that it "
                    "gives up: set rollout.max_staleness=0"
                )
        return self

    @model_validator(mode="after")
    def _trains_in_a_dtype_that_holds_gradients(self) -> RunConfig:
        if self.model.dtype == "float16":
            raise ValueError(FLOAT16)
        return self

    @property
    def algorithm_name(self) -> str:
        return str(self.algorithm.get("name", "grpo"))

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def load_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read the YAML of a path, apply overrides `a.b=c` (YAML), validate; errors name the key.

    >>> load_config(Path("configs/quickstart.yaml"), ["trainer.steps=7"]).trainer.steps
    7
    """
    values = run_sections(read_values(path, overrides), str(path))
    return validate(RunConfig, values, str(path))
