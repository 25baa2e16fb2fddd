"""A prompt's media as vLLM is told of them: tensors, and where their placeholders stand.

Needs nothing of vLLM, so that a trainer can talk to servers on other machines without it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from mmrl.engines.vllm.tensors import parts
from mmrl.errors import UserError
from mmrl.policy.encoder import whole
from mmrl.policy.family import Family
from mmrl.types import Bools, EncodedMedium, Ints, Prompt


@dataclass(frozen=True)
class PlacedMedium:
    """A medium in a prompt's expanded ids: `length` of them from `first`.

    `embedded` [length] says which of those get a feature row; None is all. `hash` names the
    tensors.
    """

    modality: str
    hash: str
    first: int
    length: int
    embedded: Bools | None
    tensors: Mapping[str, Tensor]


def placed_media(prompt: Prompt, family: Family) -> list[PlacedMedium]:
    """What vLLM takes as the media of a prompt, in the order of their placeholders.

    Raises UserError with the sample's id where placeholders and feature rows differ in number, and
    where the family makes one whole of a prompt's media, which vLLM takes one by one.
    """
    if prompt.placed and not family.declaration.model_types:
        raise UserError(
            f"sample '{prompt.sample.id}': the generic family processes the media of a prompt "
            "together, and vLLM takes them one by one: use rollout.engine=hf"
        )
    return [
        placed
        for medium, places in zip(prompt.placed, _places(prompt, family), strict=True)
        for placed in _placed(prompt.ids, whole(medium, family), places, family)
    ]


Positions = tuple[tuple[int, ...], ...]


def sent_positions(prompt: Prompt) -> Positions | None:
    """Rope positions [3, L] of a prompt with media, so that vLLM counts as the trainer does.

    None where it has to count by itself: without media it cannot count otherwise, and fractions
    (Qwen3-Omni's clips of other than whole steps) it cannot hold.
    """
    found = prompt.positions
    if len(found) == 1 or not prompt.media or found.dtype.kind != "i":
        return None
    return tuple(tuple(axis) for axis in found.tolist())


def _places(prompt: Prompt, family: Family) -> list[Ints]:
    """Indices of each medium's placeholders, in the order of the placeholders."""
    (found,) = np.isin(prompt.ids, family.placeholder_ids).nonzero()
    counts = [medium.num_tokens for medium in prompt.placed]
    if len(found) != sum(counts):
        raise UserError(
            f"sample '{prompt.sample.id}' has {len(found)} media placeholders for "
            f"{sum(counts)} feature rows: vLLM cannot take it"
        )
    return np.split(found, np.cumsum(counts)[:-1]) if counts else []


def _placed(
    ids: Ints, medium: EncodedMedium, places: Ints, family: Family
) -> Iterator[PlacedMedium]:
    """A medium's parts where each stands; whichever comes first has the first placeholder."""
    made = parts(medium, family.declaration.model_types[0], int(ids[places[0]]))
    kinds = list(dict.fromkeys(ids[places].tolist())) if len(made) > 1 else [None]
    for part, kind in zip(made, kinds, strict=True):
        own = places if kind is None else places[ids[places] == kind]
        name = f"{part.modality}-{medium.hash}"
        yield PlacedMedium(part.modality, name, *_range(ids, own, family), part.tensors)


def _range(ids: Ints, places: Ints, family: Family) -> tuple[int, int, Bools | None]:
    """First index, length, and which of the tokens in between get features; None is all.

    A medium that is interrupted by text (a video's dated frames) starts and ends with a marker:
    vLLM looks for those to number the positions.
    """
    first, last = int(places[0]), int(places[-1])
    if last - first + 1 == len(places):
        return first, len(places), None
    first -= int(ids[first - 1]) in family.banned_ids
    last += int(ids[last + 1]) in family.banned_ids
    return first, last - first + 1, np.isin(np.arange(first, last + 1), places)
