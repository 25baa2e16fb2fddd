"""A checkpoint's weights the way vLLM's class for the model reads them.

vLLM's classes follow the files of the first releases; transformers writes some otherwise by now.
What differs is found by looking at vLLM's own module, so nothing is written down about a model.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any

from torch import Tensor

EXPERTS = (".experts.gate_up_proj", ".experts.down_proj")


def as_read(model: Any, weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Yield weights under the names and in the layout that `model.load_weights` takes.

    Shapes are the files'; stacks of experts [E, in, out] come out as [E, out, in] where turned. A
    level that vLLM's class has and the files lack is put into the name; fused experts are
    turned where it says that its files hold them turned, which transformers' own never are.
    """
    mapper = getattr(model, "hf_to_vllm_mapper", None)
    turned = any(getattr(m, "is_fused_checkpoint_transposed", False) for m in model.modules())
    for name, weight in weights:
        fused = turned and name.endswith(EXPERTS)
        yield _with_levels(model, mapper, name), weight.transpose(1, 2) if fused else weight


def adapted_name(model: Any, name: str, known: Collection[str]) -> str:
    """vLLM's name of an adapter's tensor, whose module is then among the `known` names.

    A class renames what is inside it, and vLLM asks the outermost alone for an adapter's names.
    Where that is not enough, those further in are asked too (LFM2's convolutions). A module that
    is nowhere has the outermost's name.
    """
    found = list(_on_the_way_in(model, name))
    return next((name for name in found if name.rsplit(".", 2)[0] in known), found[0])


def _on_the_way_in(model: Any, name: str) -> Iterator[str]:
    """The name as the outermost class has it, then as that and the next one further in have it."""
    module, before, rest = model, "", name
    while module is not None:
        mapper = getattr(module, "hf_to_vllm_mapper", None)
        rest = rest if mapper is None else mapper.get_rename_mapper()._map_name(rest)
        yield before + rest
        part, _, rest = rest.partition(".")
        module, before = getattr(module, part, None), f"{before}{part}."


def _with_levels(model: Any, mapper: Any, name: str) -> str:
    """The name with a lone level in front of a part that is not there without it."""
    mapped = name if mapper is None else mapper._map_name(name)
    parts = (mapped or "").split(".")
    module = model
    for i, part in enumerate(parts[:-1]):
        if not hasattr(module, part):
            between = [child for child, inner in module.named_children() if hasattr(inner, part)]
            alone = len(between) == len(list(module.children())) == 1
            return ".".join([*parts[:i], *between, *parts[i:]]) if alone else name
        module = getattr(module, part)
    return name
