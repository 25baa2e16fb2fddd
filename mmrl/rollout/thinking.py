"""Thinking cut at budgets: answers are asked for at every cut of every chain of thought.

    prompt [thought ............|............|............]      one group of chains
           [thought ...] closing [answer] [answer]               a group of answers for every cut
           [thought ................] closing [answer] [answer]

A cut's answers are a group of their own: their prompt is the chain's prompt with the thought so
far and the closing text at its end. A chain that ends before a budget is cut where it ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mmrl.algorithm import Cuts
from mmrl.engines.engine import Engine, Sampling
from mmrl.errors import UserError
from mmrl.policy.appending import continued
from mmrl.policy.family import Family
from mmrl.rollout.episode import SEEDS_OF_A_TURN
from mmrl.types import Extra, Group, Ints, Prompt, Response, Score, TokenSpan


@dataclass(frozen=True)
class Thinking:
    """Rolls out chains and their answers as `cuts` says, with any engine."""

    cuts: Cuts
    family: Family
    tokenizer: Any

    def sample(
        self,
        engine: Engine,
        prompts: Sequence[Prompt],
        counts: Sequence[int],
        sampling: Sampling,
        seed: int,
    ) -> list[Group]:
        """Groups of chains, each followed by the groups of its answers, chain by chain.

        A chain has at most the last budget's tokens, an answer what is left of `max_new_tokens`.
        """
        longest = self.cuts.budgets[-1]
        left = sampling.max_new_tokens - longest
        if left <= 0:
            raise UserError(
                f"thinking of {longest} tokens leaves none for answers: raise "
                f"rollout.max_new_tokens={sampling.max_new_tokens}"
            )
        thinking = replace(sampling, max_new_tokens=longest)
        chains = [
            self._chain_group(prompt, thoughts)
            for prompt, thoughts in zip(
                prompts, engine.generate(prompts, counts, thinking, seed), strict=True
            )
        ]
        asked = [self._answer_groups(group) for group in chains]
        flat = [group for groups in asked for group in groups]
        answers = engine.generate(
            [group.prompt for group in flat],
            [self.cuts.answers] * len(flat),
            replace(sampling, max_new_tokens=left),
            seed + SEEDS_OF_A_TURN,
        )
        made = iter(map(_answered, flat, answers))
        return [
            group
            for chain, groups in zip(chains, asked, strict=True)
            for group in (chain, *(next(made) for _ in groups))
        ]

    def _chain_group(self, prompt: Prompt, thoughts: Sequence[Response]) -> Group:
        chains = tuple(self._chain(thought) for thought in thoughts)
        return Group(prompt, chains, (), Extra(cuts=[self._places(chain) for chain in chains]))

    def _chain(self, thought: Response) -> Response:
        """The thought up to its end, if it has one; that it was cut is no fault of its own."""
        if self.cuts.marker in thought.text:
            size = self._reach(thought.ids)
            thought = replace(
                thought,
                ids=thought.ids[:size],
                logprobs=thought.logprobs[:size],
                text=self._decoded(thought.ids[:size]),
            )
        return replace(thought, finish="stop")

    def _reach(self, ids: Ints) -> int:
        """Tokens up to the one that completes the marker, by bisection."""
        low, high = 0, len(ids)
        while low < high:
            middle = (low + high) // 2
            if self.cuts.marker in self._decoded(ids[:middle]):
                high = middle
            else:
                low = middle + 1
        return low

    def _places(self, chain: Response) -> list[int]:
        """How many tokens of a chain stand before each cut."""
        return [min(budget, len(chain.ids)) for budget in self.cuts.budgets]

    def _answer_groups(self, chains: Group) -> list[Group]:
        """The questions at every different cut of every chain, without answers yet."""
        groups = []
        for chain, places in zip(chains.responses, _cuts(chains), strict=True):
            for place in dict.fromkeys(places):
                thought = chain.ids[:place]
                if place and int(thought[-1]) in self.family.end_ids:
                    thought = thought[:-1]
                text = self._decoded(thought)
                closing = "" if self.cuts.marker in text else self.cuts.closing
                told = self.tokenizer(closing, add_special_tokens=False)["input_ids"]
                tail = np.array([*thought.tolist(), *told], dtype=np.int64)
                extra = Extra(head=text + closing, budget=places.index(place))
                groups.append(Group(continued(chains.prompt, tail), (), (), extra))
        return groups

    def _decoded(self, ids: Ints) -> str:
        text: str = self.tokenizer.decode(ids, skip_special_tokens=False)
        return text


def _answered(group: Group, answers: Sequence[Response]) -> Group:
    """A verifier reads the thought and the answer as one text."""
    head = group.extra.head or ""
    return replace(group, responses=tuple(replace(a, text=head + a.text) for a in answers))


def _cuts(chains: Group) -> Sequence[Sequence[int]]:
    """How many tokens of each chain stand before each of its cuts."""
    assert chains.extra.cuts is not None, "a group of chains"
    return chains.extra.cuts


def answers_of(groups: Sequence[Group]) -> list[Group]:
    """The groups that a verifier scores: all but the chains."""
    return [group for group in groups if group.extra.cuts is None]


def settle(groups: Sequence[Group], scored: Sequence[Group]) -> list[Group]:
    """Put scored answers in their places, and give every chain's steps what their cuts earned.

    A chain's own score is that of its last cut. One with a cut that could not be scored is
    unscorable. An answer that is alone at its cut is compared with its budget's mean (`baseline`).
    """
    answers = iter(scored)
    settled: list[Group] = []
    for chains, count in _counted(groups):
        own = [next(answers) for _ in range(count)]
        if chains is None:
            settled += own
            continue
        settled += [_with_steps(chains, own), *_with_baselines(own)]
    return settled


def _with_steps(chains: Group, own: Sequence[Group]) -> Group:
    """The group of chains with its steps and scores, from its answer groups."""
    left = iter(own)
    steps, scores = [], []
    for places in _cuts(chains):
        at = {place: next(left) for place in dict.fromkeys(places)}
        values = [_earned(at[place]) for place in places]
        spans = zip([0, *places[:-1]], places, values, strict=True)
        steps.append([TokenSpan(start, end, value) for start, end, value in spans])
        scores.append(_score(at[places[-1]], values))
    return replace(chains, scores=tuple(scores), extra=Extra(steps=steps))


def _counted(groups: Sequence[Group]) -> list[tuple[Group | None, int]]:
    """Every group of chains with the number of answer groups behind it."""
    found: list[tuple[Group | None, int]] = []
    for group in groups:
        if group.extra.cuts is not None:
            found.append((group, 0))
        else:
            chains, count = found.pop() if found else (None, 0)
            found.append((chains, count + 1))
    return found


def _earned(group: Group) -> float:
    """Mean reward of a cut's answers; NaN where none could be scored."""
    known = group.rewards[~np.isnan(group.rewards)]
    return float(known.mean()) if len(known) else float("nan")


def _score(last: Group, values: Sequence[float]) -> Score:
    """The score of a chain from that of its last cut."""
    known = [score for score in last.scores if score.reward is not None]
    if np.isnan(values).any():
        return Score({}, None, "unscorable", "the answers at a cut could not be scored", None)
    names = dict.fromkeys(name for score in known for name in score.parts)
    parts = {
        name: float(np.mean([score.parts[name] for score in known if name in score.parts]))
        for name in names
    }
    metrics = [score.metric for score in known if score.metric is not None]
    return Score(parts, float(np.mean(metrics)) if metrics else None, reward=values[-1])


def _with_baselines(own: Sequence[Group]) -> list[Group]:
    """Answer groups with the mean of what all answers at their budget earned."""
    found = []
    for group in own:
        budget = group.extra.budget
        rewards = np.concatenate([g.rewards for g in own if g.extra.budget == budget])
        known = rewards[~np.isnan(rewards)]
        baseline = float(known.mean()) if len(known) else 0.0
        found.append(replace(group, extra=Extra(baseline=baseline)))
    return found
