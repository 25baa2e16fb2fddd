"""A processor counts by shape: what doctor takes for a medium's tokens is what it has."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from mmrl.doctor.shapes import OncePerShape
from mmrl.types import EncodedMedium, Media
from tests.families import tiny
from tests.families.cases import Case, ask, clip, make, picture, policy

CASES = [(name, kind) for name in tiny.TINY for kind in tiny.TINY[name].kinds]


def other(media: Media, seed: int) -> Media:
    """Another medium of the same shape and times: of noise, darker with every seed."""
    rng = np.random.default_rng(seed)
    array = rng.uniform(size=media.array.shape) * (256 / (1 + seed))
    made = array.astype(np.uint8) if media.array.dtype == np.uint8 else array / 256
    return dataclasses.replace(media, array=made.astype(media.array.dtype), hash=f"other {seed}")


@pytest.mark.parametrize(("name", "kind"), CASES, ids=[f"{n}-{k}" for n, k in CASES])
def test_a_third_medium_of_a_shape_has_the_tokens_the_processor_gives_it(
    name: str, kind: str
) -> None:
    made, first = policy(name), make(kind, 1)
    once = OncePerShape(made.family.encode_medium)
    for seed in (0, 1):
        once(other(first, seed))
    asked = Case((other(first, 2), "and", other(first, 3), "differ?"))
    wanted = ask(made, asked)
    got = made.family.encode(asked.sample, [once(media) for media in asked.media])
    assert np.array_equal(got.ids, wanted.ids)
    assert np.array_equal(got.positions, wanted.positions)
    assert [m.hash for m in got.media] == [m.hash for m in wanted.media]
    assert got.frames == wanted.frames and got.next_position == wanted.next_position


class Counting:
    """A processor whose tokens are those of the shape, or how bright the medium is."""

    def __init__(self, by_content: bool = False) -> None:
        self.asked = 0
        self._by_content = by_content

    def __call__(self, media: Media) -> EncodedMedium:
        self.asked += 1
        tokens = int(media.array.mean()) if self._by_content else media.array.size
        pixels = torch.ones(media.array.shape)
        return EncodedMedium(media.kind, media.hash, {"pixels": pixels}, tokens, media.frame)


def test_a_shape_is_processed_twice_and_takes_no_memory() -> None:
    processor = Counting()
    once = OncePerShape(processor)
    made = [once(picture(seed)) for seed in range(20)]
    assert processor.asked == 2
    assert {m.num_tokens for m in made} == {112 * 84 * 3} and len({m.hash for m in made}) == 20
    assert all(m.tensors["pixels"].untyped_storage().nbytes() == 4 for m in made)
    assert made[0].tensors["pixels"].shape == (84, 112, 3)
    once(picture(0, 84, 112)), once(clip(0)), once(clip(0, 6))
    assert processor.asked == 5, "other sizes, kinds and times are other shapes"


def test_what_depends_on_content_is_processed_each_time() -> None:
    processor = Counting(by_content=True)
    once = OncePerShape(processor)
    asked = [other(picture(0), seed) for seed in range(6)]
    assert [once(m).num_tokens for m in asked] == [int(m.array.mean()) for m in asked]
    assert processor.asked == 6
