"""Every objective of preferences and values against its paper's formula, written again in numpy.

A formula gets the log-probs twice: as what is learnt, and as what the paper takes for constants.
Its finite differences over the first are the gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest

from mmrl.algorithms.compose import compose
from mmrl.objective import Objective, Reducer
from mmrl.objectives.advantage_regression import APA, DirectAdvantage
from mmrl.objectives.clipped_ratio import Clipped
from mmrl.objectives.entropy_control import HDPO
from mmrl.objectives.exact_optimisation import EXO
from mmrl.objectives.likelihood import Likelihood
from mmrl.objectives.mirror_descent import HeldByKL
from mmrl.objectives.nash_pairs import DNO, INPO, OnlineIPO
from mmrl.objectives.noisy_labels import NoisyLabels
from mmrl.objectives.on_policy_weights import WPO
from mmrl.objectives.online_kl import HyPO
from mmrl.objectives.other_objectives import MODPO
from mmrl.objectives.preference import Preference
from mmrl.objectives.reference_free import SimPO
from mmrl.objectives.relative_policy_gradient import P3O
from mmrl.objectives.reward_gaps import Margins, RewardAware
from mmrl.objectives.self_refined import SelfRefined
from mmrl.objectives.target_distribution import FDPG
from mmrl.objectives.unpaired import KTO
from mmrl.objectives.weighted_tokens import BMC, DMPO
from mmrl.objectives.win_rate_regression import RSPO, SPPO
from mmrl.objectives.with_likelihood import RegularisedPreference
from mmrl.objectives.worst_group import GroupRobust
from mmrl.papers.paper_files import all_papers
from mmrl.train.losses import token_weights
from mmrl.train.phases import phases_of
from mmrl.types import Response, TrainSample
from tests.train.test_losses import loss_and_gradient, numeric_gradient

Arrays = list[np.ndarray]
GROUPS, SIZE = 2, 4
REWARDS = np.array([[1.0, 0.25, 0.0, 0.25], [-0.5, 0.75, 0.0, 1.5]])


def sigmoid(x: float) -> float:
    return float(1 / (1 + np.exp(-x)))


def log_sigmoid(x: float) -> float:
    return float(-np.logaddexp(0.0, -x))


class Case:
    """Two groups of four ragged sequences with masked tokens, and what formulas read of them."""

    def __init__(self, lengths: Sequence[int], second: str = "random", seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.samples: list[TrainSample] = []
        for place, length in enumerate(lengths):
            mask = rng.random(length) > 0.2
            mask[0] = True
            old = -rng.random(length) * 2
            sequence = float(rng.integers(0, 2)) if second == "flag" else float(rng.random())
            seconds = {
                "random": np.full(length, sequence),
                "flag": np.full(length, sequence),
                "tokens": rng.random(length),
                "bits": rng.integers(0, 2, length).astype(float),
                "steps": np.minimum(np.arange(length) // 2, 3).astype(float),
                "group": np.full(length, 0.5 + place // SIZE),
            }[second]
            self.samples.append(
                TrainSample(
                    prompt=None,
                    response=Response(np.arange(length), old, "", "stop"),
                    advantages=np.full(length, REWARDS.flat[place]),
                    mask=mask,
                    old_logprobs=old,
                    ref_logprobs=old + 0.3 * rng.standard_normal(length) / length**0.5,
                    group=place // SIZE,
                    second=seconds,
                )
            )
        self.at = [
            s.old_logprobs + 0.35 * rng.standard_normal(len(s.mask)) / len(s.mask) ** 0.5
            for s in self.samples
        ]

    def total(self, i: int, values: np.ndarray) -> float:
        return float(values[self.samples[i].mask].sum())

    def ratio(self, i: int, x: Arrays) -> float:
        """log(policy / reference) of a sequence."""
        return self.total(i, x[i] - self.samples[i].ref_logprobs)

    def moved(self, i: int, x: Arrays) -> float:
        """log(policy / old policy) of a sequence."""
        return self.total(i, x[i] - self.samples[i].old_logprobs)

    def reward(self, i: int) -> float:
        return float(self.samples[i].advantages[0])

    def beside(self, i: int) -> float:
        return float(self.samples[i].second[0])

    def members(self, group: int) -> range:
        return range(group * SIZE, (group + 1) * SIZE)

    def over_pairs(self, loss: Callable[[int, int], float], least: float = 0.0) -> float:
        """Mean over groups of the mean over every two of different rewards."""
        means = []
        for group in range(GROUPS):
            pairs = [
                loss(i, j)
                for i, j in permutations(self.members(group), 2)
                if self.reward(i) - self.reward(j) > least
            ]
            means.append(np.mean(pairs) if pairs else 0.0)
        return float(np.mean(means))

    def over_groups(self, loss: Callable[[range], float]) -> float:
        return float(np.mean([loss(self.members(group)) for group in range(GROUPS)]))


Formula = Callable[[Case, Arrays, Arrays], float]


def dpo(c: Case, margin: Callable[[int, int], float]) -> float:
    return c.over_pairs(lambda w, v: -log_sigmoid(margin(w, v)))


def exo_pairs(c: Case, x: Arrays, _: Arrays) -> float:
    def loss(w: int, v: int) -> float:
        p = sigmoid(0.3 * (c.ratio(w, x) - c.ratio(v, x)))
        return p * np.log(p / 0.9) + (1 - p) * np.log((1 - p) / 0.1)

    return c.over_pairs(loss)


def exo_group(c: Case, x: Arrays, _: Arrays) -> float:
    def loss(members: range) -> float:
        p = np.exp([0.3 * c.ratio(i, x) for i in members])
        q = np.exp([c.reward(i) / 0.7 for i in members])
        p, q = p / p.sum(), q / q.sum()
        return float((p * np.log(p / q)).sum())

    return c.over_groups(loss)


def rdpo(c: Case, x: Arrays, _: Arrays) -> float:
    def loss(w: int, v: int) -> float:
        m = 0.3 * (c.ratio(w, x) - c.ratio(v, x))
        return (-0.8 * log_sigmoid(m) + 0.2 * log_sigmoid(-m)) / 0.6

    return c.over_pairs(loss)


def cdpo(c: Case, x: Arrays, _: Arrays) -> float:
    def loss(w: int, v: int) -> float:
        m = 0.3 * (c.ratio(w, x) - c.ratio(v, x))
        return -0.8 * log_sigmoid(m) - 0.2 * log_sigmoid(-m)

    return c.over_pairs(loss)


def h_dpo(c: Case, x: Arrays, _: Arrays) -> float:
    def score(i: int) -> float:
        return 0.3 * (0.8 * c.total(i, x[i]) - c.total(i, c.samples[i].ref_logprobs))

    return dpo(c, lambda w, v: score(w) - score(v))


def wpo(c: Case, x: Arrays, fixed: Arrays) -> float:
    def weight(i: int) -> float:
        inside = (fixed[i] - c.samples[i].second)[c.samples[i].mask]
        return float(np.exp(inside.mean()))

    def loss(w: int, v: int) -> float:
        m = 0.3 * (c.ratio(w, x) - c.ratio(v, x))
        return -weight(w) * weight(v) * log_sigmoid(m)

    return c.over_pairs(loss)


def modpo(c: Case, x: Arrays, _: Arrays) -> float:
    def margin(w: int, v: int) -> float:
        own = 0.3 * (c.ratio(w, x) - c.ratio(v, x))
        return (own - (c.beside(w) - c.beside(v))) / 0.6

    return dpo(c, margin)


def bmc(c: Case, x: Arrays, fixed: Arrays) -> float:
    def score(i: int) -> float:
        s = c.samples[i]
        weight = 1 + s.second * np.minimum(1 / np.exp(fixed[i]), 2.5)
        return c.total(i, weight * (x[i] - s.ref_logprobs))

    return dpo(c, lambda w, v: 0.3 * (score(w) - score(v)))


def dmpo(c: Case, x: Arrays, _: Arrays) -> float:
    def score(i: int) -> float:
        s = c.samples[i]
        return c.total(i, s.second * (x[i] - s.ref_logprobs))

    return dpo(c, lambda w, v: 0.3 * (score(w) - score(v)))


def sr_dpo(c: Case, x: Arrays, _: Arrays) -> float:
    def margin(w: int, v: int) -> float:
        own = c.ratio(w, x) - c.ratio(v, x)
        return 0.3 * (own - 0.5 * (c.beside(w) - c.beside(v)))

    return dpo(c, margin)


def sr_ipo(c: Case, x: Arrays, _: Arrays) -> float:
    def loss(w: int, v: int) -> float:
        own = c.ratio(w, x) - c.ratio(v, x) - 0.5 * (c.beside(w) - c.beside(v))
        return (own - 1 / 0.6) ** 2

    return c.over_pairs(loss)


def rpo_regularised(c: Case, x: Arrays, _: Arrays) -> float:
    def loss(w: int, v: int) -> float:
        m = 0.3 * (c.ratio(w, x) - c.ratio(v, x))
        return -log_sigmoid(m) - 0.4 * c.total(w, x[w])

    return c.over_pairs(loss)


def irpo(c: Case, x: Arrays, _: Arrays) -> float:
    def loss(w: int, v: int) -> float:
        m = 0.3 * (c.ratio(w, x) - c.ratio(v, x))
        return -log_sigmoid(m) - 0.4 * c.total(w, x[w]) / int(c.samples[w].mask.sum())

    return c.over_pairs(loss)


def reward_aware(c: Case, x: Arrays, _: Arrays) -> float:
    def loss(w: int, v: int) -> float:
        a = sigmoid(0.3 * (c.ratio(w, x) - c.ratio(v, x)))
        b = sigmoid(1.5 * (c.reward(w) - c.reward(v)))
        return b * np.log(b / a) + (1 - b) * np.log((1 - b) / (1 - a))

    return c.over_pairs(loss)


def reward_aware_squared(c: Case, x: Arrays, _: Arrays) -> float:
    def loss(w: int, v: int) -> float:
        m = 0.3 * (c.ratio(w, x) - c.ratio(v, x))
        return (m - 1.5 * (c.reward(w) - c.reward(v))) ** 2 / 2

    return c.over_pairs(loss)


def odpo(c: Case, x: Arrays, _: Arrays) -> float:
    def margin(w: int, v: int) -> float:
        m = 0.3 * (c.ratio(w, x) - c.ratio(v, x))
        return m - 0.7 * np.log(c.reward(w) - c.reward(v))

    return dpo(c, margin)


def weighed_far_pairs(c: Case, x: Arrays, _: Arrays) -> float:
    def loss(w: int, v: int) -> float:
        gap = c.reward(w) - c.reward(v)
        return -gap * log_sigmoid(0.3 * (c.ratio(w, x) - c.ratio(v, x)))

    return c.over_pairs(loss, least=0.5)


def hypo(c: Case, x: Arrays, fixed: Arrays) -> float:
    def kl(members: range) -> float:
        own = [i for i in members if c.beside(i)]
        total = 0.0
        for i in own:
            others = [c.ratio(j, fixed) for j in own if j != i]
            baseline = np.mean(others) if others else 0.0
            slope = c.ratio(i, fixed) - baseline
            total += c.ratio(i, fixed) + slope * c.total(i, x[i] - fixed[i])
        return total / max(len(own), 1)

    def pairs(members: range) -> float:
        good = [i for i in members if c.reward(i) > 0]
        bad = [i for i in members if c.reward(i) < 0]
        losses = [-log_sigmoid(0.3 * (c.ratio(i, x) - c.ratio(j, x))) for i in good for j in bad]
        return float(np.mean(losses)) if losses else 0.0

    return c.over_groups(pairs) + 0.2 * c.over_groups(kl)


def kto(c: Case, x: Arrays, _: Arrays) -> float:
    def loss(i: int) -> float:
        gain = 0.3 * (c.ratio(i, x) - c.beside(i))
        if c.reward(i) == 0:
            return 0.0
        return 1.2 * (1 - sigmoid(gain)) if c.reward(i) > 0 else 0.7 * (1 - sigmoid(-gain))

    return float(np.mean([loss(i) for i in range(GROUPS * SIZE)]))


def sppo(c: Case, x: Arrays, _: Arrays) -> float:
    return float(np.mean([(c.moved(i, x) - 0.6 * c.reward(i)) ** 2 for i in range(GROUPS * SIZE)]))


def rspo(c: Case, x: Arrays, fixed: Arrays) -> float:
    def held(i: int) -> float:
        d = x[i] - c.samples[i].ref_logprobs
        return c.total(i, 0.3 * d**2 / 2 + 0.2 * (np.exp(-d) + d - 1))

    return sppo(c, x, fixed) + float(np.mean([held(i) for i in range(GROUPS * SIZE)]))


def dno(c: Case, x: Arrays, _: Arrays) -> float:
    def loss(members: range) -> float:
        losses = []
        for i, j in permutations(members, 2):
            q = sigmoid(c.reward(i) - c.reward(j))
            m = 0.6 * (c.moved(i, x) - c.moved(j, x))
            losses.append(-q * log_sigmoid(m) - (1 - q) * log_sigmoid(-m))
        return float(np.mean(losses))

    return c.over_groups(loss)


def inpo(c: Case, x: Arrays, _: Arrays) -> float:
    def away(i: int) -> float:
        s = c.samples[i]
        own, ref, old = (c.total(i, v) for v in (x[i], s.ref_logprobs, s.old_logprobs))
        return own - 0.25 * ref - 0.75 * old

    return c.over_pairs(lambda w, v: (away(w) - away(v) - 1 / (2 * 0.8)) ** 2)


def online_ipo(c: Case, x: Arrays, _: Arrays) -> float:
    def loss(members: range) -> float:
        return float(
            np.mean(
                [
                    (c.ratio(i, x) - c.ratio(j, x) - (c.reward(i) - c.reward(j)) / 0.4) ** 2
                    for i, j in permutations(members, 2)
                ]
            )
        )

    return c.over_groups(loss)


def p3o(c: Case, x: Arrays, _: Arrays) -> float:
    def clipped(ratio: float, gain: float) -> float:
        return min(ratio * gain, float(np.clip(ratio, 0.9, 1.2)) * gain)

    def loss(members: range) -> float:
        surrogates = []
        for i, j in permutations(members, 2):
            half = (c.reward(i) - c.reward(j)) / 2
            one, other = (float(np.exp(c.moved(k, x))) for k in (i, j))
            surrogates.append(clipped(one, half) + clipped(other, -half))
        return -float(np.mean(surrogates))

    return c.over_groups(loss)


def apa(c: Case, x: Arrays, _: Arrays) -> float:
    losses = [
        ((x[i] - s.ref_logprobs - s.advantages / 0.5) ** 2)[s.mask] for i, s in enumerate(c.samples)
    ]
    return float(np.concatenate(losses).mean())


def direct_advantage(c: Case, x: Arrays, _: Arrays) -> float:
    means = []
    for i, s in enumerate(c.samples):
        steps = [
            (x[i] - s.ref_logprobs)[s.mask & (s.second == step)].sum() - s.advantages[0] / 0.5
            for step in np.unique(s.second[s.mask])
        ]
        means.append(np.mean(np.square(steps)) / 2)
    return float(np.mean(means))


def held_by_kl(kl: Callable[[np.ndarray], np.ndarray]) -> Formula:
    def formula(c: Case, x: Arrays, _: Arrays) -> float:
        losses = []
        for i, s in enumerate(c.samples):
            ratio = np.exp(x[i] - s.old_logprobs)
            losses.append((s.second * kl(ratio) - ratio * s.advantages)[s.mask])
        return float(np.concatenate(losses).mean())

    return formula


def f_dpg(slope: Callable[[np.ndarray], np.ndarray]) -> Formula:
    """The gradient of theorem 1 with the group's mean as baseline, as a loss of value 0."""

    def formula(c: Case, x: Arrays, fixed: Arrays) -> float:
        def loss(members: range) -> float:
            # Long answers have no probability that a float holds: the ratio is made of logs.
            away = np.array([c.ratio(i, fixed) - c.reward(i) / 0.8 for i in members])
            log_z = np.logaddexp.reduce(-away) - np.log(len(away))
            slopes = slope(np.exp(away + log_z))
            moved = np.array([c.total(i, x[i] - fixed[i]) for i in members])
            return float(np.mean((slopes - slopes.mean()) * moved))

        return c.over_groups(loss)

    return formula


