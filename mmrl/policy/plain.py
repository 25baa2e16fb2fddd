"""The path without sharing: a copy of the prompt and its media for every response.

For models that no family knows. Slower by about the group's size, and otherwise the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmrl.policy.family import Family
from mmrl.policy.head import HeadTap
from mmrl.policy.shared_prefix import SharedPrefix
from mmrl.policy.tiles import batches
from mmrl.types import Ints, Prompt


def hidden_rows(
    model: Any, family: Family, head: HeadTap, layout: SharedPrefix, prompts: Sequence[Prompt]
) -> Tensor:
    """Hidden states [M, H] that predict a layout's response tokens, in row order.

    A forward of the model takes one prompt's responses of like lengths, with the prompt and its
    media once for each.
    """
    pieces: dict[int, Tensor] = {}
    for number, prompt in enumerate(prompts):
        members = np.flatnonzero(layout.owner == number)
        start = len(prompt.ids)
        for batch in batches([start + layout.responses[i].size for i in members]):
            chosen = members[batch]
            hidden = _hidden(model, family, head, layout, prompt, chosen)
            for row, i in zip(hidden, chosen, strict=True):
                pieces[i] = row[start - 1 : start - 1 + layout.sizes[i]]
    return torch.cat([pieces[i] for i in sorted(pieces)])


def _hidden(
    model: Any,
    family: Family,
    head: HeadTap,
    layout: SharedPrefix,
    prompt: Prompt,
    members: Ints,
) -> Tensor:
    """Hidden states [B, T, H] of a prompt with some responses, padded to the right."""
    lengths = [len(prompt.ids) + layout.responses[i].size for i in members]
    ids = layout.ids.new_zeros(len(members), max(lengths))
    ids[:, : len(prompt.ids)] = torch.from_numpy(prompt.ids)
    for row, i in zip(ids, members, strict=True):
        run = layout.responses[i]
        row[len(prompt.ids) : len(prompt.ids) + run.size] = layout.ids[run.start : run.stop]
    place = torch.arange(ids.shape[1], device=ids.device)
    mask = place < torch.tensor(lengths, device=ids.device)[:, None]
    return head.take(
        model,
        input_ids=ids,
        attention_mask=mask.long(),
        use_cache=False,
        **family.token_inputs(ids),
        **media_inputs(prompt, len(members), model),
    )


def media_inputs(prompt: Prompt, copies: int, model: Any) -> dict[str, Tensor]:
    """The processor's tensors of a prompt's media, so many times one after the other.

    On the model's device, and in its dtype where they are no integers: not every model sees to it.
    """
    placed = prompt.placed
    keys = placed[0].tensors if placed else ()
    found = {key: torch.cat([m.tensors[key] for m in placed] * copies) for key in keys}
    return {
        key: value.to(model.device, model.dtype if value.is_floating_point() else value.dtype)
        for key, value in found.items()
    }
