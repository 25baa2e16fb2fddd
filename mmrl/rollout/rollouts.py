"""Prompts -> scored groups: everything that happens between asking and crediting."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mmrl.engines.engine import Engine, Sampling
from mmrl.errors import TrainingError
from mmrl.rollout.resets import FromWithin
from mmrl.rollout.stored import Stored, with_earned
from mmrl.rollout.thinking import Thinking, answers_of, settle
from mmrl.rollout_config import RolloutConfig
from mmrl.scoring.groups import score_groups
from mmrl.scoring.judges.panel import Panel
from mmrl.scoring.pool import OUTSIDE, Scores
from mmrl.task import Moment
from mmrl.types import Group, Prompt


@dataclass(frozen=True)
class Rollouts:
    """Samples with an engine and scores with the tasks' own verifiers.

    `greedy_too`: every group also carries the reward of a greedy answer, as `greedy`. `thinking`
    asks for answers at budgets of thinking; chains are then groups too, with their `steps`. `panel`
    are models that judge the answers besides. `stored` puts completions of records into groups,
    `within` begins answers within them.
    """

    engine: Engine
    scorer: Scores
    config: RolloutConfig
    greedy_too: bool = False
    thinking: Thinking | None = None
    panel: Panel | None = None
    stored: Stored | None = None
    within: FromWithin | None = None

    def sample(
        self, prompts: Sequence[Prompt], counts: Sequence[int], length: int | None, seed: int
    ) -> list[Group]:
        """Roll out counts[i] responses of at most `length` tokens (None: as configured)."""
        sampling = Sampling(
            max_new_tokens=length or self.config.max_new_tokens,
            temperature=self.config.temperature,
            top_p=self.config.top_p,
            top_k=self.config.top_k,
            greedy_too=self.greedy_too,
        )
        if self.thinking is not None:
            return self.thinking.sample(self.engine, prompts, counts, sampling, seed)
        if self.within is not None:
            return self.within.sample(self.engine, prompts, counts, sampling, seed)
        if self.stored is not None:
            responses = self.stored.sample(self.engine, prompts, counts, sampling, seed)
        else:
            trained = replace(sampling, to_train=True)
            responses = self.engine.generate(prompts, counts, trained, seed)
        return [
            Group(prompt, tuple(group), ())
            for prompt, group in zip(prompts, responses, strict=True)
        ]

    def score(self, groups: Sequence[Group], moment: Moment = OUTSIDE) -> list[Group]:
        """Score every response; raises TrainingError where too many could not be scored."""
        scored = score_groups(self.scorer, answers_of(groups), moment)
        if self.panel is not None:
            scored = self.panel.judge(scored)
        if self.stored is not None:
            scored = [with_earned(group) for group in scored]
        self._check(scored)
        if self.thinking is not None:
            return settle(groups, scored)
        return [_greedy_apart(group) for group in scored] if self.greedy_too else scored

    def metrics(self) -> dict[str, float]:
        """What judging has cost since the last call."""
        return self.panel.metrics() if self.panel else {}

    def _check(self, scored: Sequence[Group]) -> None:
        rewards = np.concatenate([group.rewards for group in scored] or [np.zeros(0)])
        share = float(np.isnan(rewards).mean()) if len(rewards) else 0.0
        if share > self.config.max_unscorable_share:
            reasons = Counter(s.reason for g in scored for s in g.scores if s.reward is None)
            ((reason, count),) = reasons.most_common(1)
            if count == len(rewards):
                played = any(r.episode and r.episode.failure for g in scored for r in g.responses)
                what = "the environment fails in every episode"
                if not played:
                    what = "the reward fails on every answer, whatever the model says"
                raise TrainingError(f"{what}: {reason}")
            raise TrainingError(
                f"{share:.0%} of the answers could not be scored, over rollout."
                f"max_unscorable_share={self.config.max_unscorable_share}: {reason}"
            )


def _greedy_apart(group: Group) -> Group:
    """Take the greedy answer, the last one, out of a group; its reward stays (None: NaN)."""
    *scores, greedy = group.scores
    reward = float("nan") if greedy.reward is None else greedy.reward
    return replace(
        group,
        responses=group.responses[:-1],
        scores=tuple(scores),
        extra=replace(group.extra, greedy=reward),
    )