def group_robust(c: Case, x: Arrays, _: Arrays) -> float:
    def loss(w: int, v: int) -> float:
        m = 0.3 * (c.ratio(w, x) - c.ratio(v, x))
        return -c.beside(w) * log_sigmoid(m)

    return c.over_pairs(loss)


def group_robust_ipo(c: Case, x: Arrays, _: Arrays) -> float:
    return c.over_pairs(
        lambda w, v: c.beside(w) * (c.ratio(w, x) - c.ratio(v, x) - 1 / (2 * 0.3)) ** 2
    )


def plain_dpo(c: Case, x: Arrays, _: Arrays) -> float:
    return dpo(c, lambda w, v: 0.3 * (c.ratio(w, x) - c.ratio(v, x)))


def plain_ipo(c: Case, x: Arrays, _: Arrays) -> float:
    return c.over_pairs(lambda w, v: (c.ratio(w, x) - c.ratio(v, x) - 1 / (2 * 0.3)) ** 2)


def simpo(c: Case, x: Arrays, _: Arrays) -> float:
    means = [c.total(i, x[i]) / int(s.mask.sum()) for i, s in enumerate(c.samples)]
    return dpo(c, lambda w, v: 2.0 * (means[w] - means[v]) - 0.7)


def clipped(c: Case, x: Arrays, _: Arrays) -> float:
    losses = []
    for i, s in enumerate(c.samples):
        ratio = np.exp(x[i] - s.old_logprobs)
        surrogate = np.minimum(ratio * s.advantages, np.clip(ratio, 0.9, 1.2) * s.advantages)
        losses.append(-surrogate[s.mask])
    return float(np.concatenate(losses).mean())


