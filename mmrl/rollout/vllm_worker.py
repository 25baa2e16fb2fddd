"""What mmrl adds to vLLM's workers (`worker_extension_cls`): runs in vLLM's own processes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from safetensors import safe_open
from torch import Tensor
from vllm.model_executor.layers.vocab_parallel_embedding import (
    ParallelLMHead,
    VocabParallelEmbedding,
)

from mmrl.rollout.vllm_broadcast import receive


class TakesWeights:
    """Replaces the weights of a worker's model; `self` is the worker too."""

    def take_weights(self: Any, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Load weights that have the names of a checkpoint's files, tied heads included."""
        self.reload_weights(weights_iterator=weights)
        for head in tied_heads(self.get_model()):
            # Where a layer computes with a packed copy (CPUs), only a layer whose weight was in the
            # checkpoint is packed anew, and a tied head's is there under the embedding's name.
            head.quant_method.process_weights_after_loading(head)

    def take_pushed(self: Any, push: Mapping[str, Any]) -> None:
        """Load the weights that a trainer has pushed: see `mmrl.rollout.vllm_push`."""
        if "file" in push:
            self.take_weights(stored_weights(push["file"]))
        else:
            self.take_weights(receive(push, push["first_rank"] + self.rank))


def stored_weights(file: str) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a safetensors file by name, one read at a time."""
    with safe_open(file, "pt") as opened:
        for name in opened.keys():  # noqa: SIM118
            yield name, opened.get_tensor(name)


def tied_heads(model: Any) -> Iterator[Any]:
    """The LM heads whose weight is an embedding's."""
    tables = [m for m in model.modules() if isinstance(m, VocabParallelEmbedding)]
    embeddings = {id(m.weight) for m in tables if not isinstance(m, ParallelLMHead)}
    for module in tables:
        if isinstance(module, ParallelLMHead) and id(module.weight) in embeddings:
            yield module
