"""Low-rank adapters through PEFT: which linears get them, how they are saved, put on and merged.

The policy's model stays the transformers model; PEFT exchanges its linears in place. The reference
policy is the same model with the adapters off, so it costs no memory.
"""

from __future__ import annotations

import importlib.util
import itertools
import logging
import re
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmrl.errors import UserError
from mmrl.model_config import LoraConfig
from mmrl.policy.buckets import Buckets, Gather, weights_in_buckets
from mmrl.policy.family import Declaration


@dataclass(frozen=True)
class Adapter:
    """The adapters of one model, held by the PeftModel around it, and what they started from."""

    peft: Any
    seed: int

    def off(self) -> AbstractContextManager[None]:
        """Run the base alone until the block ends."""
        disabled: AbstractContextManager[None] = self.peft.disable_adapter()
        return disabled

    def save(self, folder: Path) -> None:
        """Write adapter_model.safetensors and adapter_config.json, as PeftModel reads them."""
        self.peft.save_pretrained(folder, save_embedding_layers=False)

    def load_weights(self, folder: Path) -> None:
        """Take over the adapters saved in `folder`, bit for bit."""
        from peft import set_peft_model_state_dict
        from peft.utils import load_peft_weights

        set_peft_model_state_dict(self.peft, load_peft_weights(str(folder), device="cpu"))


def attach(model: Any, declaration: Declaration, config: LoraConfig, seed: int) -> Adapter:
    """Put fresh adapters on a model's linears and freeze all else; the output stays the same.

    Their first half is drawn from `seed`, their second is zero. Raises UserError where PEFT is
    absent or nothing matches the targets.
    """
    peft = _import_peft()
    parameters = fused_targets(model, declaration, config)
    if parameters and config.dropout:
        raise UserError(
            "model.lora.dropout does not work with this model's fused experts: set it to 0, or "
            "name linears in model.lora.targets"
        )
    settings = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=linear_targets(model, declaration, config),
        target_parameters=parameters or None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        wrapped = peft.PeftModel(model, settings)
    # The tuner freezes the base by itself, except where adapters go to single parameters.
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)
    model.eval()  # new dropout layers are born in training mode
    _keep_trainable(model)
    return Adapter(wrapped, seed)


def _keep_trainable(model: nn.Module) -> None:
    """Keep linears in 4 bits as they are on CPUs with products in bfloat16.

    bitsandbytes 0.50 packs them anew in their first pass without gradients, for inference: later
    passes fail at a bias, and have no gradient without one.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010


def linear_targets(model: nn.Module, declaration: Declaration, config: LoraConfig) -> list[str]:
    """Full names of the linears that get adapters, in the model's order.

    `auto` is what the family names in language layers. Everything else is read as by PEFT: a name
    in a list stands for what ends with it, a text for the whole names that it matches as a regular
    expression (or is one name), `all-linear` for all but the head. Only a name that language
    layers have means theirs alone: towers get adapters where `tower` says so, or by a name of
    their own. Raises UserError for a name or a text that no linear has.
    """
    if config.tower == "trained" and not declaration.towers:
        raise UserError("model.lora.tower: the generic family does not know the model's towers")
    linears = [name for name, module in model.named_modules() if _is_plain_linear(module)]
    towers = tuple(f"{tower}." for tower in declaration.towers)
    chosen = set(_chosen(model, linears, declaration, config))
    if config.tower == "trained":
        chosen |= {n for n in linears if n.startswith(towers) or n in declaration.towers}
    return [name for name in linears if name in chosen]


def _chosen(
    model: Any, linears: Sequence[str], declaration: Declaration, config: LoraConfig
) -> Iterable[str]:
    """The names that `targets` means."""
    pattern = re.compile(declaration.lora_pattern)
    language = [name for name in linears if pattern.fullmatch(name)]
    if config.targets == "auto":
        if not language:
            raise UserError(
                f"model.lora: no linear matches {declaration.lora_pattern} in this model"
            )
        return language
    head = model.get_output_embeddings()
    inner = [n for n in linears if head is None or model.get_submodule(n) is not head]
    if config.everywhere:
        return inner
    if isinstance(config.targets, str):
        matched = [name for name in inner if re.fullmatch(config.targets, name)]
        return matched or _ending(config.targets, language, inner)
    return itertools.chain.from_iterable(_ending(t, language, inner) for t in config.targets)


def _ending(target: str, language: Sequence[str], linears: Sequence[str]) -> list[str]:
    """The linears that end with a name: language layers' where they have any, else others."""
    for names in (language, linears):
        if found := [name for name in names if f".{name}".endswith(f".{target}")]:
            return found
    known = sorted({name.rpartition(".")[2] for name in language or linears})
    hint = f" (a list is written [{', '.join(target.split(','))}])" if "," in target else ""
    raise UserError(
        f"model.lora.targets: no linear '{target}'{hint}; language layers have: {', '.join(known)}"
    )


