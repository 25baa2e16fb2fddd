"""The path without sharing: a copy of the prompt and its media for every response.

For models that no family knows. Slower by about the group's size, and otherwise the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig

from mmrl.policy.family import Family
from mmrl.policy.head import HeadTap
from mmrl.policy.shared_prefix import SharedPrefix
from mmrl.policy.tiles import batches
from mmrl.types import Ints, Prompt


def hidden_rows(
    model: Any, family: Family, head: HeadTap, layout: SharedPrefix, prompts: Sequence[Prompt]
) -> Tensor:
    """Hidden states [W, H] that predict the tokens that the model wrote, in row order.

    A forward of the model takes one prompt's responses of like lengths, with the prompt and its
    media once for each.
    """
    pieces: dict[int, Tensor] = {}
    for number, prompt in enumerate(prompts):
        members = np.flatnonzero(layout.owner == number)
        start = len(family.reading.front(prompt.ids))
        lengths = [start + layout.responses[i].size for i in members]
        alone = [[i] for i in range(len(members))]
        for batch in alone if family.one_by_one else batches(lengths):
            chosen = members[batch]
            hidden = _hidden(model, family, head, layout, prompt, chosen)
            for row, i in zip(hidden, chosen, strict=True):
                pieces[i] = row[start - 1 : start - 1 + layout.sizes[i]]
    whole = torch.cat([pieces[i] for i in sorted(pieces)])
    return whole if layout.written is None else whole[layout.written]


def _hidden(
    model: Any,
    family: Family,
    head: HeadTap,
    layout: SharedPrefix,
    prompt: Prompt,
    members: Ints,
) -> Tensor:
    """Hidden states [B, T, H] of a prompt with some responses, padded to the right."""
    front = family.reading.front(prompt.ids)
    lengths = [len(front) + layout.responses[i].size for i in members]
    ids = layout.ids.new_zeros(len(members), max(lengths))
    ids[:, : len(front)] = torch.from_numpy(front)
    for row, i in zip(ids, members, strict=True):
        run = layout.responses[i]
        row[len(front) : len(front) + run.size] = layout.ids[run.start : run.stop]
    place = torch.arange(ids.shape[1], device=ids.device)
    mask = place < torch.tensor(lengths, device=ids.device)[:, None]
    hidden = head.take(model, use_cache=False, **inputs(family, prompt, ids, mask.long()))
    return hidden[:, hidden.shape[1] - ids.shape[1] :]  # some put pictures in front


def inputs(family: Family, prompt: Prompt, ids: Tensor, mask: Tensor) -> dict[str, Any]:
    """Arguments of the model's own forward or `generate` for rows behind what `front` says.

    ids [B, T] start with it, mask [B, T] is 1 for those that are no padding on the right.
    """
    reading = family.reading
    if reading.encoded:
        read = torch.from_numpy(prompt.ids).to(ids.device).expand(len(ids), -1)
        encoder = {"input_ids": read, "attention_mask": torch.ones_like(read)}
        return {**encoder, reading.name: ids, **family.plain_inputs(read, prompt)}
    masked = {"attention_mask": mask} if reading.start is None else {}
    return {reading.name: ids, **masked, **family.plain_inputs(ids, prompt)}


@contextmanager
def own_distribution(model: Any, start: int | None) -> Iterator[None]:
    """Let `generate` draw from the model's distribution: penalties of its checkpoint are not ours.

    What a checkpoint sets fills in for whatever a call leaves open, so it is put away meanwhile.
    `start` is what a decoder behind an encoder starts with.
    """
    settings = model.generation_config
    model.generation_config = GenerationConfig(
        pad_token_id=settings.pad_token_id, decoder_start_token_id=start
    )
    try:
        yield
    finally:
        model.generation_config = settings
