"""Processes with other media than each other's call every module equally often (ZeRO-3 gathers)."""

from __future__ import annotations

from collections import Counter
from functools import partial

import pytest
import torch

from mmrl.backend.agreement import Agreement
from mmrl.backend.world import World
from mmrl.policy.policy import Policy
from mmrl.types import Media
from tests.beside import both
from tests.families.cases import clip, make, picture, policy, tone
from tests.families.tiny import TINY


def few(kind: str) -> list[Media]:
    return [make(kind, 0)]


def many(kind: str) -> list[Media]:
    """Three of other sizes and lengths; a picture of several tiles among them."""
    if kind == "image":
        return [picture(1), picture(2, 56, 56), picture(3, 300, 90)]
    if kind == "audio":
        return [tone(1, 0.5), tone(2, 2.0), tone(3, 1.1)]
    sound = kind == "sounding clip"
    return [clip(1, 2, sound), clip(2, 7, sound), clip(3, 4, sound)]


def calls(made: Policy, shown: list[Media], world: World) -> Counter[str]:
    """How often each module that has weights of its own is called for these media."""
    found: Counter[str] = Counter()
    for name, module in made.model.named_modules():
        if next(module.parameters(recurse=False), None) is not None:
            module.register_forward_pre_hook(
                partial(lambda name, module, args, kwargs: found.update([name]), name),
                with_kwargs=True,
            )
    encoded = [made.family.encode_medium(medium) for medium in shown]
    with torch.no_grad():
        made.store.features(encoded, Agreement(world))
    return found


@pytest.mark.parametrize("name", TINY)
def test_towers_are_called_alike_in_every_process(name: str) -> None:
    kinds = TINY[name].kinds
    own: list[list[Media]] = [
        [medium for kind in kinds for medium in many(kind)],
        few(kinds[0]),
    ]
    models = [policy(name), policy(name)]
    first, other = both(lambda world: calls(models[world.rank], own[world.rank], world))
    assert first == other and first
