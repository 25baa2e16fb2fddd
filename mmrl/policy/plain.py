"""The path without sharing: a copy of the prompt and its media for every response.

For models that no family knows. Slower by about the group's size, and otherwise the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmrl.policy.family import Family
from mmrl.policy.head import HeadTap
from mmrl.policy.shared_prefix import SharedPrefix
from mmrl.types import Prompt


def hidden_rows(
    model: Any, family: Family, head: HeadTap, layout: SharedPrefix, prompts: Sequence[Prompt]
) -> Tensor:
    """Hidden states [M, H] that predict a layout's response tokens, in row order.

    One forward of the model a prompt, with the prompt and its media once for each response.
    """
    pieces = []
    for number, prompt in enumerate(prompts):
        members = (layout.owner == number).nonzero()[:, 0]
        start, sizes = len(prompt.ids), layout.sizes[members].tolist()
        given = layout.ids[layout.prompts[number, :start]].expand(len(members), -1)
        answers = layout.ids[layout.responses[members]]
        width = max(max(sizes) - 1, 0)
        ids = torch.cat([given, answers[:, :width]], dim=1)
        place = torch.arange(ids.shape[1], device=ids.device)
        mask = place < start - 1 + layout.sizes[members][:, None]
        ids = ids.masked_fill(~mask, 0)
        taken = head.take(
            model,
            input_ids=ids,
            attention_mask=mask.long(),
            use_cache=False,
            **family.token_inputs(ids),
            **media_inputs(prompt, len(members), model),
        )
        pieces += [
            row[start - 1 : start - 1 + size] for row, size in zip(taken, sizes, strict=True)
        ]
    return torch.cat(pieces)


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
