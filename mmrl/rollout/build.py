"""The engine that a configuration names."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import cast

import torch
from transformers import AutoConfig

from mmrl.backend.world import World
from mmrl.config import RunConfig
from mmrl.engines.engine import Engine, WeightHolder
from mmrl.engines.hf import HFEngine
from mmrl.engines.hf_copy import CopyEngine
from mmrl.engines.targets import Targets
from mmrl.errors import UserError
from mmrl.model_config import ModelConfig
from mmrl.policy.model_folder import base_of, model_folder
from mmrl.policy.policy import Policy
from mmrl.rollout_config import RolloutConfig
from mmrl.task import Task

WITH_WEIGHTS = frozenset({"hf_copy", "vllm", "vllm_server"})
"""Engines that hold a copy of the weights, which may come to differ from the policy's."""

OTHER_CODE = frozenset({"vllm", "vllm_server"})
"""Engines that compute log-probs otherwise than the policy does, in float32 too."""


def build_engine(
    policy: Policy,
    model: ModelConfig,
    rollout: RolloutConfig,
    tasks: Mapping[str, Task],
    world: World | None = None,
    prefill_tokens: int | None = None,
) -> Engine:
    """Make the engine of `rollout.engine`; raises UserError where its package is absent.

    `world` are the processes of the run, which share servers. `prefill_tokens` bounds a pass of the
    embedded engine over prompts.
    """
    limits = rollout.max_sequences, prefill_tokens, rollout.prefix_tokens
    match rollout.engine:
        case "hf":
            return HFEngine(policy, *limits)
        case "hf_copy":
            return CopyEngine(policy, model, *limits)
        case "targets":
            dropout, adaptive = rollout.thought_dropout, rollout.adaptive_targets
            return Targets(policy, tasks, dropout, adaptive=adaptive)
        case "vllm":
            _require("vllm", rollout)
            from mmrl.engines.vllm.in_process import VLLMEngine

            return VLLMEngine(policy, model, rollout)
        case "vllm_server":
            if not rollout.servers.urls:
                _require("vllm", rollout)
            from mmrl.engines.vllm.client.remote import VLLMServerEngine

            return VLLMServerEngine(policy, model, rollout, world)


def holding(engine: Engine) -> WeightHolder:
    """The same engine, which is one of `WITH_WEIGHTS`."""
    assert hasattr(engine, "version"), "the engine samples with the policy's own weights"
    return cast(WeightHolder, engine)


def serve(config: RunConfig, host: str, port: int) -> None:
    """Become a `vllm serve` for runs of `config` that name it in `rollout.servers.urls`.

    Its weights are random until a run gives it some.
    """
    _require("vllm", config.rollout)
    from mmrl.engines.vllm.client.process import serve_in_place
    from mmrl.engines.vllm.client.remote import server_arguments

    folder = model_folder(config.model.path)
    settings = AutoConfig.from_pretrained(
        base_of(folder) or folder,
        trust_remote_code=config.model.trust_remote_code,
        local_files_only=True,
    )
    on_gpu = torch.cuda.is_available()
    arguments = server_arguments(settings, config.model, config.rollout, on_gpu)
    serve_in_place(arguments, host, port)


def _require(package: str, rollout: RolloutConfig) -> None:
    if importlib.util.find_spec(package) is None:
        raise UserError(
            f"rollout.engine={rollout.engine} needs {package}: pip install 'mmrl[{package}]'"
        )
