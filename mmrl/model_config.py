"""Which model is trained, and what of it: the section `model` of a run's configuration."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, model_validator

from mmrl.validation import Section


class LoraConfig(Section):
    rank: int = Field(16, gt=0, description="rank of every adapter")
    alpha: int = Field(32, gt=0, description="adapters are scaled by alpha / rank")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout in front of the adapters")
    targets: str | tuple[str, ...] = Field(
        "auto",
        description="names of linears, or ends of them, as in PEFT; a text is a regular expression "
        "for whole names; all-linear: all but the head; auto: those of language layers that the "
        "family names",
    )
    tower: Literal["frozen", "trained"] = Field(
        "frozen", description="trained: adapters on the media encoders' linears too"
    )
    quantize: Literal["none", "nf4", "int8"] = Field(
        "none", description="hold the base in 4 or 8 bits (QLoRA)"
    )

    @property
    def everywhere(self) -> bool:
        """Whether every linear but the head gets adapters, towers' too."""
        return isinstance(self.targets, str) and self.targets.lower() == "all-linear"

    @model_validator(mode="after")
    def _names_something(self) -> LoraConfig:
        if not self.targets or not all(self.targets):
            raise ValueError("targets names no linear: write auto, all-linear or a list of names")
        if isinstance(self.targets, str):
            try:
                re.compile(self.targets)
            except re.error as error:
                raise ValueError(f"targets is no regular expression: {error}") from None
        return self


class ModelConfig(Section):
    path: str = Field(description="folder with a transformers model and its processor")
    family: str | None = Field(None, description="family name; default: from the model's type")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="of the weights in the forward pass; the optimiser steps in float32"
    )
    freeze_tower: bool = Field(
        False, description="keep the media encoders as they are; what projects from them learns"
    )
    freeze_projector: bool = Field(
        False,
        description="keep what projects from the media encoders as it is; with freeze_tower a "
        "medium is encoded once in a run",
    )
    freeze_language: bool = Field(False, description="keep all but encoders and projectors")
    lora: LoraConfig | None = Field(None, description="train low-rank adapters only")
    gradient_checkpointing: bool = Field(
        False, description="compute layers again in the backward pass: less memory, more time"
    )
    trust_remote_code: bool = Field(False, description="run code that lies in the model folder")
    max_prompt_tokens: int = Field(4096, gt=0, description="longest prompt, media included")
    overflow: Literal["quarantine", "shrink", "fail"] = Field(
        "quarantine",
        description="of a longer prompt; shrink: its pictures and videos are seen smaller",
    )
    min_pixels: int | None = Field(None, gt=0, description="lower pixel budget of an image")
    max_pixels: int | None = Field(None, gt=0, description="upper pixel budget of an image")
    min_video_pixels: int | None = Field(None, gt=0, description="lower pixel budget of a video")
    max_video_pixels: int | None = Field(
        None,
        gt=0,
        description="upper pixel budget of a video, a frame's or all: as its family counts",
    )

    @model_validator(mode="after")
    def _one_wish_for_the_tower(self) -> ModelConfig:
        for frozen in ("freeze_tower", "freeze_projector"):
            if getattr(self, frozen) and self.lora and self.lora.tower == "trained":
                raise ValueError(f"{frozen} and lora.tower: trained contradict each other")
            if getattr(self, frozen) and self.lora and self.lora.everywhere:
                raise ValueError(f"{frozen} and lora.targets: all-linear contradict each other")
        if self.freeze_language and self.lora:
            raise ValueError("freeze_language and lora contradict each other")
        if self.freeze_tower and self.freeze_projector and self.freeze_language:
            raise ValueError("tower, projector and language are all frozen: nothing would learn")
        return self
