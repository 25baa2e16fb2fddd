"""StepGRPO: rewards for key steps reached and for a path in order, on top of a right answer.

R1-VL, arXiv 2503.12937. Records carry `key_steps` in their meta: phrases, or lists of accepted
alternatives. The released code also pays key steps where no answer was given (`variant: code`);
it matches raw substrings, so that "80" matches "180", which this does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.credit import (
    PRESETS,
    FixedGroup,
    GroupCredit,
    GroupRelative,
    Normalise,
    Numerics,
    group_relative,
    outcomes,
    scorable,
)
from mmrl.algorithms.stages.key_steps import KeyStep, is_valid_path, matched_share, scored_steps
from mmrl.errors import UserError
from mmrl.objective import KL
from mmrl.objectives.clipped_ratio import Clipped
from mmrl.stage import Context, Need, Stage, needed, with_rewards
from mmrl.types import Floats, Group, Response, Score, TokenSpan
from mmrl.validation import Section

SUMMARY = "dense rewards for key steps and for a valid path"
PAPER = "arXiv 2503.12937"

Variant = Literal["paper", "code"]


class Params(Section):
    group_size: int = Field(4, gt=0)
    alpha: float = Field(0.1, ge=0, description="weight of the share of key steps reached")
    validity: float = Field(1.0, ge=0, description="weight of a valid path")
    variant: Variant = "paper"
    pay: Literal["sequence", "span"] = Field(
        "sequence", description="span: scored steps pay their own tokens instead"
    )
    numerics: Numerics = "trl"


@dataclass(frozen=True)
class StepRewards(Stage):
    """Replace the reward by accuracy + alpha x key steps reached + a valid path.

    A task that scores `key_steps` and `validity` itself, as reward parts, is taken at its word;
    otherwise both are read off the response's text.
    """

    alpha: float = 0.1
    validity: float = 1.0
    variant: Variant = "paper"
    part: str | None = None

    needs: ClassVar[frozenset[Need]] = frozenset({"key_steps"})

    def __call__(self, groups: list[Group], context: Context) -> list[Group]:
        return [with_rewards(group, self.rewards(group)) for group in groups]

    def rewards(self, group: Group) -> Floats:
        """Rewards [G]: StepRAR + StepRVR, equations 1 and 2."""
        steps = group.prompt.sample.meta.get("key_steps")
        right = outcomes(group, self.part)
        reward = [
            self._reward(float(a), response, score, steps)
            for a, response, score in zip(right, group.responses, group.scores, strict=True)
        ]
        return np.where(scorable(right), reward, np.nan)

    def _reward(
        self, right: float, response: Response, score: Score, steps: Sequence[KeyStep] | None
    ) -> float:
        if {"key_steps", "validity"} <= score.parts.keys():
            share, valid = score.parts["key_steps"], score.parts["validity"]
        elif steps is None and not self.alpha:
            share, valid = 0.0, float(is_valid_path(response.text) and not response.truncated)
        elif steps is None:
            raise UserError("stepgrpo needs `key_steps` in the meta of every sample")
        else:
            share = matched_share(response.text, steps)
            valid = float(is_valid_path(response.text) and not response.truncated)
        answered = score.status not in ("missing", "refusal", "truncated")
        earned = self.alpha * share if answered or self.variant == "code" else 0.0
        return right * answered + earned + self.validity * valid


@dataclass(frozen=True)
class StepSpans(Stage):
    """The group-relative advantage, plus what each step earned on the step's own tokens.

    Step values are normalised over all steps of the group (process supervision of DeepSeekMath,
    arXiv 2402.03300, section 4.1.3), but pay their own tokens only, not those before them.
    """

    normalise: Normalise = PRESETS["trl"].normalise

    needs: ClassVar[frozenset[Need]] = frozenset({"offsets"})

    def __call__(self, group: Group, context: Context) -> list[Floats]:
        base = group_relative(group.rewards, self.normalise)
        spans = group.extra.steps or step_spans(group)
        earned = group_relative(
            np.array([np.nan if s.value is None else s.value for row in spans for s in row]),
            self.normalise,
        )
        values = iter(earned)
        advantages = [np.full(len(r.ids), a) for r, a in zip(group.responses, base, strict=True)]
        for tokens, row in zip(advantages, spans, strict=True):
            for span in row:
                tokens[span.start : span.end] += next(values)
        return advantages


def step_spans(group: Group) -> list[list[TokenSpan]]:
    """The tokens of every step section of every response, each with the key steps it reached."""
    steps = group.prompt.sample.meta.get("key_steps")
    if steps is None:
        raise UserError("stepgrpo needs `key_steps` in the meta of every sample")
    offsets = needed(group.extra.offsets, "offsets")
    spans = []
    for response, starts in zip(group.responses, offsets, strict=True):
        found = scored_steps(response.text, steps)
        edges = [(np.searchsorted(starts[:-1], (start, end)), v) for start, end, v in found]
        spans.append([TokenSpan(int(first), int(last), v) for (first, last), v in edges])
    return spans


def build(params: Params) -> Algorithm:
    """Fill shaping, credit and KL; the rest is GRPO."""
    preset = PRESETS[params.numerics]
    spans = params.pay == "span"
    rewards = StepRewards(0.0 if spans else params.alpha, params.validity, params.variant)
    credit = StepSpans(preset.normalise) if spans else GroupRelative(preset.normalise)
    return Algorithm(
        name="stepgrpo",
        plan=FixedGroup(params.group_size),
        shape=(rewards,),
        credit=GroupCredit(credit),
        objective=Clipped(),
        kl=KL(0.04),
    )
