"""Thinking cut at budgets: which tokens stand where, and what each cut earns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from mmrl.algorithm import Cuts
from mmrl.algorithms.brpo import BudgetRelative, budget_advantages, chances
from mmrl.engines.engine import Sampling
from mmrl.engines.hf import HFEngine
from mmrl.errors import UserError
from mmrl.policy.encoder import Encoder
from mmrl.policy.policy import Policy
from mmrl.rollout.thinking import Thinking, answers_of, settle
from mmrl.types import Extra, Group, Prompt, Sample, Score
from tests.algorithms.cases import context
from tests.rollout.test_hf import make_noisy, teacher_forced

BUDGETS = (4, 8, 12)
SAMPLING = Sampling(20, temperature=1.3)


@pytest.fixture
def thinking(policy: Policy) -> Thinking:
    make_noisy(policy, 4)
    cuts = Cuts(BUDGETS, answers=2, marker="</think>", closing="</think>\n")
    return Thinking(cuts, policy.family, policy.processor.tokenizer)


@pytest.fixture
def prompts(encoder: Encoder, ask: Callable[..., Sample]) -> list[Prompt]:
    return [
        encoder.prompt(ask((56, 56, 1), "Why?", id="one")),
        encoder.prompt(ask("So?", id="two")),
    ]


@pytest.fixture
def groups(thinking: Thinking, policy: Policy, prompts: list[Prompt]) -> list[Group]:
    return thinking.sample(HFEngine(policy), prompts, [5, 3], SAMPLING, 0)


def families(groups: Sequence[Group]) -> list[tuple[Group, list[Group]]]:
    found: list[tuple[Group, list[Group]]] = []
    for group in groups:
        if group.extra.cuts or group.extra.steps:
            found.append((group, []))
        else:
            found[-1][1].append(group)
    return found


def test_answers_follow_the_thought_up_to_their_cut(
    groups: list[Group], policy: Policy, prompts: list[Prompt]
) -> None:
    told = policy.processor.tokenizer("</think>\n", add_special_tokens=False)["input_ids"]
    ends = set(policy.family.end_ids)
    lengths = set()
    for (chains, answers), prompt, count in zip(families(groups), prompts, (5, 3), strict=True):
        assert chains.prompt is prompt and len(chains.responses) == count
        left = iter(answers)
        for chain in chains.responses:
            lengths.add(len(chain.ids))
            assert len(chain.ids) <= BUDGETS[-1] and chain.finish == "stop"
            for place in dict.fromkeys(min(b, len(chain.ids)) for b in BUDGETS):
                group = next(left)
                thought = [i for i in chain.ids[:place].tolist() if i not in ends]
                ended = "</think>" in policy.processor.tokenizer.decode(thought)
                expected = [*prompt.ids.tolist(), *thought, *([] if ended else told)]
                assert group.prompt.ids.tolist() == expected
                assert len(group.responses) == 2
                for answer in group.responses:
                    assert len(answer.ids) <= SAMPLING.max_new_tokens - BUDGETS[-1]
                    assert answer.text.startswith(policy.processor.tokenizer.decode(thought))
        assert next(left, None) is None
    assert len(lengths) > 1, "chains of several lengths, some that end before a budget"


def test_sampled_logprobs_are_the_trainers(groups: list[Group], policy: Policy) -> None:
    for part in ([g for g in groups if g.extra.cuts], answers_of(groups)):
        trained = teacher_forced(policy, [g.prompt for g in part], [g.responses for g in part], 1.3)
        sampled = np.concatenate([r.logprobs for g in part for r in g.responses])
        np.testing.assert_allclose(sampled, trained, rtol=1e-4, atol=1e-4)


def test_thinking_ends_with_its_marker(
    thinking: Thinking, policy: Policy, prompts: list[Prompt]
) -> None:
    """What the model wrote after the marker is dropped, and nothing is put behind it."""
    (marker,) = policy.processor.tokenizer("</think>", add_special_tokens=False)["input_ids"]
    engine = HFEngine(policy)
    (thought,) = engine.generate(prompts[1:], [1], Sampling(12, temperature=1.3), 3)[0]
    ids = np.array([*thought.ids[:2], marker, *thought.ids[2:5]])
    text = policy.processor.tokenizer.decode(ids)
    written = replace(thought, ids=ids, logprobs=np.zeros(len(ids)), text=text)
    chains = thinking._chain_group(prompts[1], [written])
    assert chains.responses[0].ids.tolist() == ids[:3].tolist()
    assert chains.extra.cuts == [[3, 3, 3]]
    (group,) = thinking._answer_groups(chains)
    assert group.prompt.ids.tolist() == [*prompts[1].ids.tolist(), *ids[:3].tolist()]


def scored(groups: Sequence[Group], reward: Callable[[int, int], float | None]) -> list[Group]:
    return [
        replace(
            group,
            scores=tuple(
                Score({"accuracy": r or 0.0}, r, reward=r)
                for r in (reward(i, j) for j in range(len(group.responses)))
            ),
        )
        for i, group in enumerate(answers_of(groups))
    ]


def test_steps_earn_what_their_cuts_answers_earn(groups: list[Group]) -> None:
    settled = settle(groups, scored(groups, lambda i, j: float(i + 10 * j)))
    assert len(settled) == len(groups)
    number = 0
    for chains, answers in families(settled):
        for chain, spans, score in zip(
            chains.responses, chains.extra.steps, chains.scores, strict=True
        ):
            places = [min(b, len(chain.ids)) for b in BUDGETS]
            assert [(s.start, s.end) for s in spans] == list(
                zip([0, *places[:-1]], places, strict=True)
            )
            firsts = {place: number + k for k, place in enumerate(dict.fromkeys(places))}
            assert [s.value for s in spans] == [firsts[place] + 5.0 for place in places]
            assert score.reward == spans[-1].value == score.metric
            number += len(firsts)
        assert all(group.extra.baseline is not None for group in answers)


def test_a_chain_with_an_unscorable_cut_is_left_out(groups: list[Group]) -> None:
    """None is not 0: its segments get nothing, and the others are compared without it."""
    settled = settle(groups, scored(groups, lambda i, j: None if i == 0 else float(i % 2)))
    (chains, _), _ = families(settled)
    assert chains.scores[0].reward is None and np.isnan(chains.extra.steps[0][0].value)
    credit = BudgetRelative("uniform")
    advantages = credit(chains, context())
    assert not np.any(advantages[0])
    rest = np.array([[s.value for s in row] for row in chains.extra.steps[1:]])
    expected = budget_advantages(rest, chances(3, "uniform"))
    for response, spans, got, values in zip(
        chains.responses[1:], chains.extra.steps[1:], advantages[1:], expected, strict=True
    ):
        by_hand = np.zeros(len(response.ids))
        for span, value in zip(spans, values, strict=True):
            by_hand[span.start : span.end] = value
        np.testing.assert_allclose(got, by_hand)


def test_an_answer_alone_at_its_cut_is_set_against_its_budget() -> None:
    credit = BudgetRelative("uniform")
    group = Group(None, (), (Score({}, None, reward=1.0),), Extra(baseline=0.25))  # type: ignore[arg-type]
    assert credit(group, context()).tolist() == [0.75]  # type: ignore[union-attr]
    two = replace(group, scores=(*group.scores, Score({}, None, reward=0.0)))
    assert credit(two, context()).tolist() == [0.5, -0.5]  # type: ignore[union-attr]


def test_thinking_must_leave_room_for_an_answer(
    thinking: Thinking, policy: Policy, prompts: list[Prompt]
) -> None:
    with pytest.raises(UserError, match=r"raise rollout\.max_new_tokens=12"):
        thinking.sample(HFEngine(policy), prompts, [1, 1], Sampling(12), 0)