def likelihood(c: Case, x: Arrays, _: Arrays) -> float:
    losses = [(-x[i] * s.advantages)[s.mask] for i, s in enumerate(c.samples)]
    return float(np.concatenate(losses).mean())


CASES: dict[str, tuple[Objective, Formula, str]] = {
    "dpo": (Preference("dpo", 0.3), plain_dpo, "random"),
    "ipo": (Preference("ipo", 0.3), plain_ipo, "random"),
    "simpo": (SimPO(2.0, 0.7), simpo, "random"),
    "clipped": (Clipped(0.1, 0.2), clipped, "random"),
    "likelihood": (Likelihood(), likelihood, "random"),
    "exo": (EXO(0.3, 0.1), exo_pairs, "random"),
    "exo of groups": (EXO(0.3, temperature=0.7), exo_group, "random"),
    "rdpo": (NoisyLabels(0.3, 0.2), rdpo, "random"),
    "cdpo": (NoisyLabels(0.3, 0.2, unbiased=False), cdpo, "random"),
    "h_dpo": (HDPO(0.3, 0.8), h_dpo, "random"),
    "wpo": (WPO(0.3), wpo, "tokens"),
    "modpo": (MODPO(0.3, 0.6), modpo, "random"),
    "bmc": (BMC(0.3, 2.5), bmc, "bits"),
    "dmpo": (DMPO(0.3), dmpo, "tokens"),
    "sr_dpo": (SelfRefined(0.3, "dpo", 0.5), sr_dpo, "random"),
    "sr_ipo": (SelfRefined(0.3, "ipo", 0.5), sr_ipo, "random"),
    "rpo_regularised": (RegularisedPreference(0.3, 0.4), rpo_regularised, "random"),
    "iterative rpo": (RegularisedPreference(0.3, 0.4, average=True), irpo, "random"),
    "rpo_reward_aware": (RewardAware(0.3, scale=1.5), reward_aware, "random"),
    "rpo_reward_aware squared": (
        RewardAware(0.3, scale=1.5, distance="squared"),
        reward_aware_squared,
        "random",
    ),
    "odpo": (Margins(0.3, offset=0.7, scale="log"), odpo, "random"),
    "margin_weighted": (Margins(0.3, 0.5, offset=0.0, weigh=True), weighed_far_pairs, "random"),
    "hypo": (HyPO(0.3, 0.2), hypo, "flag"),
    "kto": (KTO(0.3, 1.2, 0.7), kto, "random"),
    "sppo": (SPPO(0.6), sppo, "random"),
    "rspo": (RSPO(0.6, 0.3, 0.2), rspo, "random"),
    "dno": (DNO(0.6), dno, "random"),
    "inpo": (INPO(0.8, 0.2), inpo, "random"),
    "online_ipo": (OnlineIPO(0.4), online_ipo, "random"),
    "p3o": (P3O(0.1, 0.2), p3o, "random"),
    "apa": (APA(0.5), apa, "random"),
    "direct_advantage": (DirectAdvantage(0.5), direct_advantage, "steps"),
    "mdpo": (HeldByKL("to_old"), held_by_kl(lambda r: r * np.log(r) - r + 1), "tokens"),
    "fixpo": (HeldByKL("from_old"), held_by_kl(lambda r: r - 1 - np.log(r)), "tokens"),
    "f_dpg kl": (FDPG(0.8, "kl"), f_dpg(lambda t: -1 / t), "random"),
    "f_dpg reverse_kl": (FDPG(0.8, "reverse_kl"), f_dpg(lambda t: np.log(t) + 1), "random"),
    "f_dpg js": (FDPG(0.8, "js"), f_dpg(lambda t: np.log(2 * t / (t + 1))), "random"),
    "f_dpg tv": (FDPG(0.8, "tv"), f_dpg(lambda t: np.sign(t - 1) / 2), "random"),
    "gr_dpo": (GroupRobust(0.3), group_robust, "group"),
    "gr_ipo": (GroupRobust(0.3, "ipo"), group_robust_ipo, "group"),
}
SHORT = (3, 5, 1, 4, 2, 6, 3, 3)
RAGGED = (700, 1, 1900, 37, 12, 2300, 3, 150)


