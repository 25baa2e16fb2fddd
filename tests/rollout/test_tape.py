"""Decoding from a recording: the same numbers, in every family, while responses leave."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from mmrl.engines import tape
from mmrl.engines.decoding import BLOCK
from mmrl.engines.engine import Sampling
from mmrl.engines.hf import HFEngine
from mmrl.engines.tape import Unfit, record
from mmrl.policy.policy import Policy
from mmrl.types import Prompt, Response
from tests.families.cases import Case, ask, make, policy, retyped
from tests.families.tiny import TINY

WORDS = 60
LOOKING: set[str] = set()
"""Families whose steps look into their tensors."""


def prompts_of(made: Policy, name: str) -> list[Prompt]:
    kind = TINY[name].kinds[0]
    cases = (Case((make(kind, 1), "What is this?")), Case(("Say something, and more than that.",)))
    return [ask(made, case) for case in cases]


def answers(made: Policy, name: str) -> tuple[list[Response], bool]:
    """Eight answers, some of which end early, and whether steps could be recorded."""
    # Many ends, so that rows leave on the way.
    made.family.end_ids = (*made.family.end_ids, *range(60, 66))
    engine = HFEngine(made)
    groups = engine.generate(prompts_of(made, name), [5, 3], Sampling(WORDS, 1.0), 7)
    return [answer for group in groups for answer in group], not engine._recordable.refused


@pytest.mark.parametrize("name", TINY)
def test_recorded_steps_say_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    again = tape.record

    def counted(*args: object) -> object:
        made.append(1)
        return again(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(tape, "record", counted)
    found, recorded = answers(policy(name), name)
    assert made and recorded == (name not in LOOKING)
    monkeypatch.setattr(tape, "SETTLED", 10**9)
    made.clear()
    wanted, _ = answers(policy(name), name)
    assert not made
    assert len({len(answer.ids) for answer in wanted}) > 2, "rows leave at different times"
    for mine, theirs in zip(found, wanted, strict=True):
        assert np.array_equal(mine.ids, theirs.ids)
        assert np.array_equal(mine.logprobs, theirs.logprobs)


@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl_moe", "gemma4", "nemotron_h_omni"])
def test_in_bfloat16_too(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for settled in (tape.SETTLED, 10**9):
        monkeypatch.setattr(tape, "SETTLED", settled)
        made = policy(name)
        retyped(made.model, torch.bfloat16)
        found.append(answers(made, name))
    (mine, recorded), (theirs, _) = found
    assert recorded
    assert all(np.array_equal(a.logprobs, b.logprobs) for a, b in zip(mine, theirs, strict=True))


def again_and_once(step: Callable[[Tensor], Tensor]) -> None:
    """A recording of a step does to other numbers what the step does."""
    _, again = record(step, [torch.arange(4.0)])
    for seed in range(3):
        other = torch.randn(4, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(again(other), step(other))


TABLE = torch.randn(6, 4)
COUNTER = torch.zeros(4)


def in_place(x: Tensor) -> Tensor:
    y = x * 2
    first = y + 1
    y.add_(x)
    return first + (y + 1)


def twice(x: Tensor) -> Tensor:
    return (x * 2 + TABLE[0]) @ (TABLE.T @ TABLE) + x * 2


def scattered(x: Tensor) -> Tensor:
    return torch.zeros(6).index_add_(0, torch.tensor([0, 2, 2, 5]), x)


def in_pieces(x: Tensor) -> Tensor:
    left, right = (x + 1).split([1, 3])
    return torch.cat([right, left, *x.topk(2)[:1]])


@pytest.mark.parametrize("step", [in_place, twice, scattered, in_pieces])
def test_a_recording_is_the_step(step: Callable[[Tensor], Tensor]) -> None:
    again_and_once(step)


def asks_a_bool(x: Tensor) -> Tensor:
    return x + 1 if x.sum() > 0 else x - 1


def asks_a_list(x: Tensor) -> Tensor:
    return x * x.tolist()[0]


def asks_numpy(x: Tensor) -> Tensor:
    return torch.from_numpy(np.sort(x.numpy()))


def picks_some(x: Tensor) -> Tensor:
    return x[x > 0].sum().expand(4)


def counts(x: Tensor) -> Tensor:
    COUNTER.add_(1)
    return x + COUNTER


def shares_and_writes(x: Tensor) -> Tensor:
    first, second = x * 2, x * 2
    return first.add_(1) + second


@pytest.mark.parametrize(
    "step", [asks_a_bool, asks_a_list, asks_numpy, picks_some, counts, shares_and_writes]
)
def test_a_step_that_cannot_be_recorded_says_so(step: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(Unfit):
        record(step, [torch.arange(4.0)])


def test_what_is_not_the_step_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recording that gives something else is thrown away at its first use."""

    def wrong(step: Callable[..., Tensor], inputs: list[Tensor]) -> object:
        out, again = record(step, inputs)
        return out, lambda *args: again(*args) + 1

    with monkeypatch.context() as patch:
        patch.setattr(tape, "record", wrong)
        found, recorded = answers(policy("qwen2_5_vl"), "qwen2_5_vl")
    wanted, _ = answers(policy("qwen2_5_vl"), "qwen2_5_vl")
    assert not recorded
    assert all(np.array_equal(a.logprobs, b.logprobs) for a, b in zip(found, wanted, strict=True))


def test_hooks_see_every_step() -> None:
    made, seen = policy("qwen2_5_vl"), []
    made.model.lm_head.register_forward_hook(lambda module, args, out: seen.append(len(args[0])))
    groups = HFEngine(made).generate(
        prompts_of(made, "qwen2_5_vl"), [2, 2], Sampling(WORDS, 1.0), 7
    )
    assert len(seen) >= max(len(answer.ids) for group in groups for answer in group)


def test_recordings_hold_while_caches_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for settled in (tape.SETTLED, 10**9):
        monkeypatch.setattr(tape, "SETTLED", settled)
        made = policy("qwen2_5_vl")
        made.family.banned_ids = (*made.family.banned_ids, *made.family.end_ids)
        asked = prompts_of(made, "qwen2_5_vl")
        found.append(HFEngine(made).generate(asked, [2, 2], Sampling(3 * BLOCK, 1.0), 7))
    for mine, theirs in zip(*found, strict=True):
        assert all(
            np.array_equal(a.logprobs, b.logprobs) for a, b in zip(mine, theirs, strict=True)
        )


def test_replaced_weights_are_read_anew() -> None:
    """A recording does not outlive its call: the weights of the next are others."""
    made = policy("qwen2_5_vl")
    engine = HFEngine(made)
    asked = prompts_of(made, "qwen2_5_vl")
    engine.generate(asked, [2, 2], Sampling(WORDS, 1.0), 7)
    with torch.no_grad():
        for parameter in made.model.parameters():
            parameter.mul_(1.01)
    found = engine.generate(asked, [2, 2], Sampling(WORDS, 1.0), 7)
    wanted = HFEngine(made).generate(asked, [2, 2], Sampling(WORDS, 1.0), 7)
    for mine, theirs in zip(found, wanted, strict=True):
        assert all(np.array_equal(a.ids, b.ids) for a, b in zip(mine, theirs, strict=True))
