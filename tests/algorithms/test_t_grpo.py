"""T-GRPO: who is asked twice, when the order of frames pays, and that only it is trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mmrl.algorithms.t_grpo import AlsoShuffled, OrderPays, Params, build
from mmrl.modalities import video
from mmrl.types import Group, MediaRef, Sample, Text
from tests.algorithms.cases import context, group


def asked(kind: str) -> Sample:
    return Sample("1", "t", (MediaRef(kind, Path("x")), Text("Why?")), None)  # type: ignore[arg-type]


def test_questions_about_videos_are_asked_twice() -> None:
    plain, shuffled = AlsoShuffled()(asked("video"), context())
    assert plain == asked("video") and shuffled.variant == "shuffled"
    (ref, text) = shuffled.parts
    assert isinstance(ref, MediaRef) and "shuffle" in ref.options and text == Text("Why?")
    later = AlsoShuffled()(asked("video"), context(step=2))[1]
    assert later.parts != shuffled.parts, "another order in another step"
    assert AlsoShuffled()(asked("image"), context()) == (asked("image"),)


def both(ordered: list[float | None], shuffled: list[float | None]) -> list[Group]:
    return [group(ordered), group(shuffled, variant="shuffled")]


@pytest.mark.parametrize(
    ("ordered", "shuffled", "paid"),
    [
        ([1.0, 1.0, 0.0, 0.0], [1.0, 0.0], True),  # 0.5 >= 0.8 x 0.5
        ([1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0, 0.0], True),  # 0.5 >= 0.8 x 0.6
        ([1.0, 0.0, 0.0, 0.0], [1.0, 0.0], False),  # 0.25 < 0.4
        ([1.0, 0.0, 0.0, 0.0], [0.0, 0.0], True),
        ([1.0, 0.0, None, None], [1.0, 0.0], True),  # the unscorable do not count
    ],
)
def test_order_pays_where_it_has_not_hurt(
    ordered: list[float | None], shuffled: list[float | None], paid: bool
) -> None:
    first, second = OrderPays(0.3, 0.8, 0.1)(both(ordered, shuffled), context())
    bonus = 0.3 if paid else 0.0
    expected = [np.nan if r is None else r + bonus * (r > 0.1) for r in ordered]
    np.testing.assert_allclose(first.rewards, expected)
    assert second.rewards.tolist() == shuffled, "what is out of order earns as it did"


def test_only_what_was_asked_in_order_is_trained() -> None:
    algorithm = build(Params(group_size=4, shuffled=2))
    groups = both([1.0, 0.0, 0.0, 0.0], [0.0, 0.0])
    assert algorithm.plan([g.prompt for g in groups], context()) == [4, 2]
    edited = algorithm.edit_groups(algorithm.shape_rewards(groups, context()), context())
    assert not edited.wanted and len(algorithm.train_samples(edited.groups, context())) == 4
    alone = OrderPays(0.3, 0.8, 0.1)([replace(groups[0])], context())
    assert alone[0].rewards.tolist() == [1.0, 0.0, 0.0, 0.0], "pictures have no order"


def test_frames_change_their_order_and_nothing_else() -> None:
    clip = Path(__file__).parents[2] / "tasks" / "vsi_bench" / "arkitscenes" / "room1.mp4"

    def read(**options: object) -> video.Media:
        return video.decode(MediaRef("video", clip, {"frames": 6, **options}))

    plain, one, again, other = read(), read(shuffle=1), read(shuffle=1), read(shuffle=2)
    count = len(plain.array)
    assert count > 2 and one.hash == again.hash != plain.hash and other.hash != one.hash
    assert one.frame.seconds == plain.frame.seconds, "shown at the times of those in order"
    assert sorted(one.frame.indices) == list(plain.frame.indices) != list(one.frame.indices)
    for place, index in enumerate(one.frame.indices):
        same = plain.array[plain.frame.indices.index(index)]
        assert np.array_equal(one.array[place], same)
    assert len(read(frames=1, min_frames=1, shuffle=1).array) == 1