def reducer_of(objective: Objective) -> Reducer:
    return Reducer(objective.reducer or "token-mean")


def test_every_method_of_the_papers_has_its_formula_here() -> None:
    """What the phases of each of their files are trained with is one of the cases."""
    known = {type(objective) for objective, _, _ in CASES.values()}
    methods = [paper for paper in all_papers() if paper.about.group == "preference" and paper.runs]
    used = {
        (paper.id, type(compose(phase.config.algorithm).objective))
        for paper in methods
        for phase in phases_of(paper.config())
    }
    assert len(methods) >= 40
    assert [
        (name, each.__name__) for name, each in sorted(used, key=str) if each not in known
    ] == []


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", [0, 1])
def test_loss_and_gradient_are_those_of_the_formula(name: str, seed: int) -> None:
    objective, formula, second = CASES[name]
    case = Case(SHORT, second, seed)
    loss, gradient = loss_and_gradient(case.samples, case.at, objective, reducer_of(objective))
    assert loss == pytest.approx(formula(case, case.at, case.at), abs=1e-9)
    numeric = numeric_gradient(lambda x: formula(case, x, case.at), case.at)
    flat = np.concatenate(gradient)
    assert np.abs(flat).max() > 1e-3
    np.testing.assert_allclose(flat, np.concatenate(numeric), atol=2e-7)


