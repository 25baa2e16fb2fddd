"""A prompt's media as vLLM is told of them: tensors, and where their placeholders stand.

Needs nothing of vLLM, so that a trainer can talk to servers on other machines without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property, partial

import numpy as np
from torch import Tensor

from mmrl.engines.vllm.tensors import Part, modalities, parts
from mmrl.errors import UserError
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


class Later(Mapping[str, Tensor]):
    """Tensors by name that are made when they are first looked at."""

    def __init__(self, make: Callable[[], Mapping[str, Tensor]]) -> None:
        self._make = make

    @cached_property
    def _made(self) -> Mapping[str, Tensor]:
        return self._make()

    def __getitem__(self, name: str) -> Tensor:
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._made)

    def __len__(self) -> int:
        return len(self._made)


Whole = Callable[[EncodedMedium], EncodedMedium]
"""Gives a medium its tensors, which it may have come without."""


def placed_media(prompt: Prompt, family: Family, whole: Whole) -> list[PlacedMedium]:
    """What vLLM takes as the media of a prompt, in the order of their placeholders.

    Tensors are made, by `whole`, of the media that are looked at and of no others.
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
        for placed in _placed(prompt.ids, medium, places, family, whole)
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
    ids: Ints, medium: EncodedMedium, places: Ints, family: Family, whole: Whole
) -> Iterator[PlacedMedium]:
    """A medium's parts where each stands; whichever comes first has the first placeholder."""
    model_type, kinds = family.declaration.model_types[0], list(dict.fromkeys(ids[places].tolist()))
    names = modalities(medium, model_type, len(kinds))

    @cache
    def made() -> list[Part]:
        found = parts(whole(medium), model_type, kinds[0])
        assert [part.modality for part in found] == names, "other parts than placeholders"
        return found

    def tensors_of(number: int) -> Mapping[str, Tensor]:
        return made()[number].tensors

    for number, name in enumerate(names):
        own = places if len(names) == 1 else places[ids[places] == kinds[number]]
        tensors = Later(partial(tensors_of, number))
        yield PlacedMedium(name, f"{name}-{medium.hash}", *_range(ids, own, family), tensors)


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
