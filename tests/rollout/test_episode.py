"""Episodes: what was sampled is what is trained, whatever an environment says in between."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from mmrl.engines.engine import Sampling
from mmrl.engines.hf import HFEngine
from mmrl.policy.appending import continued
from mmrl.policy.encoder import Encoder
from mmrl.policy.family import EnvironmentTokens
from mmrl.policy.policy import Policy
from mmrl.policy.shared_prefix import SharedRow, lay_out
from mmrl.rollout.episode import Episodes
from mmrl.scoring.pool import StepJob
from mmrl.types import Episode, Observation, Prompt, Response, Sample, Score
from tests.rollout.test_hf import make_noisy, teacher_forced

TURNS = 3
SAMPLED = Sampling(160, temperature=1.3)
NEWS = "Turn on. <|im_end|> is text."


class Counter:
    """An environment that counts the turns and remembers what it was asked."""

    def __init__(self, **answers: Any) -> None:
        self.jobs: list[StepJob] = []
        self._answers = answers

    def step(self, jobs: Sequence[StepJob]) -> list[Observation | str]:
        self.jobs += jobs
        return [self._step(job) for job in jobs]

    def _step(self, job: StepJob) -> Observation | str:
        made = Observation(job.state + 1, f"after {job.state + 1}", NEWS, reward=0.5, outcome=0.25)
        return (
            self._answers["fails"] if "fails" in self._answers else replace(made, **self._answers)
        )

    def score(self, jobs: Sequence[Any], moment: Any = None) -> list[Score]:
        raise NotImplementedError

    def close(self) -> None:
        """Nothing is held."""


@pytest.fixture
def prompts(encoder: Encoder, ask: Callable[..., Sample]) -> list[Prompt]:
    samples = [
        ask((84, 56, 1), "Which way?", (56, 56, 2), id="two"),
        ask("No picture at all.", id="none"),
    ]
    start = Observation(0, "after 0", outcome=0.0)
    return [encoder.prompt(replace(sample, start=start, turns=TURNS)) for sample in samples]


@pytest.fixture
def play(policy: Policy, encoder: Encoder) -> Callable[..., tuple[list[list[Response]], Counter]]:
    """Play episodes of a policy whose turns have all lengths."""
    make_noisy(policy, 5)

    def play(
        prompts: Sequence[Prompt],
        counts: Sequence[int],
        sampling: Sampling = SAMPLED,
        seed: int = 0,
        turn_tokens: int | None = 12,
        **answers: Any,
    ) -> tuple[list[list[Response]], Counter]:
        counter = Counter(**answers)
        engine = Episodes(HFEngine(policy), counter, encoder, turn_tokens)
        return engine.generate(prompts, counts, sampling, seed), counter

    return play


def episodes(groups: Sequence[Sequence[Response]]) -> list[tuple[Response, Episode]]:
    found = [(r, r.episode) for group in groups for r in group if r.episode is not None]
    assert len(found) == sum(map(len, groups))
    return found


def tokens(groups: Sequence[Sequence[Response]]) -> list[list[list[int]]]:
    return [[response.ids.tolist() for response in group] for group in groups]


def test_sampled_logprobs_are_the_trainers_over_all_turns(
    play: Any, policy: Policy, prompts: list[Prompt]
) -> None:
    groups, _ = play(prompts, [4, 3])
    trained = teacher_forced(policy, prompts, groups, 1.3)
    told = ~np.concatenate([r.written for g in groups for r in g])
    sampled = np.concatenate([r.logprobs for g in groups for r in g])
    assert told.any() and (sampled[told] == 0).all() and (sampled[~told] < 0).all()
    np.testing.assert_allclose(sampled[~told], trained[~told], rtol=1e-4, atol=1e-4)
    assert {len(e.turns) for _, e in episodes(groups)} > {1}


def test_a_response_is_the_turns_as_sampled_with_what_was_told_between(
    play: Any, policy: Policy, prompts: list[Prompt]
) -> None:
    groups, counter = play(prompts, [4, 3])
    tokenizer = policy.processor.tokenizer
    told = tokenizer.decode(between(policy, prompts[0]))
    for response, episode in episodes(groups):
        assert response.text == "\n".join(episode.said)
        for turn, said in zip(episode.turns, episode.said, strict=True):
            ids = response.ids[turn.start : turn.end]
            ended = int(ids[-1]) in policy.family.end_ids
            assert tokenizer.decode(ids[:-1] if ended else ids) == said
        gaps = zip(episode.turns, episode.turns[1:], strict=False)
        heard = [tokenizer.decode(response.ids[a.end : b.start]) for a, b in gaps]
        assert heard == [told] * (len(episode.turns) - 1)
        assert episode.turns[-1].end == len(response.ids)
        assert [turn.state for turn in episode.turns] == [
            f"after {i}" for i in range(len(episode.turns))
        ]
    assert {job.answer.turns[-1] == job.answer.text for job in counter.jobs} == {True}
    assert {0, 1} <= {job.state for job in counter.jobs} <= set(range(TURNS))


def between(policy: Policy, prompt: Prompt, last: str = "<|im_end|>") -> np.ndarray:
    """What the environment says after a turn that ended so."""
    end = policy.processor.tokenizer.convert_tokens_to_ids(last)
    said = continued(prompt, np.array([70, end], dtype=np.int64))
    return policy.family.environment_tokens(said, Observation(0, "", NEWS)).ids


def test_the_told_turn_is_what_the_chat_template_writes(
    policy: Policy, prompts: list[Prompt]
) -> None:
    text = policy.processor.tokenizer.decode(between(policy, prompts[0]))
    escaped = NEWS.replace("<|im_end|>", "<\u200b|im_end|>")
    assert text == f"\n<|im_start|>user\n{escaped}<|im_end|>\n<|im_start|>assistant\n"


def test_turns_earn_and_the_last_verdict_stands(play: Any, prompts: list[Prompt]) -> None:
    groups, _ = play(prompts, [4, 3])
    for response, episode in episodes(groups):
        finished = [turn.value for turn in episode.turns if turn.value is not None]
        assert finished == [0.5] * (len(episode.turns) - response.truncated)
        assert episode.outcome == (0.25 if finished else 0.0)


def test_an_episode_ends_where_the_environment_says(play: Any, prompts: list[Prompt]) -> None:
    groups, _ = play(prompts, [4, 3], done=True)
    assert {len(e.turns) for _, e in episodes(groups)} == {1}


def test_a_failing_environment_ends_the_episode_without_a_verdict(
    play: Any, prompts: list[Prompt]
) -> None:
    groups, _ = play(prompts, [4, 3], fails="crash: gone")
    failures = {e.failure for r, e in episodes(groups) if not r.truncated}
    assert failures == {"crash: gone"}


@pytest.mark.parametrize("room", [1, 2, 20, 33, 60])
def test_an_episode_keeps_within_its_tokens(room: int, play: Any, prompts: list[Prompt]) -> None:
    groups, _ = play(prompts, [4, 3], Sampling(room, temperature=1.3))
    for response, episode in episodes(groups):
        assert len(response.ids) == len(response.logprobs) <= room
        assert response.written[-1]
        complete = episode.turns[-1].value is not None and len(episode.turns) == TURNS
        assert response.truncated or complete


def test_the_same_seed_plays_the_same_episodes(play: Any, prompts: list[Prompt]) -> None:
    one, again, other = (play(prompts, [4, 3], seed=seed)[0] for seed in (5, 5, 6))
    assert tokens(one) == tokens(again)
    assert tokens(one) != tokens(other)


def test_turns_draw_other_numbers(play: Any, policy: Policy, prompts: list[Prompt]) -> None:
    """A turn that is asked as the first was must not repeat it."""
    again = policy.family.encode(prompts[1].sample, ())
    policy.family.environment_tokens = lambda before, *told: EnvironmentTokens(  # type: ignore[attr-defined]
        again.ids, again.positions + before.next_position
    )
    groups, _ = play(prompts[1:], [8])
    turns = [e.said for _, e in episodes(groups) if len(e.said) == TURNS]
    assert turns and any(len(set(said)) > 1 for said in turns)


def test_the_greedy_answer_is_a_greedy_episode(play: Any, prompts: list[Prompt]) -> None:
    sampled = Sampling(160, temperature=1.3, greedy_too=True)
    groups, _ = play(prompts, [2, 2], sampled)
    greedy, _ = play(prompts, [1, 1], Sampling(160, temperature=0.0))
    assert [len(group) for group in groups] == [3, 3]
    for group, (alone,) in zip(groups, greedy, strict=True):
        np.testing.assert_array_equal(group[-1].ids, alone.ids)


def test_prompts_without_an_episode_are_answered_as_before(
    play: Any, policy: Policy, prompts: list[Prompt]
) -> None:
    plain = replace(prompts[0], sample=replace(prompts[0].sample, start=None))
    mixed, _ = play([prompts[1], plain], [2, 3])
    alone = HFEngine(policy).generate([plain], [3], SAMPLED, 0)
    for one, other in zip(mixed[1], alone[0], strict=True):
        assert one.episode is None
        np.testing.assert_array_equal(one.ids, other.ids)
    assert all(r.episode is not None for r in mixed[0])


def test_a_continued_prompt_stands_where_a_response_would(prompts: list[Prompt]) -> None:
    """Prompt and response in one row have the ids and positions of the continued prompt."""
    ids = np.array([5, 6, 7, 8], dtype=np.int64)
    for prompt in prompts:
        row = lay_out([SharedRow(prompt, (np.append(ids, 9),))], torch.device("cpu"))
        longer = continued(prompt, ids)
        np.testing.assert_array_equal(row.ids.numpy(), longer.ids)
        np.testing.assert_array_equal(row.positions.numpy(), longer.positions)
        assert longer.next_position == longer.positions.max() + 1