@pytest.mark.parametrize("name", CASES)
def test_half_precision_and_long_ragged_answers_keep_the_number(name: str) -> None:
    """Log-probs as a half-precision policy has them, up to 2,300 tokens, summed in float32."""
    objective, formula, second = CASES[name]
    case = Case(RAGGED, second)
    rounded = [as_bfloat16(values) for values in case.at]
    reducer = reducer_of(objective)
    loss, gradient = loss_and_gradient(
        case.samples, [v.astype(np.float32) for v in rounded], objective, reducer
    )
    exact, wanted = loss_and_gradient(case.samples, rounded, objective, reducer)
    assert exact == pytest.approx(formula(case, rounded, rounded), rel=1e-7, abs=1e-9)
    assert loss == pytest.approx(exact, rel=2e-3, abs=2e-3)
    found, known = np.concatenate(gradient), np.concatenate(wanted)
    assert np.isfinite(found).all()
    assert np.abs(found - known).max() <= 5e-3 * np.abs(known).max() + 1e-9


def as_bfloat16(values: np.ndarray) -> np.ndarray:
    """Values [T] rounded to bfloat16's eight bits, in float64."""
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x8000) & 0xFFFF0000).astype(np.uint32).view(np.float32).astype(np.float64)


@pytest.mark.parametrize("name", CASES)
def test_masked_tokens_and_the_order_in_the_group_do_not_matter(name: str) -> None:
    objective, _, second = CASES[name]
    case, reducer = Case(SHORT, second), reducer_of(objective)
    loss, gradient = loss_and_gradient(case.samples, case.at, objective, reducer)
    spoilt = [np.where(s.mask, x, np.nan) for s, x in zip(case.samples, case.at, strict=True)]
    other = [
        replace(s, second=np.where(s.mask, s.second, np.inf), ref_logprobs=s.ref_logprobs.copy())
        for s in case.samples
    ]
    order = [2, 0, 3, 1, 7, 5, 4, 6]
    again, same = loss_and_gradient(
        [other[i] for i in order], [spoilt[i] for i in order], objective, reducer
    )
    assert again == pytest.approx(loss)
    for place, i in enumerate(order):
        np.testing.assert_allclose(same[place], gradient[i], atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_micro_batches_of_whole_groups_add_up(name: str) -> None:
    objective, _, second = CASES[name]
    case, reducer = Case(SHORT, second), reducer_of(objective)
    whole, gradient = loss_and_gradient(case.samples, case.at, objective, reducer)
    parts = [
        loss_and_gradient(case.samples[a:b], case.at[a:b], objective, reducer, whole=case.samples)
        for a, b in ((0, 4), (4, 8))
    ]
    assert sum(loss for loss, _ in parts) == pytest.approx(whole)
    joined = np.concatenate([row for _, rows in parts for row in rows])
    np.testing.assert_allclose(joined, np.concatenate(gradient))


@pytest.mark.parametrize("name", CASES)
def test_a_group_of_one_is_finite(name: str) -> None:
    objective, _, second = CASES[name]
    case = Case(SHORT, second)
    loss, gradient = loss_and_gradient(
        case.samples[:1], case.at[:1], objective, reducer_of(objective)
    )
    assert np.isfinite(loss) and np.isfinite(np.concatenate(gradient)).all()
    assert token_weights(case.samples[:1], reducer_of(objective))[0].sum() > 0
