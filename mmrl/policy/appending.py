"""Tokens at a prompt's end: what the model said there, and what was observed after it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mmrl.policy.family import EnvironmentTokens
from mmrl.types import Ints, Prompt


def continued(prompt: Prompt, ids: Ints) -> Prompt:
    """The prompt with more tokens [T] at its end, placed as a response to it would be."""
    axes = len(prompt.positions)
    places = np.broadcast_to(prompt.next_position + np.arange(len(ids)), (axes, len(ids)))
    return joined(prompt, EnvironmentTokens(ids, places))


def joined(prompt: Prompt, turn: EnvironmentTokens) -> Prompt:
    """The prompt with an environment's tokens and media at its end, blocks numbered on."""
    blocks = prompt.blocks
    if blocks is not None or turn.blocks is not None:
        before = np.zeros(len(prompt.ids), int) if blocks is None else blocks
        more = np.zeros(len(turn.ids), int) if turn.blocks is None else turn.blocks
        blocks = np.concatenate([before, np.where(more, more + before.max(initial=0), 0)])
    order, media = prompt.order, len(prompt.media)
    return replace(
        prompt,
        compact_ids=(*prompt.compact_ids, *turn.ids.tolist()),
        ids=np.concatenate([prompt.ids, turn.ids]),
        positions=np.concatenate([prompt.positions, turn.positions], axis=1),
        next_position=(turn.positions.max() + 1).item() if len(turn.ids) else prompt.next_position,
        blocks=blocks,
        media=(*prompt.media, *turn.media),
        order=None if order is None else (*order, *range(media, media + len(turn.media))),
    )
