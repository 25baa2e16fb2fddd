"""One attention function for the language layers, registered through transformers' interface.

A model gives an unregistered mask name no mask, so who sees whom is decided here, by the layout
that is active: shared-prefix rows in training, a prefill, or a decoding step. A layout travels
beside the model's own arguments because no model passes it on; it must stay active until the
backward pass is done, since gradient checkpointing runs the layers again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from torch import Tensor, nn
from transformers import AttentionInterface

from mmrl.errors import UserError
from mmrl.policy.recurrent import Mixer

NAME = "mmrl_shared_prefix"


class Layout(Protocol):
    """Who sees whom among the flat tokens of one forward pass."""

    def attend(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scale: float,
        window: int | None = None,
    ) -> Tensor:
        """Attend; query [N, H, D], key and value [N, K, D] -> [N, H, D].

        With a `window`, a token sees only the last `window` tokens before and with itself.
        """
        ...

    def recur(self, layer: int, mixer: Mixer, hidden: Tensor) -> Tensor:
        """Run a recurrent layer on flat tokens [1, N, H], each after what comes before it."""
        ...


_active: list[Layout] = []
# A plain list, not thread-local: on CUDA the backward pass, and with it the recomputation under
# gradient checkpointing, runs in autograd's own thread.
_apart = threading.local()


def stand_apart() -> None:
    """Give this thread layouts of its own, beside those of the thread that trains."""
    _apart.active = []


def stands_apart() -> bool:
    """True in a thread that works beside the one that trains."""
    return hasattr(_apart, "active")


def _layouts() -> list[Layout]:
    own: list[Layout] = getattr(_apart, "active", _active)
    return own


def current() -> Layout | None:
    """The layout that is active here; None outside of any."""
    layouts = _layouts()
    return layouts[-1] if layouts else None


@contextmanager
def active_layout(layout: Layout) -> Iterator[None]:
    """Make `layout` decide visibility in every language layer until the block ends."""
    layouts = _layouts()
    layouts.append(layout)
    try:
        yield
    finally:
        popped = layouts.pop()
        assert popped is layout, "layouts must nest"


Asking = Callable[..., Tensor]
"""Called with a layout's `attend` or `recur` and its arguments, in place of it."""

_this_thread = threading.local()


@contextmanager
def asking(ask: Asking) -> Iterator[None]:
    """Let `ask` call the layouts of this thread's models meanwhile."""
    _this_thread.ask = ask
    try:
        yield
    finally:
        del _this_thread.ask


def ask(layout: Callable[..., Tensor], *args: Any) -> Tensor:
    """Call a layout's `attend` or `recur`, [...] being what it gives."""
    called: Asking | None = getattr(_this_thread, "ask", None)
    return layout(*args) if called is None else called(layout, *args)


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention in transformers' calling convention: query [1, H, N, D] -> output [1, N, H, D]."""
    layout = current()
    assert layout is not None, f"{NAME} attention needs an active layout"
    assert query.shape[0] == 1, "shared-prefix rows are flat: batch size 1"
    _refuse_unknown(module, kwargs)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    flat_query, flat_key, flat_value = (x[0].transpose(0, 1) for x in (query, key, value))
    layer = module.layer_idx
    assert isinstance(layer, int)
    args = layer, flat_query, flat_key, flat_value, scale, sliding_window
    out = ask(layout.attend, *args)
    return out.unsqueeze(0), None


WITHOUT_EFFECT = {
    "dropout",  # the attention modules stay in evaluation
    "position_ids",  # queries and keys are rotated already
    "logits_to_keep",
    "output_attentions",
    "output_router_logits",
    "use_cache",
}
"""What layers hand on that no attention weight depends on."""


def _refuse_unknown(module: nn.Module, kwargs: Mapping[str, Any]) -> None:
    """Raise UserError where attention depends on more than layouts know of: caps, sinks, biases."""
    given = {name for name, value in kwargs.items() if value is not None and value is not False}
    unknown = sorted(given - WITHOUT_EFFECT)
    if unknown:
        raise UserError(
            f"{type(module).__name__} attends with {', '.join(unknown)}, which rows with a shared "
            "prompt do not: set model.family=generic"
        )


AttentionInterface.register(NAME, attention)
