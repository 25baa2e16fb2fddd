"""What mmrl adds to vLLM's workers (`worker_extension_cls`): runs in vLLM's own processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from vllm.lora.lora_model import LoRAModel
from vllm.lora.peft_helper import PEFTHelper
from vllm.model_executor.layers.vocab_parallel_embedding import (
    ParallelLMHead,
    VocabParallelEmbedding,
)

from mmrl.engines.vllm.broadcast import joined
from mmrl.engines.vllm.inputs import ADAPTER_ID
from mmrl.engines.vllm.sampling import POSITIONS
from mmrl.engines.vllm.server.discarded_samples import give_back_discarded
from mmrl.engines.vllm.server.weight_files import stored_weights
from mmrl.engines.vllm.server.weight_names import adapted_name, as_read
from mmrl.engines.vllm.thinker import named


class TakesWeights:
    """Replaces the weights of a worker's model; `self` is the worker too."""

    def take_weights(self: Any, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Load weights that have the names and shapes of a checkpoint's files, tied heads included.

        An adapter is dropped: it stood on other weights.
        """
        use_sent_positions(self.model_runner)
        give_back_discarded(self.model_runner)
        model = self.get_model()
        whole = named(self.model_config.hf_config, weights)
        self.reload_weights(weights_iterator=as_read(model, whole))
        for head in tied_heads(model):
            # Where a layer computes with a packed copy (CPUs), only a layer whose weight was in the
            # checkpoint is packed anew, and a tied head's is there under the embedding's name.
            head.quant_method.process_weights_after_loading(head)

    def take_adapter(self: Any, tensors: Mapping[str, Tensor]) -> None:
        """Put an adapter in the place of the one before; the base keeps its weights.

        `tensors` are those of `checkpoint_adapter`, [rank, in] and [out, rank]. Raises
        ValueError where the model has no layer for one of them.
        """
        manager, model = self.model_runner.lora_manager, self.get_model()
        layers = manager._adapter_manager
        known = modules_and_parts(layers)
        rank = max(len(t) for name, t in tensors.items() if name.endswith(".lora_A.weight"))
        adapter = LoRAModel.from_lora_tensors(
            ADAPTER_ID,
            # vLLM keeps what it is given, and a trainer in this process goes on to change it.
            {adapted_name(model, name, known): tensor.clone() for name, tensor in tensors.items()},
            PEFTHelper(r=rank, lora_alpha=rank, target_modules=[]),
            device="cpu",
            dtype=manager.lora_config.lora_dtype,
        )
        _all_have_layers(adapter.loras, known)
        layers.remove_adapter(ADAPTER_ID)
        layers.add_adapter(adapter)
        layers.activate_adapter(ADAPTER_ID)

    def take_pushed(self: Any, push: Mapping[str, Any]) -> None:
        """Load what a trainer has pushed, weights or an adapter or both: see `vllm_push`."""
        if "host" in push:
            with joined(push, push["first_rank"] + self.rank) as exchange:
                if push["weights"]:
                    self.take_weights(exchange.receive())
                adapter = dict(exchange.receive()) if push["adapter"] else {}
        else:
            if push["folder"]:
                self.take_weights(stored_weights(push["folder"]))
            adapter = dict(stored_weights(push["adapter"])) if push["adapter"] else {}
        if adapter:
            self.take_adapter(adapter)


def use_sent_positions(runner: Any) -> None:
    """Let prompts have the rope positions that came with them; the runner counts the others'.

    vLLM's own counts differ from the models' where a clip has its sound (Qwen2.5-Omni's two
    markers), and pair sounds with clips by their order alone.
    """
    own = runner._init_mrope_positions
    if isinstance(own, _SentPositions):
        return
    runner._init_mrope_positions = _SentPositions(own)


class _SentPositions:
    def __init__(self, own: Callable[[Any], None]) -> None:
        self._own = own

    def __call__(self, request: Any) -> None:
        sent = (request.sampling_params.extra_args or {}).get(POSITIONS)
        if sent is None:
            self._own(request)
            return
        request.mrope_positions = torch.tensor(sent)
        request.mrope_position_delta = max(map(max, sent)) + 1 - len(sent[0])


def modules_and_parts(layers: Any) -> frozenset[str]:
    """Names of what vLLM's adapter manager adapts, and of the linears that each of it packs."""
    parts = {
        f"{name.rpartition('.')[0]}.{part}"
        for name in layers.modules
        for part in layers.packed_modules_mapping.get(name.rpartition(".")[2], ())
    }
    return frozenset(parts.union(layers.modules))


def _all_have_layers(adapted: Iterable[str], known: frozenset[str]) -> None:
    """vLLM passes over an adapter's modules that it has no layer for, without a word."""
    lost = sorted(set(adapted) - known)
    if lost:
        raise ValueError(
            f"vLLM has no layer for the adapter of {lost[0]}: set rollout.adapter_sync=merged"
        )


def tied_heads(model: Any) -> Iterator[Any]:
    """The LM heads whose weight is an embedding's."""
    tables = [m for m in model.modules() if isinstance(m, VocabParallelEmbedding)]
    embeddings = [m.weight for m in tables if not isinstance(m, ParallelLMHead)]
    for module in tables:
        if isinstance(module, ParallelLMHead) and any(module.weight is w for w in embeddings):
            yield module
