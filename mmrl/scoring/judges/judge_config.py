"""The section `judges` of a configuration: who judges, what is asked, and what it may cost."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from mmrl.errors import ConfigError
from mmrl.validation import Section, validate

Form = Literal["pointwise", "pairwise", "listwise"]
Combine = Literal["mean", "worst", "cautious"]


class JudgeConfig(Section):
    kind: Literal["endpoint", "model", "reward_model", "ensemble"] = Field(
        "endpoint",
        description="endpoint: a server that speaks OpenAI's protocol, vLLM's among them; model: a "
        "folder that transformers loads, in a process of its own; reward_model: one with a head "
        "for sequence classification; ensemble: several of these",
    )
    url: str | None = Field(None, description="of an endpoint, such as http://127.0.0.1:8000/v1")
    model: str | None = Field(None, description="the name that an endpoint knows the model by")
    key_variable: str | None = Field(None, description="environment variable with the API key")
    path: Path | None = Field(None, description="folder of a local model")
    device: str = Field("cpu", description="of a local model, such as cuda:1")
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="of a local model")
    batch: int = Field(8, gt=0, description="questions in one forward of a local model")
    heads: Mapping[str, int] = Field(
        default_factory=lambda: {"score": 0},
        description="of a reward model: places of its logits by name; their mean is the score",
    )
    form: Form = Field(
        "pointwise",
        description="pointwise: each answer alone; pairwise: answers of a group against each "
        "other, each pair in both orders; listwise: a group at once",
    )
    rubric: str = Field(
        "How good is the answer?",
        description="what is asked; {gold} stands for the record's gold, {answer} or another name "
        "for what that holds under it",
    )
    weight: float = Field(1.0, description="of its part of the reward; parts are from 0 to 1")
    tasks: tuple[str, ...] = Field((), description="whose answers it judges; default: all")
    scale: tuple[float, float] = Field((0.0, 10.0), description="of an endpoint's scores")
    opponents: int = Field(
        0, ge=0, description="of pairwise: how many others each answer meets; 0: all of its group"
    )
    reference: bool = Field(
        False,
        description="of pairwise: one answer of the group, drawn at random, is the only opponent "
        "of all others",
    )
    media: bool = Field(True, description="show it the prompt's pictures, frames and sounds")
    max_side: int = Field(1024, gt=0, description="longest side of a picture as it is shown")
    frames: int = Field(8, gt=0, description="frames of a video that it is shown")
    in_flight: int = Field(8, gt=0, description="requests at a time")
    timeout_seconds: float = Field(60.0, gt=0, description="for one reply, or a local batch")
    retries: int = Field(2, ge=0, description="further tries of a request without a usable reply")
    temperature: float = Field(0.0, ge=0, description="an endpoint's")
    max_tokens: int = Field(512, gt=0, description="of an endpoint's reply")
    price_in: float = Field(0.0, ge=0, description="of a million tokens that it reads")
    price_out: float = Field(0.0, ge=0, description="of a million tokens that it writes")
    members: Mapping[str, JudgeConfig] = Field(
        default_factory=dict, description="of an ensemble: judges by name"
    )
    combine: Combine = Field(
        "mean", description="of an ensemble; cautious: mean less `caution` standard deviations"
    )
    caution: float = Field(1.0, ge=0, description="see combine")

    @model_validator(mode="after")
    def _has_what_its_kind_needs(self) -> JudgeConfig:
        needs: dict[str, tuple[str, ...]] = {
            "endpoint": ("url", "model"),
            "model": ("path",),
            "reward_model": ("path",),
            "ensemble": ("members",),
        }
        missing = [name for name in needs[self.kind] if not getattr(self, name)]
        if missing:
            raise ValueError(f"kind={self.kind} needs {' and '.join(missing)}")
        if self.kind == "reward_model" and self.form != "pointwise":
            raise ValueError("a reward model scores answers alone: set form to pointwise")
        if self.reference and (self.form != "pairwise" or self.opponents):
            raise ValueError("reference is of form: pairwise, in place of opponents")
        if any(member.kind == "ensemble" for member in self.members.values()):
            raise ValueError("members of an ensemble are single judges")
        if not self.scale[0] < self.scale[1]:
            raise ValueError("scale goes from a lower to a higher number")
        return self


def judges_of(section: Mapping[str, Any]) -> dict[str, JudgeConfig]:
    """The judges of a configuration by name; what is wrong with one raises ConfigError."""
    for name in section:
        if name in ("mean", "std", "group_std"):
            raise ConfigError(f"judges.{name}: the name is a metric's, choose another")
    return {name: validate(JudgeConfig, v, f"judges.{name}") for name, v in section.items()}
