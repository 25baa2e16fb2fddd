"""Completions that records hold, as responses of their group: pairs without sampling, or beside it.

They share their prompt with each other and with what is sampled. What one earned stands in the
record; where it does not, the task scores it like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mmrl.corpus.ranked import Ranked
from mmrl.engines.engine import Engine, Sampling
from mmrl.engines.targets import written
from mmrl.policy.policy import Policy
from mmrl.rewards.thoughts import continued
from mmrl.types import Group, Prompt, Response, Score

PART = "stored"
"""The reward part of what a stored completion earned."""


@dataclass(frozen=True)
class Stored:
    """Writes completions of records into their groups, in the policy's tokens.

    At most `most` of a group, and none in a group of one; the rest is sampled. None: as many as
    there are places for, and nothing is sampled beside them.
    """

    policy: Policy
    most: int | None

    def sample(
        self,
        engine: Engine,
        prompts: Sequence[Prompt],
        counts: Sequence[int],
        sampling: Sampling,
        seed: int,
    ) -> list[list[Response]]:
        """Groups of counts[i] responses to prompt i, the stored ones first."""
        kept = [self._of(p, n, sampling) for p, n in zip(prompts, counts, strict=True)]
        alone = self.most is None
        rest = [n - len(k) if not (k and alone) else 0 for k, n in zip(kept, counts, strict=True)]
        asked = [i for i, n in enumerate(rest) if n or sampling.greedy_too]
        drawn: list[list[Response]] = [[] for _ in prompts]
        if asked:
            made = engine.generate(
                [prompts[i] for i in asked], [rest[i] for i in asked], sampling, seed
            )
            for i, responses in zip(asked, made, strict=True):
                drawn[i] = responses
        return [[*stored, *new] for stored, new in zip(kept, drawn, strict=True)]

    def _of(self, prompt: Prompt, count: int, sampling: Sampling) -> list[Response]:
        places = count if self.most is None else min(self.most, count)
        return [
            written(self.policy, prompt, text, sampling.max_new_tokens, "stored completion")
            for text, _ in apart(ranked(prompt), places if count > 1 else 0)
        ]


def ranked(prompt: Prompt) -> Ranked:
    """What a prompt's record holds."""
    given = prompt.sample.reference
    return given.ranked if given is not None else ()


def apart(completions: Ranked, count: int) -> Ranked:
    """At most `count` completions, in order: of more, the best and the worst in turns.

    Those without a reward stand in the middle.
    """
    if len(completions) <= count:
        return completions
    known = [reward for _, reward in completions if reward is not None]
    middle = sum(known) / len(known) if known else 0.0
    order = sorted(
        range(len(completions)),
        key=lambda i: -(middle if completions[i][1] is None else completions[i][1] or 0.0),
    )
    turns = [order[n // 2 if n % 2 == 0 else -1 - n // 2] for n in range(count)]
    return tuple(completions[i] for i in sorted(turns))


def with_earned(group: Group) -> Group:
    """The scored group, in which stored completions have what their record says they earned.

    What the task's verifier says of them stays among the parts, and as their metric.
    """
    earned = {continued(group.prompt.opening, text): r for text, r in ranked(group.prompt)}
    if not earned or len(group.responses) < 2:
        return group
    pairs = zip(group.responses, group.scores, strict=True)
    return replace(group, scores=tuple(_earning(s, r, earned.get(r.text)) for r, s in pairs))


def _earning(score: Score, response: Response, reward: float | None) -> Score:
    if reward is None or not np.isnan(response.logprobs).all():
        return score
    status = "ok" if score.status == "unscorable" else score.status
    parts = {**score.parts, PART: reward}
    return replace(score, parts=parts, reward=reward, status=status, reason="")
