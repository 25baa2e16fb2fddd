"""Prompts that a rollout ran for the update right after it, graph and all.

On-policy, a rollout's prefill is the same computation as the update's pass over the prompts. Where
it is kept, responses are decoded from its keys, and the update adds the responses and the way back.
The price is memory: the graphs of all kept prompts live through the rollout.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from mmrl.policy.prompts import Prompts


@dataclass
class Kept:
    """What was kept, by the prompts' content; at most `room` trunk tokens of it.

    It holds as long as the weights stay as they are: whoever moves them clears it.
    """

    room: int = 0
    _ran: list[Prompts] = field(default_factory=list)
    _places: dict[Hashable, tuple[Prompts, int]] = field(default_factory=dict)

    @property
    def left(self) -> int:
        """Tokens that there is room for."""
        return self.room - sum(ran.num_tokens for ran in self._ran)

    def add(self, contents: Sequence[Hashable], ran: Prompts) -> None:
        """Keep prompts that ran together."""
        self._ran.append(ran)
        for number, content in enumerate(contents):
            self._places.setdefault(content, (ran, number))

    def find(self, content: Hashable) -> tuple[Prompts, int] | None:
        """The prompts among which there is one of this content, and its number."""
        return self._places.get(content)

    def clear(self) -> None:
        """Let go of everything."""
        self._ran.clear()
        self._places.clear()
