"""Pure parts of credit assignment: baselines, scales, and the map from answers to tokens.

Rewards are floats [G]; NaN, of unscorable answers, enters no baseline or scale and gets 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import numpy as np

from mmrl import plugins
from mmrl.errors import UserError
from mmrl.objective import Reducer
from mmrl.stage import Context, Credit, Need, Stage, needed
from mmrl.types import Bools, Floats, Group, Prompt, Response, TrainSample

Numerics = Literal["paper", "trl", "verl"]
Advantages = Callable[[Group, Context], Sequence[Floats] | Floats]
"""Advantages of one group: [G], or an array [T] for every response."""


@dataclass(frozen=True)
class Normalise:
    """Divide centred rewards by the group's standard deviation plus epsilon.

    `single` says what a group of one scorable answer gets: advantage 0, or its raw reward.
    """

    ddof: int = 1
    epsilon: float = 1e-6
    single: Literal["zero", "raw"] = "zero"


@dataclass(frozen=True)
class Preset:
    """What implementations of GRPO disagree on; `dual_clip` None: no dual clip."""

    normalise: Normalise
    reducer: Reducer
    dual_clip: float | None
    kl_clamp: float | None


PRESETS: dict[Numerics, Preset] = {
    "paper": Preset(Normalise(1, 1e-6, "zero"), Reducer("seq-mean-token-mean"), None, None),
    "trl": Preset(Normalise(1, 1e-4, "zero"), Reducer("token-mean"), None, None),
    "verl": Preset(Normalise(1, 1e-6, "raw"), Reducer("token-mean"), 3.0, 20.0),
}
"""Numeric policies. The papers leave ddof and epsilon open; "paper" is the common reading."""


def scorable(rewards: Floats) -> Bools:
    """True [G] where an answer has a reward.

    >>> scorable(np.array([0.0, np.nan])).tolist()
    [True, False]
    """
    return np.isfinite(rewards)


def centre(rewards: Floats) -> Floats:
    """Subtract the mean of the scorable rewards [G]."""
    valid = scorable(rewards)
    if not valid.any():
        return np.zeros_like(rewards)
    return np.where(valid, rewards - rewards[valid].mean(), 0.0)


def is_uniform(rewards: Floats) -> bool:
    """True if the scorable rewards [G] are all the same, so that they teach nothing."""
    known = rewards[scorable(rewards)]
    return len(known) == 0 or bool(np.ptp(known) == 0)


def group_relative(rewards: Floats, normalise: Normalise | None) -> Floats:
    """Advantages [G] of GRPO (normalised) or Dr. GRPO (None: centred only).

    DeepSeekMath, arXiv 2402.03300, section 4.1.2; Dr. GRPO, arXiv 2503.20783.
    """
    valid = scorable(rewards)
    if normalise is None:
        return centre(rewards)
    if valid.sum() <= 1:
        raw = normalise.single == "raw"
        return np.where(valid, rewards, 0.0) if raw else np.zeros_like(rewards)
    scale = rewards[valid].std(ddof=normalise.ddof) + normalise.epsilon
    return np.asarray(centre(rewards) / scale)


def leave_one_out(rewards: Floats, single: Literal["zero", "raw"] = "zero") -> Floats:
    """Subtract the mean of the other scorable rewards [G]. RLOO, arXiv 2402.14740."""
    valid = scorable(rewards)
    count = int(valid.sum())
    if count <= 1:
        return np.where(valid, rewards, 0.0) if single == "raw" else np.zeros_like(rewards)
    return np.asarray(centre(rewards) * count / (count - 1))


def length_weighted(rewards: Floats, lengths: Floats) -> Floats:
    """Subtract the length-weighted mean reward [G]. OPO, arXiv 2505.23585.

    Where no scorable answer has a token, the plain mean is subtracted.
    """
    valid = scorable(rewards)
    weights = np.where(valid, lengths, 0.0)
    if not weights.sum():
        return centre(rewards)
    known = np.where(valid, rewards, 0.0)
    return np.where(valid, known - (weights * known).sum() / weights.sum(), 0.0)


def whiten(values: Sequence[Floats], ddof: int = 1, epsilon: float = 1e-8) -> list[Floats]:
    """Normalise all tokens, [T] a response, together; a constant or single token becomes 0.

    The variance is divided by (tokens - ddof) and gets `epsilon` under the root.
    """
    flat = np.concatenate([np.zeros(0), *values])
    if len(flat) <= ddof:
        return [np.zeros_like(v) for v in values]
    scale = np.sqrt(flat.var(ddof=ddof) + epsilon)
    return [np.asarray((v - flat.mean()) / scale) for v in values]


def returns_to_go(rewards: Floats, gamma: float) -> Floats:
    """Discounted sum [T] of what is still to come: R_t = r_t + gamma R_{t+1}."""
    returns = np.zeros_like(rewards)
    running = 0.0
    for t in reversed(range(len(rewards))):
        running = float(rewards[t]) + gamma * running
        returns[t] = running
    return returns


def gae(rewards: Floats, values: Floats, gamma: float, lam: float, last: float = 0.0) -> Floats:
    """Generalised advantage estimates [T]; `last` is the value after the end.

    Schulman et al., arXiv 1506.02438, equation 16.
    """
    following = np.append(values[1:], last)
    return returns_to_go(rewards + gamma * following - values, gamma * lam)


def lengths_of(group: Group) -> Floats:
    """Response lengths [G] in tokens that the model wrote."""
    return np.array([float(r.written.sum()) for r in group.responses])


def outcomes(group: Group, part: str | None = None) -> Floats:
    """What the answers got for being right [G], NaN where unscorable.

    `part` names the reward part; None: `accuracy` where the task has it, else the whole reward.
    """
    name = part or "accuracy"
    if part is None and not all(name in s.parts for s in group.scores if s.reward is not None):
        return group.rewards
    scored = [s for s in group.scores if s.reward is not None]
    if scored and not any(name in s.parts for s in scored):
        known = ", ".join(scored[0].parts) or "none"
        task = group.prompt.sample.task
        raise UserError(f"task '{task}' has no reward part '{name}'; known: {known}")
    values = [np.nan if s.reward is None else s.parts.get(name, np.nan) for s in group.scores]
    return np.array(values, dtype=float)


def families(groups: Sequence[Group]) -> list[list[Group]]:
    """Put together the groups of variants of one sample; a sample asked twice stays apart."""
    found: list[list[Group]] = []
    for group in groups:
        sample = group.prompt.sample
        previous = [g.prompt.sample for g in found[-1]] if found else []
        if any(p.key != sample.key or p.variant == sample.variant for p in previous):
            previous = []
        if previous:
            found[-1].append(group)
        else:
            found.append([group])
    return found


@dataclass(frozen=True)
class FixedGroup(Stage):
    """Plan the same number of responses for every prompt."""

    size: int

    def __call__(self, prompts: Sequence[Prompt], context: Context) -> Sequence[int]:
        return [self.size] * len(prompts)


def pair(
    group: Group,
    advantages: Sequence[Floats] | Floats,
    index: int,
    prompt: Prompt | None = None,
    tie: int | None = None,
) -> list[TrainSample]:
    """Pair the group's responses with a prompt (default: their own) and spread their advantages.

    These are [G], one a response, or [T] for each of them, one a token.
    `index` is the group's place in the step, `tie` ties its samples to those of others (default:
    to no others). Unscorable answers are masked, and tokens that an environment told. A response
    that is paired with another prompt, or whose sampled log-probs are not known (NaN), has no old
    log-probs: the learner computes them if need be. Reference log-probs are those that were
    measured for the rewards, if any were.
    """
    away = prompt is not None and prompt is not group.prompt
    known = scorable(group.rewards)
    reference = None if away else group.extra.reference
    return [
        TrainSample(
            prompt=prompt or group.prompt,
            response=response,
            advantages=np.broadcast_to(advantages[i], len(response.ids)).astype(float),
            mask=known[i] & response.written,
            old_logprobs=None if away or np.isnan(response.logprobs).any() else response.logprobs,
            ref_logprobs=None if reference is None else reference[i],
            group=index if tie is None else tie,
            sampled=not (away or np.isnan(response.logprobs).any()),
            origin=(index, i),
            older=i in group.extra.replayed,
        )
        for i, response in enumerate(group.responses)
    ]


@dataclass(frozen=True)
class GroupCredit(Stage):
    """Every group by itself: its advantages, its responses under their own prompt."""

    advantages: Advantages

    def __call__(self, groups: list[Group], context: Context) -> list[TrainSample]:
        return [
            sample
            for index, group in enumerate(groups)
            for sample in pair(group, self.advantages(group, context), index)
        ]


@dataclass(frozen=True)
class GroupRelative(Stage):
    """GRPO's advantages [G], or Dr. GRPO's where `normalise` is None."""

    normalise: Normalise | None = PRESETS["paper"].normalise

    def __call__(self, group: Group, context: Context) -> Floats:
        return group_relative(group.rewards, self.normalise)


@dataclass(frozen=True)
class LeaveOneOut(Stage):
    """RLOO's advantages [G]."""

    single: Literal["zero", "raw"] = "zero"

    def __call__(self, group: Group, context: Context) -> Floats:
        return leave_one_out(group.rewards, self.single)


