"""What a run measures of a group's answers for comparisons, as records a group carries (`own`).

Log-probs are those of the step's start, in nats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from mmrl.stage import Need, needed
from mmrl.types import Floats, Group

T = TypeVar("T")


@dataclass(frozen=True)
class Collision:
    """log sum p^2 of what the policy would sample at every token [T] of every answer [G]."""

    values: Sequence[Floats]


@dataclass(frozen=True)
class Implied:
    """log(policy / reference) of every answer [G]."""

    values: Floats


@dataclass(frozen=True)
class Mismatched:
    """log(policy / reference) of another prompt's answer under the group's prompt."""

    value: float


@dataclass(frozen=True)
class Aided:
    """The policy's log-prob of every answer [G] where the prompt ends with the algorithm's aid."""

    values: Floats


def seen(group: Group, kind: type[T], need: Need) -> T:
    """The record of a kind that a group carries; raises UserError where it was not measured."""
    return needed(group.extra.of(kind), need)
