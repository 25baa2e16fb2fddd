"""The policy's weights on their way to an engine that has some of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmrl.policy.buckets import Bucket, Buckets
from mmrl.policy.policy import Policy


@dataclass(frozen=True)
class Weights:
    """What the policy had learnt after `version` steps.

    `whole` reads all weights under the names of the model without adapters, adapters added;
    `adapter` the adapter's tensors (`lora.adapter_weights`). Those of `weights_of` are read from
    the policy, which must stand still meanwhile; those of `copied` are `kept`. `device` is theirs.
    """

    version: int
    whole: Callable[[], Buckets]
    adapter: Callable[[], Buckets]
    device: torch.device
    kept: bool = False

    def copied(self, *, adapter_only: bool) -> Weights:
        """The same in the host's memory, whatever becomes of the policy: all, or the adapter."""
        copies = [_copies(bucket) for bucket in (self.adapter() if adapter_only else self.whole())]

        def read() -> Buckets:
            return (dict(bucket) for bucket in copies)

        whole, adapter = (_not_kept, read) if adapter_only else (read, _not_kept)
        return Weights(self.version, whole, adapter, torch.device("cpu"), kept=True)


def weights_of(policy: Policy, version: int) -> Weights:
    """The policy's present weights, which it has after `version` steps."""
    return Weights(version, policy.weights, policy.adapter_weights, policy.device)


def _copies(bucket: Bucket) -> Bucket:
    """Copies on the CPU; what is tied, which is in one bucket, stays so."""
    copies: dict[tuple[Any, ...], Tensor] = {}
    found: Bucket = {}
    for name, value in bucket.items():
        key = (value.data_ptr(), value.shape, value.stride(), value.dtype)
        if key not in copies:
            copies[key] = value.detach().to("cpu", copy=True)
        found[name] = copies[key]
    return found


def _not_kept() -> Buckets:
    raise AssertionError("the engine was given a copy of what it does not take")
