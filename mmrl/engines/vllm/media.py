"""A prompt's media as vLLM is told of them: tensors, and where their placeholders stand.

Needs nothing of vLLM, so that a trainer can talk to servers on other machines without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from mmrl.errors import UserError
from mmrl.policy.encoder import whole
from mmrl.policy.family import Family
from mmrl.types import Bools, EncodedMedium, Ints, Prompt

MODALITIES = {"image": "image", "screenshot": "image", "video": "video", "audio": "audio"}


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
    """The media of a prompt in the order of their placeholders.

    Raises UserError with the sample's id where placeholders and feature rows differ in number.
    """
    return [
        _placed(prompt.ids, whole(medium, family), places, family)
        for medium, places in zip(prompt.placed, _places(prompt, family), strict=True)
    ]


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


def _placed(ids: Ints, medium: EncodedMedium, places: Ints, family: Family) -> PlacedMedium:
    """Where a medium stands; text between its placeholders gets no features.

    A medium that is interrupted by text (a video's dated frames) starts and ends with a marker:
    vLLM looks for those to number the positions.
    """
    modality = MODALITIES[medium.kind]
    name = f"{modality}-{medium.hash}"
    first, last = int(places[0]), int(places[-1])
    if last - first + 1 == len(places):
        return PlacedMedium(modality, name, first, len(places), None, medium.tensors)
    first -= int(ids[first - 1]) in family.banned_ids
    last += int(ids[last + 1]) in family.banned_ids
    embedded = np.isin(np.arange(first, last + 1), places)
    return PlacedMedium(modality, name, first, last - first + 1, embedded, medium.tensors)
