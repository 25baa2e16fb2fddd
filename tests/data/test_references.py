"""Parts of observations as JSON: what an environment shows arrives as it was given."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mmrl.algorithms.stages.observed import observed_of, observed_values
from mmrl.corpus.references import part_of, part_values
from mmrl.frame import Frame
from mmrl.scoring.observations import observation_of, observation_values
from mmrl.types import EncodedMedium, MediaRef, Observation, Observed, Part, Text

PNG = bytes(range(256))
PARTS: list[Part] = [
    Text("caf\u00e9 <|im_end|>"),
    MediaRef("screenshot", PNG, {"pixel_ratio": 2.0}),
    MediaRef("image", Path("a/b.png")),
    MediaRef("image", "https://a.b/c.png", {"allow_remote": True}),
    MediaRef("video", (PNG, b"", PNG[::-1]), {"fps": 2}),
]


@pytest.mark.parametrize("part", PARTS)
def test_a_part_arrives_as_it_was(part: Part) -> None:
    assert part_of(json.loads(json.dumps(part_values(part)))) == part


def test_an_observation_arrives_as_it_was() -> None:
    told = Observation({"at": [1, 2]}, "k", "", 0.5, 0.25, True, tuple(PARTS), "tool")
    assert observation_of(json.loads(json.dumps(observation_values(told)))) == told


def test_what_is_no_part_is_an_error() -> None:
    with pytest.raises(TypeError, match="a part is a Text or a MediaRef"):
        observation_values(Observation(0, "", parts=("words",)))  # type: ignore[arg-type]


@pytest.mark.parametrize("positions", [np.arange(6).reshape(3, 2), np.array([[0.5, 1.25]])])
def test_media_of_later_turns_are_kept_whole(positions: np.ndarray) -> None:
    frame = Frame((9, 8), (7, 6), (0.0, 1.0, 2.0, 3.0), pixel_ratio=2.0)
    source = MediaRef("screenshot", PNG, {"pixel_ratio": 2.0})
    medium = EncodedMedium("screenshot", "h", {}, 4, frame, "<pad>", source)
    for blocks in (None, np.array([0, 3])):
        observed = Observed(positions, blocks, (medium,), (1,))
        again = observed_of(json.loads(json.dumps(observed_values(observed))))
        assert again is not None and (again.media, again.turns) == ((medium,), (1,))
        assert again.positions.dtype == positions.dtype
        assert np.array_equal(again.positions, positions)
        assert (again.blocks is None) == (blocks is None)
        assert blocks is None or np.array_equal(again.blocks, blocks)
