"""The policy's weights on their way to an engine that has some of its own."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mmrl.policy.policy import Policy

Named = Iterable[tuple[str, Tensor]]


@dataclass(frozen=True)
class Weights:
    """What the policy had learnt after `version` steps.

    `whole` reads all weights under the names of the model without adapters, adapters added;
    `adapter` the adapter's tensors (`lora.adapter_weights`). Those of `weights_of` are read from
    the policy, which must be whole and stand still meanwhile; those of `copied` are kept.
    """

    version: int
    whole: Callable[[], Named]
    adapter: Callable[[], Named]

    def copied(self, *, adapter_only: bool) -> Weights:
        """The same in the host's memory, whatever becomes of the policy: all, or the adapter."""
        kept = _copies(self.adapter() if adapter_only else self.whole())
        if adapter_only:
            return Weights(self.version, _not_kept, kept.items)
        return Weights(self.version, kept.items, _not_kept)


def weights_of(policy: Policy, version: int) -> Weights:
    """The policy's present weights, which it has after `version` steps."""
    return Weights(version, policy.weights, policy.adapter_weights)


def _copies(named: Named) -> dict[str, Tensor]:
    """Copies on the CPU; what is tied stays so.

    Two names of one tensor have its address. So may two tensors that did not live at the same
    time: an adapted weight is made for this and gone when the next one is.
    """
    copies: dict[tuple[Any, ...], tuple[weakref.ref[Tensor], Tensor]] = {}
    found: dict[str, Tensor] = {}
    for name, value in named:
        key = (value.data_ptr(), value.shape, value.stride(), value.dtype)
        if key not in copies or copies[key][0]() is None:
            copies[key] = weakref.ref(value), value.detach().to("cpu", copy=True)
        found[name] = copies[key][1]
    return found


def _not_kept() -> Named:
    raise AssertionError("the engine was given a copy of what it does not take")
