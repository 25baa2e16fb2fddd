"""How a run samples: its engine, the servers, episodes, and who scores."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from mmrl.validation import Section

SERVER_KEY = "MMRL_SERVER_KEY"
"""Environment variable with the secret that vLLM servers ask of whoever talks to them."""


class ServersConfig(Section):
    """Of `rollout.engine=vllm_server`: servers to reach, or to start on this machine."""

    urls: tuple[str, ...] = Field((), description="servers that run already; default: start some")
    start: int = Field(1, gt=0, description="servers to start on this machine")
    devices: tuple[str, ...] = Field(
        (), description="CUDA devices of each started server, such as ['1', '2,3']"
    )
    restarts: int = Field(3, ge=0, description="how often a lost server is started or sought again")
    start_timeout_seconds: float = Field(900.0, gt=0, description="for a server to be ready")
    request_timeout_seconds: float = Field(
        900.0, gt=0, description="for a group of answers, and for taking weights"
    )
    weights: Literal["file", "broadcast"] = Field(
        "file", description="how weights get to servers; broadcast: by NCCL, on a CPU by gloo"
    )
    weights_folder: Path | None = Field(
        None,
        description="where the file is put: a folder all servers see; default: the shared memory "
        "of this machine",
    )


class RolloutConfig(Section):
    engine: Literal["hf", "hf_copy", "targets", "vllm", "vllm_server"] = Field(
        "hf", description="what samples; see docs/engines.md"
    )
    max_staleness: int = Field(
        0,
        ge=0,
        description="roll out so many steps ahead while the policy trains, with weights that are "
        "so many steps old; 0: on-policy",
    )
    max_new_tokens: int = Field(256, gt=0, description="longest answer")
    thought_dropout: float = Field(
        0.0, ge=0, le=1, description="of engine targets: chance that a target's thought is emptied"
    )
    adaptive_targets: bool = Field(
        False,
        description="of engine targets: of a record's best completions, one as long as the record "
        "is hard (its pass_rate)",
    )
    stored: int = Field(
        0,
        ge=0,
        description="so many of a group's answers are completions that its record holds (chosen, "
        "rejected, completions, data.stored), the rest is sampled; engine targets writes all of "
        "them and samples nothing",
    )
    max_turn_tokens: int | None = Field(
        None, gt=0, description="longest turn of an episode; max_new_tokens is then of all turns"
    )
    max_environment_tokens: int | None = Field(
        None, gt=0, description="of an episode's observations; default: they take of max_new_tokens"
    )
    history_screens: int | None = Field(
        None, gt=0, description="a turn is asked with the last so many screens of its episode"
    )
    history_pixels: int | None = Field(
        None,
        gt=0,
        description="earlier screens are shown with so many pixels at most; default: a text is in "
        "their place",
    )
    waves: int = Field(
        2,
        ge=1,
        le=16,
        description="live episodes are played in so many parts: while one is decoded, the "
        "environments of the others step; 1: all together",
    )
    temperature: float = Field(
        1.0,
        gt=0,
        description="of sampling; the policy that is trained is the one at this temperature",
    )
    top_p: float = Field(
        1.0, gt=0, le=1, description="smallest share of probability that is drawn from; 1: all"
    )
    top_k: int = Field(0, ge=0, description="0: no limit")
    max_sequences: int = Field(256, gt=0, description="responses decoded side by side")
    prefix_tokens: int | None = Field(
        None,
        ge=0,
        description="of episodes under way the embedded engine keeps the keys of so many, for "
        "their next turns; default: 131072; 0: every turn is prefilled whole",
    )
    scoring_workers: int = Field(2, gt=0, description="processes that score answers")
    scoring_timeout_seconds: float = Field(
        10.0, gt=0, description="for one answer; one that takes longer is unscorable"
    )
    scoring_secrets: tuple[str, ...] = Field(
        (), description="environment variables with keys or tokens that rewards may see"
    )
    max_unscorable_share: float = Field(0.2, ge=0, le=1, description="stop the run above it")
    vllm: Mapping[str, Any] = Field(
        default_factory=dict, description="engine arguments of vLLM, over those chosen for it"
    )
    servers: ServersConfig = ServersConfig()
    adapter_sync: Literal["auto", "adapter", "merged"] = Field(
        "auto",
        description="what vLLM gets of a model with model.lora; adapter: the base once, then "
        "adapters alone; merged: all weights, adapters added; auto: adapter where vLLM can",
    )
    parity_every: int = Field(
        50,
        ge=0,
        description="steps between comparisons of an engine with weights of its own and the "
        "trainer, also made at the start and after the first step; 0: never",
    )
    parity_limit: float | None = Field(
        None,
        gt=0,
        description="mean gap of log-probs in nats above which the run stops; default: 0.001 in "
        "float32, 0.05 in half precision",
    )
    correction: (
        Literal["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"] | None
    ) = Field(None, description="importance weights for what the engine sampled")
    correction_limit: float = Field(3.0, gt=0, description="largest weight that is left as it is")

    @model_validator(mode="after")
    def _screens_are_earlier_than_others(self) -> RolloutConfig:
        if self.history_pixels and not self.history_screens:
            raise ValueError("history_pixels is of screens before the last history_screens: set it")
        return self

    @model_validator(mode="after")
    def _adapters_go_to_vllm(self) -> RolloutConfig:
        if self.adapter_sync == "adapter" and self.engine not in ("vllm", "vllm_server"):
            raise ValueError(f"engine={self.engine} takes no adapters: set adapter_sync to auto")
        return self

    @model_validator(mode="after")
    def _ahead_with_weights_of_its_own(self) -> RolloutConfig:
        if self.max_staleness and self.engine == "targets":
            raise ValueError("engine=targets samples nothing: set max_staleness to 0")
        if self.max_staleness and self.engine == "hf":
            raise ValueError(
                "engine=hf samples with the policy's own weights, which an update moves: to roll "
                "out ahead take engine=hf_copy (a second copy of the weights) or a vLLM engine"
            )
        return self
