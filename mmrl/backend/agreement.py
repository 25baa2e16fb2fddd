"""What the processes of a sharded run agree on before every pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from mmrl.backend.world import World

T = TypeVar("T")


@dataclass(frozen=True)
class Agreement:
    """`policy.lockstep.Lockstep` over the processes of a world."""

    world: World

    def calls(self, own: Sequence[str]) -> list[str]:
        """The calls of towers that any process is about to make, sorted."""
        return sorted(set().union(*self.world.gather(set(own))))

    def most(self, own: int) -> int:
        """The largest number that any process has."""
        return max(self.world.gather(own))


def passes(items: Sequence[T], agreement: Agreement | None) -> Iterator[tuple[T | None, bool]]:
    """Each item and whether it is the last; None for a pass that is only made to keep in step."""
    count = len(items) if agreement is None else agreement.most(len(items))
    for index in range(count):
        yield items[index] if index < len(items) else None, index == count - 1
