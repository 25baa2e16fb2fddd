"""Processes with other media than each other's call every module equally often (ZeRO-3 gathers)."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch

from mmrl.backend.agreement import Agreement
from mmrl.backend.world import World
from mmrl.policy.policy import Policy
from mmrl.types import Media
from tests.families.cases import clip, make, picture, policy, tone
from tests.families.tiny import TINY


@dataclass(frozen=True)
class Threads(World):
    """A process of two whose other is a thread of this one."""

    meeting: Any = None
    said: Any = None

    def gather(self, value: Any) -> list[Any]:
        """The values of both, once both are there."""
        self.meeting.wait()
        self.said[self.rank] = value
        self.meeting.wait()
        return list(self.said)


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
    meeting, said = threading.Barrier(2, timeout=600), [None, None]
    worlds = [Threads(rank, 2, meeting=meeting, said=said) for rank in (0, 1)]
    with ThreadPoolExecutor(2) as pool:
        first, other = pool.map(calls, [policy(name), policy(name)], own, worlds)
    assert first == other and first
