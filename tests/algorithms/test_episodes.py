"""What an environment told takes no part: in the loss, in returns, in lengths, in buffers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from mmrl.algorithms.compose import compose
from mmrl.algorithms.ktae import KeyTokens
from mmrl.algorithms.stages.advantage_estimation import Constant, WithCritic
from mmrl.algorithms.stages.credit import TokenReturns, gae, lengths_of, pair, token_rewards
from mmrl.algorithms.stages.refiners import RandomTokens
from mmrl.algorithms.stages.replay import freeze, thaw
from mmrl.algorithms.stages.turns import require_episodes
from mmrl.errors import UserError
from mmrl.types import Episode, Extra, Group, Observation, Sample, TokenSpan
from tests.algorithms.cases import context, group

WRITTEN = np.array([1, 1, 0, 0, 0, 1, 1, 0, 1], dtype=bool)
SPANS = (TokenSpan(0, 2, 0.0, "a"), TokenSpan(5, 7, None, "b"), TokenSpan(8, 9, 1.0, "a"))


def episodes(rewards: Sequence[float | None], **extra: object) -> Group:
    """Episodes of three turns and nine tokens, five of them the model's."""
    made = group(rewards, [len(WRITTEN)] * len(rewards), **extra)
    played = Episode(SPANS, ("x", "y", "z"), outcome=0.5)
    responses = tuple(
        replace(r, episode=played, logprobs=np.where(WRITTEN, r.logprobs, 0.0))
        for r in made.responses
    )
    return replace(made, responses=responses)


@pytest.mark.parametrize("name", ["grpo", "rloo", "reinforce_pp", "cispo", "gigpo", "turn_level"])
def test_what_was_told_is_masked(name: str) -> None:
    for sample in compose({"name": name}).train_samples([episodes([1.0, 0.0])], context()):
        np.testing.assert_array_equal(sample.mask, WRITTEN)


def test_gigpo_compares_turns_from_the_same_state() -> None:
    """Undiscounted returns of the six turns are 1, 1, 1 in either episode: A^S is 0; A^E stays."""
    section = {"name": "gigpo", "gamma": 1.0}
    first, second = compose(section).train_samples([episodes([1.0, 0.0])], context())
    np.testing.assert_allclose(first.advantages[WRITTEN], 0.5)
    np.testing.assert_allclose(second.advantages[WRITTEN], -0.5)
    # With a discount of 1/2 the returns are 1/4, 1/2, 1; state a is seen at 1/4 and at 1 (mean
    # 5/8), state b at 1/2 only: -3/8, 0, +3/8 on top.
    section = {"name": "gigpo", "gamma": 0.5}
    first, _ = compose(section).train_samples([episodes([1.0, 0.0])], context())
    np.testing.assert_allclose(first.advantages[WRITTEN], [0.125, 0.125, 0.5, 0.5, 0.875])


def test_lengths_count_what_was_written() -> None:
    assert lengths_of(episodes([1.0, 0.0])).tolist() == [5.0, 5.0]


def test_penalties_are_those_of_what_was_written() -> None:
    reference = [np.full(len(WRITTEN), -0.5)] * 2
    kl = {"coefficient": 1.0, "estimator": "k1", "placement": "reward"}
    algorithm = compose({"name": "grpo", "kl": kl})
    made = episodes([1.0, 0.0], reference=reference)
    (shaped,) = algorithm.shape_rewards([made], context())
    expected = (made.responses[0].logprobs + 0.5)[WRITTEN].sum()
    np.testing.assert_allclose(made.rewards - shaped.rewards, expected)


def test_recursions_pass_over_what_was_told() -> None:
    """Returns and estimates are those of the written tokens, as if no others stood between."""
    made = episodes([1.0, 0.0])
    (returns, _) = TokenReturns(gamma=0.5).returns(made)
    np.testing.assert_allclose(returns[WRITTEN], [1 / 16, 1 / 8, 1 / 4, 1 / 2, 1])
    assert (returns[~WRITTEN] == 0).all()
    values = np.linspace(0.1, 0.9, len(WRITTEN))
    critic = WithCritic(0.9, Constant(0.8), 1.0, whiten=False)
    (estimate, _) = critic.estimates(replace(made, extra=Extra(values=[values, values])))
    expected = gae(token_rewards(made)[0][WRITTEN], values[WRITTEN], 0.9, 0.8)
    np.testing.assert_allclose(estimate[WRITTEN], expected)


def test_random_tokens_are_among_what_was_written() -> None:
    samples = pair(episodes([1.0, 0.0]), np.array([1.0, -1.0]), 0)
    for sample in RandomTokens(first=3, share=0.0)(samples, context()):
        assert np.nonzero(sample.mask)[0].tolist() == [0, 1, 5]


def test_key_tokens_are_not_those_that_were_told() -> None:
    """Token ids are their places; told tokens 2, 3, 4 and 7 have no value of their own."""
    made = episodes([1.0, 0.0])
    other = replace(made.responses[1], ids=made.responses[1].ids + 100)
    advantages = KeyTokens()(replace(made, responses=(made.responses[0], other)), context())
    assert len(set(advantages[0][~WRITTEN].tolist())) == 1
    assert advantages[0][0] > advantages[0][2]


def test_a_stored_episode_comes_back_whole() -> None:
    made = episodes([1.0])
    response, _ = thaw(freeze(made.responses[0], made.scores[0]))
    assert response.episode == made.responses[0].episode
    np.testing.assert_array_equal(response.written, WRITTEN)


def test_samples_and_algorithms_agree_about_turns() -> None:
    alone = Sample("q", "t", (), None)
    played = replace(alone, start=Observation(None, "a"), turns=2)
    require_episodes(compose({"name": "gigpo"}), [played])
    require_episodes(compose({"name": "grpo"}), [alone, played])
    with pytest.raises(UserError, match=r"'gigpo' needs episodes .* 'q' of task 't'"):
        require_episodes(compose({"name": "gigpo"}), [played, alone])
    for section in ({"name": "stepgrpo", "pay": "span"}, {"name": "brpo"}):
        with pytest.raises(UserError, match="pays parts of one text"):
            require_episodes(compose(section), [played])
