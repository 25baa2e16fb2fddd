"""Whether vLLM takes an adapter by itself, or weights with the adapter added."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmrl import plugins
from mmrl.errors import UserError
from mmrl.model_config import LoraConfig, ModelConfig
from mmrl.policy.family import Declaration
from mmrl.policy.policy import family_name
from mmrl.rollout_config import RolloutConfig

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as max_lora_rank."""


def adapter_arguments(
    settings: Any, model: ModelConfig, rollout: RolloutConfig, on_gpu: bool
) -> Mapping[str, Any]:
    """vLLM's engine arguments with which it takes the adapter; none where it cannot.

    Raises UserError where it cannot and `rollout.adapter_sync` asks for it. Needs vLLM.
    """
    if model.lora is None or rollout.adapter_sync == "merged":
        _refuse(rollout, "there is no model.lora")
        return {}
    reason = objection(settings, model, on_gpu) or _class_objection(settings)
    if reason is not None:
        _refuse(rollout, reason)
        return {}
    return {
        "enable_lora": True,
        "max_lora_rank": room_for(model.lora.rank),
        "max_loras": 1,
        "max_cpu_loras": 1,
        "lora_target_modules": _last_names(model.lora),
    }


def takes_adapter(
    settings: Any, model: ModelConfig, rollout: RolloutConfig, on_gpu: bool, most: int
) -> bool:
    """Whether engines get the adapter alone; `most` is the largest rank that all of them take.

    Raises UserError where they cannot and `rollout.adapter_sync` asks for it.
    """
    if model.lora is None or rollout.adapter_sync == "merged":
        _refuse(rollout, "there is no model.lora")
        return False
    reason = objection(settings, model, on_gpu)
    if reason is None and most < model.lora.rank:
        reason = (
            f"vLLM was started with max_lora_rank={most}, below model.lora.rank={model.lora.rank}"
            if most
            else "vLLM was started without enable_lora"
        )
    if reason is not None:
        _refuse(rollout, reason)
    return reason is None


def objection(settings: Any, model: ModelConfig, on_gpu: bool) -> str | None:
    """Why vLLM cannot take this adapter, whatever the model's class; None if it can.

    `settings` is the model's transformers configuration.
    """
    assert model.lora is not None
    declared = plugins.load("family", family_name(settings.model_type, model.family)).DECLARATION
    if model.lora.tower == "trained":
        return "with model.lora.tower=trained adapters are in the towers too, where vLLM has none"
    if not _in_language(model.lora, declared):
        return "vLLM has no adapters outside of language layers, where model.lora.targets may reach"
    if model.lora.rank > RANKS[-1]:
        return f"vLLM takes ranks up to {RANKS[-1]}, model.lora.rank is {model.lora.rank}"
    if _in_experts(settings, model.lora, declared):
        return "adapters of fused experts have another layout in vLLM"
    if on_gpu and model.dtype == "float32":
        return "vLLM's kernels for adapters on GPUs are for model.dtype=bfloat16"
    return None


def room_for(rank: int) -> int:
    """The smallest max_lora_rank that holds an adapter of that rank."""
    return min(room for room in RANKS if room >= rank)


def _in_language(adapter: LoraConfig, declared: Declaration) -> bool:
    """Whether all that is named are linears of language layers: of a pattern nobody can tell."""
    if isinstance(adapter.targets, str):
        return adapter.targets in ("auto", *declared.lora_targets)
    towers = {tower.rpartition(".")[2] for tower in declared.towers}
    return all(
        name.rpartition(".")[2] in declared.lora_targets and towers.isdisjoint(name.split("."))
        for name in adapter.targets
    )


def _last_names(adapter: LoraConfig) -> list[str] | None:
    """The linears' own names, which vLLM knows targets by; None for all."""
    if adapter.targets == "auto":
        return None
    named = (adapter.targets,) if isinstance(adapter.targets, str) else adapter.targets
    return list(dict.fromkeys(name.rpartition(".")[2] for name in named))


def _in_experts(settings: Any, adapter: LoraConfig, declared: Declaration) -> bool:
    experts = settings.get_text_config().to_dict().get("num_experts")
    return bool(experts and declared.lora_parameters and adapter.targets == "auto")


def _class_objection(settings: Any) -> str | None:
    """Whether vLLM's own class for the model has adapters: it refuses to start otherwise."""
    from vllm import ModelRegistry
    from vllm.model_executor.models import supports_lora

    for name in settings.architectures or ():
        known = ModelRegistry.models.get(name)
        if known is not None and supports_lora(known.load_model_cls()):
            return None
    return f"vLLM has no adapters for {', '.join(settings.architectures or ['this model'])}"


def _refuse(rollout: RolloutConfig, reason: str) -> None:
    if rollout.adapter_sync == "adapter":
        raise UserError(f"rollout.adapter_sync=adapter: {reason}; set it to auto")
