"""What of the weights is pushed to servers: by one process, with the help of all that shard it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from mmrl.backend.world import World
from mmrl.errors import UserError
from mmrl.policy.buckets import Buckets, drain
from mmrl.policy.checkpoint_names import checkpoint_adapter, checkpoint_weights
from mmrl.policy.policy import Policy
from mmrl.policy.weights import Weights

T = TypeVar("T")


class Parts:
    """The weights of one push: "whole", or "base" and "adapter", under a checkpoint's names.

    Where weights are sharded, all processes go through the parts that the first one takes.
    """

    def __init__(self, policy: Policy, weights: Weights, world: World) -> None:
        self._policy, self.weights, self._world = policy, weights, world
        self._together = world.size > 1 and policy.gather is not None and not weights.kept
        self._taken: list[Buckets] | None = None

    def take(self, *names: str) -> list[Buckets]:
        """Choose what is pushed, once, in the order in which it is gone through."""
        assert self._taken is None, "the others are told once"
        if "base" in names and self.weights.kept and self._policy.gather is not None:
            raise UserError(
                "a vLLM server came back without the weights beneath the adapter, which are "
                "sharded while the run trains: resume it, or set rollout.servers.weights=file"
            )
        if self._together:
            self._world.gather(names)
        self._taken = [self._open(name) for name in names]
        model = self._policy.model
        return [
            (checkpoint_adapter if name == "adapter" else checkpoint_weights)(model, part)
            for name, part in zip(names, self._taken, strict=True)
        ]

    def given(self, push: Callable[[], T]) -> T:
        """On the first process: push, and whatever becomes of it, go through all that was taken."""
        try:
            return push()
        finally:
            if self._together:
                if self._taken is None:
                    self._world.gather(())
                for part in self._taken or ():
                    drain(part)

    def follow(self) -> None:
        """On the others: help to make whole what the first process pushes."""
        if self._together:
            names: tuple[str, ...] = self._world.gather(None)[0]  # type: ignore[assignment]
            for name in names:
                drain(self._open(name))

    def _open(self, name: str) -> Buckets:
        read = {
            "whole": self.weights.whole,
            "base": self._policy.base_weights,
            "adapter": self.weights.adapter,
        }
        return read[name]()