def fused_targets(model: nn.Module, declaration: Declaration, config: LoraConfig) -> list[str]:
    """Names of fused expert weights that get adapters: all that the family names, under `auto`."""
    if config.targets != "auto":
        return []
    names = [name for name, _ in model.named_parameters()]
    return [p for p in declaration.lora_parameters if any(name.endswith(p) for name in names)]


def _is_plain_linear(module: nn.Module) -> bool:
    """True for a linear, quantised or not, that is called as a module."""
    bypassed = nn.modules.linear.NonDynamicallyQuantizableLinear
    return isinstance(module, nn.Linear) and not isinstance(module, bypassed)


def quantisation(config: LoraConfig, declaration: Declaration, dtype: torch.dtype) -> Any:
    """Return transformers' setting for a quantised base (QLoRA); None for a base as it is.

    Towers and head stay as they are.
    """
    if config.quantize == "none":
        return None
    _require("bitsandbytes", "qlora")
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=config.quantize == "nf4",
        load_in_8bit=config.quantize == "int8",
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=[*declaration.towers, "lm_head"],
    )


def merge(model: Any, folder: Path) -> Any:
    """Add the adapters saved in `folder` to the weights of their base and return it."""
    return _import_peft().PeftModel.from_pretrained(model, str(folder)).merge_and_unload()


def merged_weights(model: nn.Module, gather: Gather | None) -> Buckets:
    """Yield the weights under the base model's names, in its shapes, adapters added."""
    from peft.tuners.lora import LoraLayer

    adapted: dict[str, Any] = {
        _base_name(f"{name}.{getattr(module, 'parameter_name', 'weight')}"): module
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer)
    }

    @torch.no_grad()
    def added(name: str, value: Tensor) -> Tensor:
        if name not in adapted:
            return value
        delta: Tensor = adapted[name].get_delta_weight("default")
        return value + delta.to(value.dtype)

    for base in base_weights(model, gather):
        bucket = {name: added(name, value) for name, value in base.items()}
        yield bucket
        bucket.clear()


def adapter_weights(model: nn.Module, gather: Gather | None) -> Buckets:
    """Yield `LINEAR.lora_A.weight` [r, in] and `LINEAR.lora_B.weight` [out, r] of every linear.

    The factor alpha / rank is in the second one: the delta is their plain product. They are small:
    there is one bucket.
    """
    from peft.tuners.lora import LoraLayer

    layers = {n: m for n, m in model.named_modules() if isinstance(m, LoraLayer)}
    with gather(adapter_parameters(model)) if gather else nullcontext():
        bucket: dict[str, Tensor] = {}
        for name, module in layers.items():
            first, second = (m["default"].weight.detach() for m in (module.lora_A, module.lora_B))
            bucket[f"{name}.lora_A.weight"] = first
            bucket[f"{name}.lora_B.weight"] = second * module.scaling["default"]
        yield bucket
        bucket.clear()


def adapter_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The parameters, of any shapes, that adapters brought."""
    return [parameter for name, parameter in model.named_parameters() if ".lora_" in name]


def base_weights(model: nn.Module, gather: Gather | None) -> Buckets:
    """Yield the weights under the base model's names, in its shapes, without adapters.

    A quantised base is unpacked on the way.
    """
    from peft.utils.integrations import dequantize_module_weight

    modules = dict(model.named_modules())

    def unpacked(full: str, value: Tensor) -> Tensor:
        module = modules[full.rpartition(".")[0]]
        if isinstance(module, nn.Linear) and not value.is_floating_point():
            value = dequantize_module_weight(module)
        return value

    for whole in weights_in_buckets(model, gather):
        bucket = {_base_name(n): unpacked(n, w) for n, w in whole.items() if ".lora_" not in n}
        yield bucket
        bucket.clear()


def _base_name(name: str) -> str:
    return name.replace(".base_layer", "")


def _import_peft() -> Any:
    _require("peft", "lora")
    # PEFT imports bitsandbytes where it is installed, which warns of kernels for quantised CPUs.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    import peft

    return peft


def _require(package: str, extra: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise UserError(f"model.lora needs {package}: pip install 'mmrl[{extra}]'")
