"""When things begin: what a document says of a step, and the step from which it is in force."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mmrl.algorithms.ada_grpo import RareFormats
from mmrl.algorithms.arpo import ReplaySuccess
from mmrl.algorithms.ptst import Staged
from mmrl.algorithms.ssb import ReplaySignal
from mmrl.algorithms.stages.credit import pair
from mmrl.algorithms.stages.editors import DropUniform, EnoughSignal
from mmrl.algorithms.stages.estimates import EachOnce
from mmrl.algorithms.stages.samplers import DropSolved, EasyToHard, HardStage, UpperConfidence
from mmrl.algorithms.stages.schedules import FallThenRise
from mmrl.backend.local import schedule_factor
from mmrl.config import OptimizerConfig
from mmrl.data.stream import PromptStream
from mmrl.stage import Choosing, Context, Sampler
from mmrl.types import Sample
from tests.algorithms.cases import group

STEPS = 12


def context(step: int, state: dict[str, Any] | None = None, prompts: int = 4) -> Context:
    return Context(
        step, STEPS, prompts, np.random.default_rng(step), {} if state is None else state
    )


class Run:
    """A stream, a sampler and what it was told; every answer to a sample earns `reward(id)`."""

    def __init__(
        self, sampler: Sampler, sizes: Sequence[int], reward: Callable[[str], float] | None = None
    ) -> None:
        self.sampler, self.state, self.step = sampler, dict[str, Any](), 0
        self._reward = reward or (lambda sample: float(sample[1:] in "0246810"))
        self._sizes = sizes
        self.stream = self._stream()

    def _stream(self) -> PromptStream:
        sources = []
        for key, size in zip("ab", self._sizes, strict=False):
            meta = [{"pass_rate": i / 100} for i in range(size)]
            samples = [Sample(f"{key}{i}", key, (), None, meta=m) for i, m in enumerate(meta)]
            sources.append((samples, 1.0, True))
        return PromptStream(sources, 0)

    def stop_and_resume(self) -> None:
        """Go on in a new stream from what a checkpoint holds."""
        saved = json.loads(json.dumps([self.stream.state(), self.state]))
        self.stream = self._stream()
        self.stream.load_state(saved[0])
        self.state = saved[1]

    def take(self, count: int = 4, *, refills: int = 0, resumed: bool = False) -> list[str]:
        """The samples of the next step, those of its refills too; then it is observed."""
        if resumed:
            self.stop_and_resume()
        self.step += 1
        now = context(self.step, self.state, count)
        chooser, drawn = Choosing(self.sampler, now), []
        for _ in range(1 + refills):
            drawn += [s.id for s in self.stream.draw(count, chooser)]
            self.stream.peek(count, chooser)
        groups = [group([self._reward(i)] * 2, sample=i) for i in drawn]
        self.sampler.observe(groups, [], now)
        return drawn


EVEN = frozenset(f"{key}{i}" for key in "ab" for i in range(0, 200, 2))


@pytest.mark.parametrize("resumed", [False, True], ids=["", "resumed"])
@pytest.mark.parametrize(
    ("sizes", "count", "refills"),
    [
        ((100,), 4, 0),  # the first stage ends far from the end of an epoch
        ((5,), 4, 0),  # epochs end within steps
        ((4,), 4, 0),  # epochs end with steps
        ((100, 6), 4, 0),  # sources of other lengths
        ((100, 40), 3, 4),  # a step draws five times
    ],
)
def test_the_second_stage_of_rcs_begins_after_its_first_steps(
    sizes: tuple[int, ...], count: int, refills: int, resumed: bool
) -> None:
    run = Run(HardStage(first_steps=3, full=1.0), sizes, lambda sample: float(sample in EVEN))
    asked = [run.take(count, refills=refills, resumed=resumed) for _ in range(5)]
    # Whoever earned full marks in steps 1 to 3 is not asked again from step 4 on.
    solved = {i for step in asked[:3] for i in step} & EVEN
    assert solved
    assert not solved & {i for step in asked[3:] for i in step}
    # In its first stage it is a usual stream: an epoch asks everyone once.
    usual = Run(NoWish(), sizes)
    assert asked[:3] == [usual.take(count, refills=refills) for _ in range(3)]


class NoWish(Sampler):
    """A sampler that has no wish."""


@pytest.mark.parametrize("resumed", [False, True], ids=["", "resumed"])
def test_the_second_stage_asks_all_that_is_hard_before_it_asks_anyone_again(resumed: bool) -> None:
    run = Run(HardStage(first_steps=5, full=1.0), (20,), lambda sample: float(sample in EVEN))
    first = [i for _ in range(5) for i in run.take()]
    assert sorted(first) == sorted({f"a{i}" for i in range(20)})
    hard = [i for _ in range(5) for i in run.take(2, resumed=resumed)]
    assert sorted(hard) == sorted({f"a{i}" for i in range(1, 20, 2)})
    # All solved: the run ends with the first stage.
    done = Run(HardStage(first_steps=1, full=1.0), (4,), lambda sample: 1.0)
    assert len(done.take()) == 4 and done.take() == []


def test_solved_samples_leave_at_the_end_of_the_epoch_in_which_they_were_solved() -> None:
    run = Run(DropSolved(), (8,), lambda sample: float(sample in EVEN))
    assert sorted(run.take() + run.take()) == [f"a{i}" for i in range(8)]
    assert sorted(run.take(resumed=True)) == ["a1", "a3", "a5", "a7"]
    # Nobody leaves within an epoch, be it solved or not.
    assert sorted(run.take(2) + run.take(2)) == ["a1", "a3", "a5", "a7"]


def test_easy_samples_come_first_from_the_first_step_on() -> None:
    run = Run(EasyToHard(), (6,))
    assert [run.take(3), run.take(3), run.take(3)] == [
        ["a5", "a4", "a3"],
        ["a2", "a1", "a0"],
        ["a5", "a4", "a3"],
    ]


def test_a_bandit_acts_from_the_step_after_the_one_it_saw() -> None:
    bandit, state = UpperConfidence(window=4, temperature=0.1), dict[str, Any]()
    assert bandit.mix({"a": 0.9, "b": 0.1}, context(1, state)) == pytest.approx(
        {"a": 0.5, "b": 0.5}
    )
    seen = [group([1.0, -1.0], sample=i) for i in ("x", "y")]
    taught = [s for g in seen for s in pair(g, g.rewards, 0)]
    bandit.observe(seen, taught, context(1, state))
    # Four answers of source "t" against a source that was never asked:
    # means 1 and 0, counts 4 and 0: 1 + sqrt(2 ln 5 / 5) and sqrt(2 ln 5), over 0.1
    up = np.exp((1 + np.sqrt(2 * np.log(5) / 5) - np.sqrt(2 * np.log(5))) / 0.1)
    found = bandit.mix({"t": 0.5, "u": 0.5}, context(2, state))
    assert found["t"] == pytest.approx(up / (1 + up))


@pytest.mark.parametrize("count", [4, 8, 20], ids=str)
@pytest.mark.parametrize("sizes", [(11,), (11, 3)], ids=str)
@pytest.mark.parametrize("resumed", [False, True], ids=["", "resumed"])
def test_an_estimate_phase_asks_every_sample_once(
    sizes: tuple[int, ...], count: int, resumed: bool
) -> None:
    run = Run(EachOnce("done"), sizes)
    asked = []
    while step := run.take(count, refills=1, resumed=resumed):
        asked += step
        # Only those that could be scored have an estimate; the others are not asked again.
        run.state.setdefault("done", {}).update({i: 1.0 for i in step if i != "a3"})
    assert len(asked) == sum(sizes) and len(set(asked)) == sum(sizes)


def test_an_estimate_phase_leaves_out_what_an_earlier_one_has() -> None:
    run = Run(EachOnce("done"), (5,))
    run.state["done"] = {"a1": 0.5, "a4": 0.5}
    assert run.take(8) == ["a0", "a2", "a3"]


@pytest.mark.parametrize(
    ("values", "total", "begin"),
    [
        ((1, 2, 3), 9, [1, 4, 7]),
        ((1, 2, 3), 10, [1, 5, 8]),  # 3 1/3 steps each: a stage begins when its part has begun
        ((1, 2), 1, [1]),
        ((1, 2, 3), 3, [1, 2, 3]),
    ],
)
def test_stages_of_ptst_share_the_phase_evenly(
    values: tuple[int, ...], total: int, begin: list[int]
) -> None:
    staged = Staged(values)
    found = [staged(replace(context(step), total_steps=total)) for step in range(1, total + 1)]
    assert [found.index(v) + 1 for v in values[: len(begin)]] == begin
    assert found == sorted(found)


def test_kl_of_grpo_d_turns_at_its_share_of_the_phase() -> None:
    schedule = FallThenRise(low=0.0, high=1.0, turn=0.3)
    found = [schedule.at(replace(context(s), total_steps=11)) for s in range(1, 12)]
    # Middle at the first step, lowest after 0.3 of the ten that follow it, highest at the last.
    assert found[0] == 0.5 and found[3] == pytest.approx(0.0) and found[-1] == pytest.approx(1.0)
    assert min(found) == found[3]


def test_rare_formats_are_worth_nothing_more_at_the_last_step() -> None:
    shape = RareFormats({"direct": "x"})
    made = group([1.0, 1.0, 1.0])
    for response, text in zip(made.responses, ("x", "y", "y"), strict=True):
        object.__setattr__(response, "text", text)
    one = [shape([made], context(step))[0].rewards[0] for step in (1, 6, STEPS)]
    # 1 + (3/1 - 1) (1 + cos(pi t / T)) / 2
    expected = [1 + 2 * (1 + np.cos(np.pi * t / STEPS)) / 2 for t in (1, 6, STEPS)]
    assert one == pytest.approx(expected) and one[-1] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("warm_up", "factors"), [(0, [1, 1, 1]), (1, [1, 1, 1]), (4, [0.25, 0.5, 0.75, 1.0, 1.0])]
)
def test_the_rate_is_full_at_the_last_update_of_the_warm_up(
    warm_up: int, factors: list[float]
) -> None:
    config = OptimizerConfig(warmup_steps=warm_up)
    assert [schedule_factor(i, 9, config) for i in range(len(factors))] == factors


# --- thresholds of editors, in the unit that they are said in ------------------------------------


def test_shares_are_of_samples_and_whole_shares_are_not_rounded_up() -> None:
    # 0.07 x 100 is 7.000000000000001 in floating point: seven samples are enough.
    seven = [group([1.0, 0.0], sample=str(i)) for i in range(7)]
    rest = [group([1.0, 1.0], sample=str(i)) for i in range(7, 100)]
    assert EnoughSignal(0.07)([*seven, *rest], context(1, prompts=100)).wanted == 0
    # Four samples in two variants each: two samples with signal are half of them.
    variants = [
        group([float(i < 2), 0.0], sample=str(i), variant=v) for i in range(4) for v in ("", "w")
    ]
    assert EnoughSignal(0.5)(variants, context(1, prompts=4)).wanted == 0
    assert EnoughSignal(0.75)(variants, context(1, prompts=4)).wanted == 1


def test_variants_of_a_sample_stay_or_go_together() -> None:
    # Right in one variant, wrong in the other: there is something to learn from the two.
    apart = [group([1.0, 1.0], sample="a", variant="v"), group([0.0, 0.0], sample="a", variant="w")]
    alike = [group([1.0, 1.0], sample="b", variant=v) for v in "vw"]
    assert DropUniform()([*apart, *alike], context(1)).groups == apart
    assert EnoughSignal(1.0)([*apart, *alike], context(1, prompts=2)).groups == apart


def test_a_refilled_step_is_taken_into_a_buffer_once() -> None:
    """Editors see the first groups of a step again with each refill."""
    right = group([1.0, 0.0], [2, 3])
    for stage in (ReplaySuccess(size=4), ReplaySignal(size=4)):
        now = context(1)
        groups = stage([right], now).groups
        for _ in range(3):
            groups = stage([*groups, group([0.0, 0.0], sample="other")], now).groups
        kept = now.state.get("successes", {}).get("q") or now.state["replay"]
        assert len(kept) == 1
    # What was put in is no new success, and is not drawn anew.
    stage, later = ReplaySuccess(size=4), context(2, {"successes": {}})
    stage([right], later)
    failed = stage([group([0.0, 0.0], [4, 4])], later).groups
    stage([*failed, group([0.0], sample="other")], later)
    assert len(later.state["successes"]["q"]) == 1
