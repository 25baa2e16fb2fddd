"""Flow balance of GFlowNets over the turns of an episode: what policy and flows learn from a miss.

    F_k   log-flow of the state before turn k, which is the critic's value there
    l_k   log-prob of turn k, of all its tokens
    F_n   log-reward of the episode

A stretch of turns i to j balances where F_i + l_i + ... + l_(j-1) = F_j. A state is all that was
said and seen, which one way alone leads to, so that backward probabilities are 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from mmrl.algorithms.stages.credit import pair, scorable
from mmrl.stage import Context, Need, Stage, needed
from mmrl.types import Floats, Group, Response, TokenSpan, TrainSample

Balance = Literal["subtrajectory", "detailed"]


@dataclass(frozen=True)
class FlowBalance(Stage):
    """Squared misses of single turns (`detailed`), or of all stretches of turns.

    A stretch of n turns weighs `decay` ** n, all of an episode 1 (Madan et al., arXiv 2209.12782).
    Advantages are minus the loss's gradient by the log-prob of each turn; the critic's targets lie
    its gradient by the log-flow away from what it said, where a turn begins. Both are exact for one
    update by the policy that sampled.
    """

    balance: Balance = "subtrajectory"
    decay: Annotated[float, Field(gt=0, le=1)] = 0.9

    needs: ClassVar[frozenset[Need]] = frozenset({"values"})

    def __call__(self, groups: list[Group], context: Context) -> list[TrainSample]:
        return [s for index, group in enumerate(groups) for s in self._samples(group, index)]

    def _samples(self, group: Group, index: int) -> list[TrainSample]:
        known = scorable(group.rewards)
        values = needed(group.extra.values, "values")
        slopes = [
            self._slopes(response, own, reward if has else 0.0)
            for response, own, reward, has in zip(
                group.responses, values, group.rewards, known, strict=True
            )
        ]
        samples = pair(group, [advantages for advantages, _ in slopes], index)
        return [
            replace(s, returns=own - slope if has else None, values=own if has else None)
            for s, own, (_, slope), has in zip(samples, values, slopes, known, strict=True)
        ]

    def _slopes(
        self, response: Response, values: Floats, log_reward: float
    ) -> tuple[Floats, Floats]:
        """Advantages [T] of the tokens, and the loss's gradient by the value of each [T]."""
        turns = turns_of(response)
        flows = np.array([*(values[turn.start] for turn in turns), log_reward])
        logprobs = np.array([response.logprobs[t.start : t.end].sum() for t in turns])
        by_turn, by_flow = self.gradients(flows, np.nan_to_num(logprobs))
        advantages, slopes = np.zeros(len(values)), np.zeros(len(values))
        for turn, of_turn, of_flow in zip(turns, by_turn, by_flow, strict=False):
            advantages[turn.start : turn.end] = -of_turn
            slopes[turn.start] = of_flow
        return advantages, slopes

    def gradients(self, flows: Floats, logprobs: Floats) -> tuple[Floats, Floats]:
        """The loss's gradient by the log-probs of turns [n], and by log-flows [n + 1].

        The last flow is the log-reward, which is given.
        """
        before = np.concatenate([[0.0], np.cumsum(logprobs)])
        potentials = flows - before  # F_i + l_i + ... - F_j is a difference of these
        misses = potentials[:, None] - potentials[None, :]
        slopes = 2 * self.weights(len(logprobs)) * misses
        by_flow = slopes.sum(axis=1) - slopes.sum(axis=0)
        # Turn k is in every stretch that begins at or before it and ends behind it.
        by_turn = [slopes[: k + 1, k + 1 :].sum() for k in range(len(logprobs))]
        return np.array(by_turn), by_flow

    def weights(self, turns: int) -> Floats:
        """The weight [n + 1, n + 1] of the stretch from each state to each later one."""
        sizes = np.arange(turns + 1)[None, :] - np.arange(turns + 1)[:, None]
        if self.balance == "detailed":
            return np.where(sizes == 1, 1.0, 0.0)
        weights = np.where(sizes > 0, self.decay ** np.maximum(sizes, 0), 0.0)
        return np.asarray(weights / max(weights.sum(), 1e-300))


def turns_of(response: Response) -> Sequence[TokenSpan]:
    """The turns that have tokens; a response without any is one turn."""
    whole = (TokenSpan(0, len(response.ids)),)
    turns = whole if response.episode is None else response.episode.turns
    return [turn for turn in turns if turn.end > turn.start]