@dataclass(frozen=True)
class LengthWeighted(Stage):
    """OPO's advantages [G]."""

    def __call__(self, group: Group, context: Context) -> Floats:
        return length_weighted(group.rewards, lengths_of(group))


@dataclass(frozen=True)
class RawReward(Stage):
    """The reward itself [G], at least `floor`, less `baseline`: REINFORCE, rejection at 0."""

    floor: float = -np.inf
    baseline: float = 0.0

    def __call__(self, group: Group, context: Context) -> Floats:
        rewards = group.rewards
        return np.where(scorable(rewards), np.maximum(rewards, self.floor) - self.baseline, 0.0)


@dataclass(frozen=True)
class GreedyBaseline(Stage):
    """ReMax: the reward minus that of a greedy answer to the same prompt [G]. arXiv 2310.10505.

    Without a reward of the greedy answer there is nothing to compare with: 0.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"greedy"})

    def __call__(self, group: Group, context: Context) -> Floats:
        rewards, greedy = group.rewards, needed(group.extra.greedy, "greedy")
        return np.where(scorable(rewards) & np.isfinite(greedy), rewards - greedy, 0.0)


@dataclass(frozen=True)
class PartsRelative(Stage):
    """Normalise every reward part within the group, then add them with their weights [G].

    A part that hardly varies then counts as much as one that varies a lot. Without weights, every
    part counts 1.
    """

    weights: Mapping[str, float] = field(default_factory=dict)
    normalise: Normalise = PRESETS["trl"].normalise

    def __call__(self, group: Group, context: Context) -> Floats:
        names = dict.fromkeys(name for score in group.scores for name in score.parts)
        weights = self.weights or dict.fromkeys(names, 1.0)
        parts = (
            weight * group_relative(outcomes(group, part), self.normalise)
            for part, weight in weights.items()
        )
        return np.asarray(sum(parts, np.zeros(len(group.scores))))


@dataclass(frozen=True)
class TokenReturns(Stage):
    """The discounted return of every token, whitened over the batch. REINFORCE++, arXiv 2501.03262.

    A token earns its KL penalty, the last one the reward too.
    """

    gamma: float = 1.0
    ddof: int = 1
    epsilon: float = 1e-8

    spends_penalties: ClassVar[bool] = True

    def __call__(self, groups: list[Group], context: Context) -> list[TrainSample]:
        samples = [s for i, group in enumerate(groups) for s in pair(group, self.returns(group), i)]
        return whitened(samples, self.ddof, self.epsilon)

    def returns(self, group: Group) -> list[Floats]:
        """Return-to-go [T] of every response, before whitening."""
        return [
            over_written(response, lambda r: returns_to_go(r, self.gamma), rewards)
            for response, rewards in zip(group.responses, token_rewards(group), strict=True)
        ]


def over_written(response: Response, recursion: Callable[..., Floats], *arrays: Floats) -> Floats:
    """Run a recursion over the tokens that the model wrote, as if no others stood between [T]."""
    values = np.zeros(len(response.ids))
    values[response.written] = recursion(*(array[response.written] for array in arrays))
    return values


def token_rewards(group: Group) -> list[Floats]:
    """Rewards [T] of every response: minus its penalties, and its reward at the last token."""
    penalties = group.extra.penalties
    if penalties is None:
        penalties = [np.zeros(len(response.ids)) for response in group.responses]
    rewards = [-np.asarray(penalty) for penalty in penalties]
    for tokens, reward in zip(rewards, np.nan_to_num(group.rewards), strict=True):
        tokens[-1:] += reward
    return rewards


@dataclass(frozen=True)
class Whitened(Stage):
    """Centre within groups, spread over tokens, then normalise all tokens of the batch together.

    The baseline variant of REINFORCE++, arXiv 2501.03262. `verl` has ddof 1, OpenRLHF ddof 0.
    """

    ddof: int = 1
    epsilon: float = 1e-8

    def __call__(self, groups: list[Group], context: Context) -> list[TrainSample]:
        samples = [
            s for i, group in enumerate(groups) for s in pair(group, centre(group.rewards), i)
        ]
        return whitened(samples, self.ddof, self.epsilon)


def whitened(samples: Sequence[TrainSample], ddof: int, epsilon: float) -> list[TrainSample]:
    """Whiten the advantages of all unmasked tokens together; masked ones become 0."""
    kept = whiten([s.advantages[s.mask] for s in samples], ddof, epsilon)
    whole = [np.zeros_like(s.advantages) for s in samples]
    for target, sample, values in zip(whole, samples, kept, strict=True):
        target[sample.mask] = values
    return [replace(s, advantages=a) for s, a in zip(samples, whole, strict=True)]


CREDITS: Mapping[str, Credit] = plugins.Named(
    "mmrl.credits",
    {
        "group_relative": GroupCredit(GroupRelative()),
        "centred": GroupCredit(GroupRelative(None)),
        "leave_one_out": GroupCredit(LeaveOneOut()),
        "length_weighted": GroupCredit(LengthWeighted()),
        "raw": GroupCredit(RawReward()),
        "parts_relative": GroupCredit(PartsRelative()),
        "whitened": Whitened(),
        "token_returns": TokenReturns(),
    },
)
"""Credit stages by the name a config uses."""
