"""Prompts that go on from what was fed before: only what is new of them is fed.

    turn 1   [question]                            fed: the question; then the answer, token by
                                                   token, but its last one
    turn 2   [question][answer 1][shown 1]         fed: that token and what is shown after it
    turn 3   [question][answer 1][shown 1][answer 2][shown 2]
                                                   fed: the last token of answer 2, what is shown

So an episode of T turns costs one pass over what it is in the end, and not T passes over what it
was each time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from mmrl.policy.recurrent import Continuation, Memory, Mixer
from mmrl.policy.shared_prefix import Seeing, shown_by
from mmrl.policy.tiles import Run, Tiles
from mmrl.types import EncodedMedium, Prompt


@dataclass(frozen=True)
class Fed:
    """Tokens [N] that were fed one after the other, so many `media` among them.

    What a model has of them are keys [N, K, D] and values [N, K, V] by layer, and by recurrent
    layer what it remembers after the last one.
    """

    size: int
    media: int
    keys: dict[int, Tensor]
    values: dict[int, Tensor]
    memories: dict[int, Memory]


@dataclass(frozen=True, kw_only=True)
class Ongoing(Seeing):
    """The flat form of what is new in prompts [P], after the tokens `fed` of each.

    `ids` [N], `positions` [axes, N] and `media` are of the new tokens, `prompts` where those of
    each stand among them.
    """

    positions: Tensor
    media: tuple[EncodedMedium, ...]
    prompts: tuple[Run, ...]
    fed: tuple[Fed, ...]

    @property
    def before(self) -> int:
        """Tokens that were fed before."""
        return sum(fed.size for fed in self.fed)

    @property
    def pieces(self) -> list[tuple[Run, Run]]:
        """Where each prompt's tokens, old and new, stand among those old and then those new."""
        return list(zip(self._old, self._new, strict=True))

    def behind(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [M + N, K, D] of the old tokens and of the new ones, [N, K, D]."""
        keys = torch.cat([*(fed.keys[layer] for fed in self.fed), key])
        values = torch.cat([*(fed.values[layer] for fed in self.fed), value])
        return keys, values

    def attend(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scale: float,
        window: int | None,
    ) -> Tensor:
        """Let new tokens, query [N, H, D], see what is before them; keys are those of `behind`."""
        return self.plan(window).attend(query, key, value, scale)

    def recur(self, layer: int, mixer: Mixer, hidden: Tensor) -> tuple[Tensor, Memory]:
        """Run a recurrent layer on [1, N, H] from what it remembers; also what it does then."""
        memory = Memory.joined([fed.memories[layer] for fed in self.fed])
        return self._recurrence.run_on(mixer, hidden, memory)

    @cached_property
    def _recurrence(self) -> Continuation:
        owners = np.arange(len(self.prompts))
        return Continuation(self.prompts, owners, self.ids.device, alike=True)

    @cached_property
    def _old(self) -> list[Run]:
        stops = np.cumsum([0, *(fed.size for fed in self.fed)]).tolist()
        return [Run(start, stop) for start, stop in pairwise(stops)]

    @cached_property
    def _new(self) -> list[Run]:
        return [Run(self.before + run.start, self.before + run.stop) for run in self.prompts]

    def _tiles(self, window: int | None) -> Tiles:
        tiles = Tiles()
        for old, new in self.pieces:
            tiles.itself(new, window)
            tiles.behind(new, old, window)
        return tiles


def go_on(prompts: Sequence[Prompt], fed: Sequence[Fed], device: torch.device) -> Ongoing:
    """Lay out what is new in prompts, of each of which the first tokens and media were fed."""
    stops = np.cumsum([0, *(len(p.ids) - f.size for p, f in zip(prompts, fed, strict=True))])
    runs = tuple(Run(start, stop) for start, stop in pairwise(stops.tolist()))
    ends = list(zip(prompts, fed, strict=True))
    ids = np.concatenate([prompt.ids[old.size :] for prompt, old in ends])
    positions = np.concatenate([prompt.positions[:, old.size :] for prompt, old in ends], axis=1)
    asked = [
        (run, prompt.placed[old.media :], None if blocks is None else blocks[old.size :])
        for run, (prompt, old) in zip(runs, ends, strict=True)
        for blocks in (prompt.blocks,)
    ]
    shown = shown_by((), (), asked)
    return Ongoing(
        ids=torch.from_numpy(ids).to(device),
        positions=torch.from_numpy(positions).to(device),
        blocks=shown.blocks,
        blocks_slide_only=any(prompt.blocks_slide_only for prompt in prompts),
        media=shown.media,
        prompts=runs,
        fed=tuple(fed),
    )
