"""The engine that a configuration names."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping

from mmrl.config import ModelConfig, RolloutConfig
from mmrl.errors import UserError
from mmrl.policy.policy import Policy
from mmrl.rollout.copied import CopyEngine
from mmrl.rollout.engine import Engine
from mmrl.rollout.hf import HFEngine
from mmrl.rollout.targets import Targets
from mmrl.task import Task

WITH_WEIGHTS = frozenset({"hf_copy", "vllm"})
"""Engines that hold a copy of the weights, which may come to differ from the policy's."""


def build_engine(
    policy: Policy, model: ModelConfig, rollout: RolloutConfig, tasks: Mapping[str, Task]
) -> Engine:
    """Make the engine of `rollout.engine`; raises UserError where its package is absent."""
    match rollout.engine:
        case "hf":
            return HFEngine(policy, rollout.max_sequences)
        case "hf_copy":
            return CopyEngine(policy, model, rollout.max_sequences)
        case "targets":
            return Targets(policy, tasks)
        case "vllm":
            _require("vllm", rollout)
            from mmrl.rollout.vllm import VLLMEngine

            return VLLMEngine(policy, model, rollout)


def _require(package: str, rollout: RolloutConfig) -> None:
    if importlib.util.find_spec(package) is None:
        raise UserError(
            f"rollout.engine={rollout.engine} needs {package}: pip install 'mmrl[{package}]'"
        )
