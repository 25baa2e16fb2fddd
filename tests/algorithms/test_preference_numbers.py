"""Preference and value methods on numbers small enough to be worked by hand.

Two answers of 10 and 20 tokens with log-probs -12 and -15, the reference's are -13 and -14:
log-ratios are 1 and -1, their margin 2, and beta 0.1 makes it 0.2. softplus(-0.2) = 0.598139 is
DPO's loss.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mmrl.algorithms.bmc import differing
from mmrl.algorithms.cgpo import Calibrated, ConstrainedPair, Constraints
from mmrl.algorithms.compose import compose
from mmrl.algorithms.direct_advantage import step_advantages, step_numbers
from mmrl.algorithms.dmpo import turn_weights
from mmrl.algorithms.dvpo import values_after
from mmrl.algorithms.fixpo import moved
from mmrl.algorithms.gr_dpo import moved_weights
from mmrl.algorithms.kto import reference_point
from mmrl.algorithms.mdpo import FallingStepSize
from mmrl.algorithms.ppo_max import NormalisedRewards, merged
from mmrl.algorithms.stages.credit import token_rewards
from mmrl.algorithms.stages.pairs import Paired
from mmrl.algorithms.stages.win_rates import WinRates, win_rates
from mmrl.errors import UserError
from mmrl.objective import Reducer
from mmrl.objectives.advantage_regression import DirectAdvantage
from mmrl.objectives.clipped_ratio import Clipped
from mmrl.train.correction import Correction, correct
from mmrl.types import Response, TrainSample
from tests.algorithms.cases import context, evaluate, group
from tests.train.test_correction import sample as drawn
from tests.train.test_losses import loss_and_gradient

DPO = 0.598139


def answers(chosen: float = 1.0, rejected: float = 0.0, **more: Any) -> list[dict[str, Any]]:
    """The two answers of the head of this file; `more` are values of both, as pairs."""
    rows = []
    for i, (reward, total, ref, length) in enumerate(
        ((chosen, -12.0, -13.0, 10), (rejected, -15.0, -14.0, 20))
    ):
        row = {
            "reward": reward,
            "logprobs": [total / length] * length,
            "ref_logprobs": [ref / length] * length,
        }
        rows.append(row | {key: values[i] for key, values in more.items()})
    return rows


def loss(name: str, rows: list[dict[str, Any]] | None = None, **more: Any) -> float:
    return float(evaluate(name, [rows or answers()], **more)["loss"])


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


LOSSES: dict[str, tuple[dict[str, Any], float]] = {
    # name, options: loss
    "dpo": ({}, DPO),
    # p = sigmoid(0.2) = 0.549834: p log(p / 0.999) + (1 - p) log((1 - p) / 0.001)
    "exo": ({}, 2.422015),
    # (0.9 x 0.598139 - 0.1 x 0.798139) / 0.8
    "rdpo": ({}, 0.573139),
    # 0.1 (0.8 x 3 - 1) = 0.14
    "h_dpo": ({"alpha": 0.8}, 0.625595),
    # DPO + 0.005 x 12
    "rpo_regularised": ({}, DPO + 0.06),
    # scale 1.5, gap 1: KL of sigmoid(1.5) = 0.817574 and sigmoid(0.2)
    "rpo_reward_aware": ({"scale": 1.5}, 0.159572),
    # 0.2 - 0.5 x 1
    "odpo": ({"offset": 0.5}, 0.854355),
    # both answers alike: a gap of 1 is above 0.5 log(0.8 / 0.2) = 0.693
    "rs_dpo": ({}, DPO),
    "tr_dpo": ({}, DPO),
    "iterative_dpo": ({}, DPO),
}


@pytest.mark.parametrize("name", LOSSES)
def test_pair_losses(name: str) -> None:
    options, expected = LOSSES[name]
    assert loss(name, **options) == pytest.approx(expected, abs=1e-6)


def test_options_of_pair_losses() -> None:
    assert loss("rdpo", unbiased=False) == pytest.approx(0.618139, abs=1e-6)
    # the likelihood of a token: 12 / 10
    found = loss("rpo_regularised", likelihood=1.0, average=True)
    assert found == pytest.approx(DPO + 1.2, abs=1e-6)
    squared = loss("rpo_reward_aware", scale=1.5, distance="squared")
    assert squared == pytest.approx((0.2 - 1.5) ** 2 / 2, abs=1e-9)
    half = answers(0.75, 0.25)
    # 0.2 - 0.5 log(0.5) = 0.546574; weighed: 0.5 x DPO
    assert loss("odpo", half, offset=0.5, scale="log") == pytest.approx(0.456747, abs=1e-6)
    assert loss("odpo", half, offset=0.0, weigh=True) == pytest.approx(DPO / 2, abs=1e-6)
    assert loss("rs_dpo", half) == 0.0  # a gap of 0.5 is no pair
    assert loss("rs_dpo", half, tau=0.3) == pytest.approx(DPO, abs=1e-6)  # of 0.416 it is
    # IPO against the same: (2 - 1 / 0.2)^2
    assert loss("tr_dpo", loss="ipo") == pytest.approx(9.0, abs=1e-9)


def test_exo_among_three_answers() -> None:
    """Log-ratios 1, -1, 0 x 0.1 against rewards 1, 0, 0.5 / 0.5: KL of two soft maxima."""
    rows = [
        {"reward": r, "logprobs": [-1.0 + d], "ref_logprobs": [-1.0]}
        for r, d in ((1.0, 1.0), (0.0, -1.0), (0.5, 0.0))
    ]
    assert loss("exo", rows, temperature=0.5) == pytest.approx(0.245763, abs=1e-6)


def test_wpo_weighs_by_both_answers() -> None:
    """exp(-1.2 + 1) = 0.818731 and exp(-0.75 + 1) = 1.284025, whose product is 1.051271."""
    rows = answers(collision=([-1.0] * 10, [-1.0] * 20))
    assert loss("wpo", rows) == pytest.approx(1.051271 * DPO, abs=1e-6)


def test_modpo_takes_off_what_other_parts_pay() -> None:
    """(0.2 - (0.4 x 0.5 - 0.4 x 1)) / 0.6 = 0.666667."""
    rows = answers()
    rows[0]["reward"], rows[1]["reward"] = (
        {"accuracy": 1.0, "brief": 0.5},
        {"accuracy": 0.0, "brief": 1.0},
    )
    found = loss("modpo", rows, weight=0.6)
    assert found == pytest.approx(softplus(-0.6666667), abs=1e-6)
    assert found == pytest.approx(0.414370, abs=1e-6)
    assert loss("modpo", rows, weight=0.6, others={"brief": 0.0}) == pytest.approx(
        softplus(-0.2 / 0.6), abs=1e-9
    )


def test_bmc_presses_tokens_that_differ_and_are_unsure() -> None:
    """Ids 0 1 2 against 0 3 2: the middle ones differ. 1 / p is 2 and 10, which delta 4 bounds.

    Log-ratios of tokens are 0.1 and -0.2 each: 0.1 (2 + 3) = 0.5 against -0.2 (2 + 5) = -1.4.
    """
    logs = ([-1.0, math.log(0.5), -1.0], [-1.0, math.log(0.1), -1.0])
    rows = [
        {
            "reward": reward,
            "ids": ids,
            "logprobs": own,
            "ref_logprobs": [value - apart for value in own],
        }
        for reward, ids, own, apart in (
            (1.0, [0, 1, 2], logs[0], 0.1),
            (0.0, [0, 3, 2], logs[1], -0.2),
        )
    ]
    found = loss("bmc", rows, delta=4.0)
    assert found == pytest.approx(softplus(-0.1 * (0.5 + 1.4)), abs=1e-9)
    first, second = differing(np.array([5, 6, 7, 8]), np.array([5, 7, 9]))
    assert (first.tolist(), second.tolist()) == ([0, 1, 0, 1], [0, 0, 1])


def test_sr_dpo_takes_the_policys_own_margin_off() -> None:
    """Aided log-probs -10 and -14: 0.1 (2 - 0.25 x 4) = 0.1; IPO: (1 - 5)^2."""
    rows = answers(aided=(-10.0, -14.0))
    assert loss("sr_dpo", rows, strength=0.25) == pytest.approx(0.644397, abs=1e-6)
    assert loss("sr_dpo", rows, strength=0.25, loss="ipo") == pytest.approx(16.0, abs=1e-9)


def test_kto_compares_each_answer_with_the_reference_point() -> None:
    """Points 0.8 and 0.2 of two groups: 0.5. 1 - sigmoid(0.05), and 1.5 (1 - sigmoid(0.15))."""
    one, other = answers()
    result = evaluate("kto", [[one], [other]], mismatched=[0.8, 0.2], bad=1.5)
    assert result["loss"] == pytest.approx(0.590679, abs=1e-6)
    assert reference_point([0.1, -0.5]) == 0.0


def test_hypo_adds_the_kl_of_what_was_sampled() -> None:
    """Sampled answers with log-ratios 0.5 and -0.1: the KL is 0.2, slopes are less the other's."""
    pair = answers(stored=(True, True))
    more = [
        {"reward": 1.0, "logprobs": [-1.0], "ref_logprobs": [-1.5]},
        {"reward": 0.0, "logprobs": [-1.0], "ref_logprobs": [-0.9]},
    ]
    result = evaluate("hypo", [[*pair, *more]], online=0.5)
    assert result["loss"] == pytest.approx(DPO + 0.5 * 0.2, abs=1e-6)
    slopes = [row[0] for row in result["gradient"][0][2:]]
    np.testing.assert_allclose(slopes, [0.5 * 0.6 / 2, -0.5 * 0.6 / 2], atol=1e-9)
    alone = evaluate("hypo", [more], online=0.5)
    assert alone["loss"] == pytest.approx(0.1, abs=1e-9)


def test_group_robust_weights_follow_the_losses() -> None:
    """Losses 0.2 and 0.8 of two kinds at rate 0.5: exp(0.1) and exp(0.4), over their sum."""
    found = moved_weights({}, {"a": [0.1, 0.3], "b": [0.8]}, 0.5)
    assert found == pytest.approx({"a": 0.425557, "b": 0.574443}, abs=1e-6)
    again = moved_weights(found, {"b": [0.8]}, 0.5)
    assert again["b"] == pytest.approx(0.574443 * 1.491825 / (0.425557 + 0.856968), abs=1e-5)


def test_group_robust_weights_stay_numbers_where_losses_are_large() -> None:
    """IPO's at beta 0.01 is 2,500: exp(1,250) is no number, exp(-20) beside 1 is."""
    found = moved_weights({}, {"a": [2500.0], "b": [2460.0]}, 0.5)
    assert found == pytest.approx({"a": 1.0, "b": math.exp(-20)}, rel=1e-6)
    far = moved_weights({}, {"a": [5000.0], "b": [0.0]}, 0.5)
    assert far["a"] == 1.0 and 0 <= far["b"] < 1e-300
    back = moved_weights(far, {"a": [0.0], "b": [2500.0]}, 0.5)
    assert all(math.isfinite(weight) for weight in back.values())
    assert back["b"] > back["a"]


def test_group_robust_dpo_counts_kinds_by_their_weights() -> None:
    """Two pairs of kind a and one of b: a pair of a counts w(a) / (2/3), that of b w(b) / (1/3)."""
    rows = answers(implied=(1.0, -1.0))
    meta = [{"kind": kind} for kind in ("a", "a", "b")]
    result = evaluate("gr_dpo", [rows] * 3, meta=meta, kind="kind", rate=0.5)
    # The same loss everywhere, so weights stay equal and the loss is DPO's.
    assert result["state"]["kind_weights"] == pytest.approx({"a": 0.5, "b": 0.5})
    assert result["loss"] == pytest.approx(DPO, abs=1e-6)
    first, _, last = (group[0][0] for group in result["gradient"])
    plain = evaluate("dpo", [rows] * 3)["gradient"][0][0][0]
    assert first / plain == pytest.approx(0.75) and last / plain == pytest.approx(1.5)


# --- self-play -----------------------------------------------------------------------------------

WON = [1.0, 0.5, 0.0, 0.5]
"""Win rates are (0 to 4 beaten, equals by half) / 4: 0.875, 0.5, 0.125, 0.5."""


def played(deltas: tuple[float, ...] = (0.2, 0.0, -0.4, 0.1)) -> list[dict[str, Any]]:
    """Answers whose log-ratios to the old policy are these, to the reference 0.1 more."""
    return [
        {
            "reward": reward,
            "logprobs": [-1.0 + delta],
            "old_logprobs": [-1.0],
            "ref_logprobs": [-1.1],
        }
        for reward, delta in zip(WON, deltas, strict=True)
    ]


def test_win_rates() -> None:
    np.testing.assert_allclose(win_rates(np.array(WON)), [0.875, 0.5, 0.125, 0.5])
    made = group([1.0, None, 0.0])
    rates = WinRates("centred")(made, context())
    np.testing.assert_allclose(rates, [0.25, 0.0, -0.25])
    odds = WinRates("log_odds")(group(WON), context())
    np.testing.assert_allclose(odds, [math.log(7), 0, -math.log(7), 0], atol=1e-12)


def test_a_judge_says_the_win_rate() -> None:
    rows = played()
    for row, rate in zip(rows, (0.9, 0.2, 0.6, 0.3), strict=True):
        row["reward"] = {"judge": rate, "format": 1.0}
    found = evaluate("sppo", [rows], part="judge")["advantages"][0]
    np.testing.assert_allclose([row[0] for row in found], [0.4, -0.3, 0.1, -0.2])


def test_sppo_regresses_on_win_rates() -> None:
    """(0.2 - 0.375)^2, 0, (-0.4 + 0.375)^2, 0.1^2 over 4."""
    expected = (0.030625 + 0.0 + 0.000625 + 0.01) / 4
    assert loss("sppo", played()) == pytest.approx(expected, abs=1e-9)
    # eta 2: wanted are twice that.
    twice = ((0.2 - 0.75) ** 2 + 0.0 + (-0.4 + 0.75) ** 2 + 0.01) / 4
    assert loss("sppo", played(), eta=2.0) == pytest.approx(twice, abs=1e-9)


def test_rspo_adds_both_kls() -> None:
    """d = 0.3, 0.1, -0.3, 0.2: k2 is d^2 / 2, k3 exp(-d) + d - 1."""
    d = (0.3, 0.1, -0.3, 0.2)
    k2 = sum(x * x / 2 for x in d) / 4
    k3 = sum(math.exp(-x) + x - 1 for x in d) / 4
    found = loss("rspo", played(), reverse=0.5, forward=0.25)
    assert found == pytest.approx(0.0103125 + 0.5 * k2 + 0.25 * k3, abs=1e-9)


def test_gpo_regresses_on_log_odds() -> None:
    """log(7) = 1.945910 divided by beta 2."""
    wanted = math.log(7) / 2
    expected = ((0.2 - wanted) ** 2 + (wanted - 0.4) ** 2 + 0.01) / 4
    assert loss("gpo", played(), beta=2.0) == pytest.approx(expected, abs=1e-9)


def test_dno_is_the_cross_entropy_of_odds() -> None:
    """Two answers: win rates 0.75 and 0.25, odds sigmoid(0.5); margin 0.6 of log-ratios."""
    rows = [played()[0], played()[2]]
    q = 1 / (1 + math.exp(-0.5))
    expected = q * softplus(-0.6) + (1 - q) * softplus(0.6)
    assert loss("dno", rows) == pytest.approx(expected, abs=1e-9)


def test_inpo_mixes_reference_and_old_policy() -> None:
    """The reference is the same distance from both, so the margin is 0.6, wanted 1 / 1.6."""
    rows = [played()[0], played()[2]]
    assert loss("inpo", rows, eta=0.8, tau=0.2) == pytest.approx((0.6 - 0.625) ** 2, abs=1e-9)
    rows[0]["ref_logprobs"] = [-1.5]  # a quarter of 0.4 more
    assert loss("inpo", rows, eta=0.8, tau=0.2) == pytest.approx((0.7 - 0.625) ** 2, abs=1e-9)


def test_p3o_clips_each_answer_by_itself() -> None:
    """Ratios e^0.5 = 1.65 and e^-0.5 = 0.61 by half the gap: 1.2 x 0.5 and 0.8 x -0.5 are worse."""
    rows = [
        {"reward": 1.0, "logprobs": [-0.5], "old_logprobs": [-1.0]},
        {"reward": 0.0, "logprobs": [-1.5], "old_logprobs": [-1.0]},
    ]
    result = evaluate("p3o", [rows], kl=None)
    assert result["loss"] == pytest.approx(-(1.2 * 0.5 - 0.8 * 0.5), abs=1e-9)
    assert not np.any(result["gradient"][0])
    # Within the clip the gradient of each is its ratio times half the gap.
    rows[0]["logprobs"], rows[1]["logprobs"] = [-0.9], [-1.1]
    slopes = [row[0] for row in evaluate("p3o", [rows], kl=None)["gradient"][0]]
    np.testing.assert_allclose(slopes, [-math.exp(0.1) / 2, math.exp(-0.1) / 2])


# --- advantages and values -----------------------------------------------------------------------


def test_apa_regresses_every_token() -> None:
    """One token: value 0.5, reward 1, advantage 0.5; (0.3 - 0.5 / 2)^2."""
    rows = [{"reward": 1.0, "logprobs": [-0.7], "ref_logprobs": [-1.0], "values": [0.5]}]
    assert loss("apa", rows, temperature=2.0) == pytest.approx(0.0025, abs=1e-9)


def test_steps_end_with_their_separator() -> None:
    """Tokens a, b\\n, c, \\n, d begin at 0, 1, 3, 4 and 5 of `ab\\nc\\nd`."""
    numbers = step_numbers("ab\nc\nd", np.array([0, 1, 3, 4, 5, 6]), "\n")
    assert numbers.tolist() == [0, 0, 1, 1, 2]
    values = np.array([0.2, 0.9, 0.5, 0.9, 0.6])
    found = step_advantages(values, numbers, 1.0)
    np.testing.assert_allclose(found, [0.3, 0.3, 0.1, 0.1, 0.4])


def test_dvpo_reads_the_value_after_a_token() -> None:
    np.testing.assert_allclose(values_after(np.array([0.1, 0.4, 0.9])), [0.4, 0.9, 0.9])
    assert values_after(np.zeros(0)).shape == (0,)


def test_ppo_max_normalises_by_the_run() -> None:
    """1, 0 then 5: mean 0.5 and deviation 0.5, then mean 2 and deviation sqrt(14 / 3)."""
    stage, state = NormalisedRewards(1.2), context()
    first = stage([group([1.0, 0.0])], state)
    np.testing.assert_allclose(first[0].rewards, [1.0, -1.0])
    last = stage([group([5.0, None])], state)
    np.testing.assert_allclose(last[0].rewards, [1.2, np.nan])  # 3 / 2.160 = 1.389
    assert state.state["rewards_seen"] == pytest.approx({"count": 3, "mean": 2.0, "squares": 14.0})
    assert merged(None, np.zeros(0))["count"] == 0
    alike = NormalisedRewards()([group([0.3, 0.3])], context())
    np.testing.assert_allclose(alike[0].rewards, [0.0, 0.0])


def test_rto_pays_tokens_by_two_policies() -> None:
    """beta 1 log(dpo / start) - beta 2 log(policy / start) is minus beta 2 log(policy / mean).

    Log-probs -1 (policy), -0.4 (DPO's) and -0.9 (start), beta 1 = 0.2, beta 2 = 0.05: weights are 4
    and -3, the mean is 4 x -0.4 + 3 x 0.9 = 1.1, and the token earns 0.2 x 0.5 + 0.05 x 0.1.
    """
    algorithm = compose({"name": "rto", "kl_coefficient": 0.05})
    policy = group([2.0], lengths=[1], reference=[np.array([4 * -0.4 - 3 * -0.9])])
    policy = replace(policy, responses=(replace(policy.responses[0], logprobs=np.array([-1.0])),))
    (paid,) = algorithm.shape_rewards([policy], context())
    np.testing.assert_allclose(token_rewards(paid), [[2.0 + 0.2 * 0.5 + 0.05 * 0.1]])


def test_mirror_descent_weighs_its_kl_by_the_step_size() -> None:
    """Steps 1 and 3 of 4 have sizes 1 and 1/2; of a ratio of 1.105171 the KL is 0.005346."""
    sizes = [FallingStepSize()(context(step, 4)) for step in (1, 3)]
    assert sizes == pytest.approx([1.0, 2.0])
    rows = [
        {"reward": r, "logprobs": [-0.9], "old_logprobs": [-1.0]} for r in (1.0, 0.0)
    ]  # advantages are opposite and cancel
    result = evaluate("mdpo", [rows], step=3, total_steps=4)
    kl = math.exp(0.1) * 0.1 - math.exp(0.1) + 1
    assert result["loss"] == pytest.approx(2.0 * kl, abs=1e-9)
    found = evaluate("fixpo", [rows], state={"kl_weight": 3.0})
    assert found["loss"] == pytest.approx(3.0 * (math.exp(0.1) - 1.1), abs=1e-9)


def test_fixpo_settles_where_the_kl_is_wanted() -> None:
    assert moved(2.0, 1.0, 0.1) == 2.0
    assert moved(2.0, 3.0, 0.1) == pytest.approx(2.0 * math.exp(0.2))
    assert moved(2.0, 0.0, 0.1) == pytest.approx(2.0 * math.exp(-0.1))
    assert moved(2.0, 1e9, 0.1) == pytest.approx(2.0 * math.e)


def test_f_dpg_by_hand() -> None:
    """Two answers, on-policy: away = -r / beta + ratio. The better one's probability must rise.

    Rewards 1 and 0, beta 1, policy = reference: target / policy is e and 1, Z is (e + 1) / 2, so
    policy / p is (e + 1) / 2e = 0.683940 and (e + 1) / 2 = 1.859141. KL(p || policy) has
    f' = -1 / t: -1.462117 and -0.537883, less their mean of -1: slopes of -+0.231059 a sequence.
    """
    rows = [{"reward": r, "logprobs": [-1.0], "ref_logprobs": [-1.0]} for r in (1.0, 0.0)]
    result = evaluate("f_dpg", [rows], beta=1.0, divergence="kl")
    slopes = [row[0] for row in result["gradient"][0]]
    np.testing.assert_allclose(slopes, [-0.231059, 0.231059], atol=1e-6)
    assert result["loss"] == 0.0


# --- constraints and turns -----------------------------------------------------------------------


def test_cgpo_pays_what_meets_the_constraints() -> None:
    """Rewards 1, 0, 0.5: the others' means are 0.25, 0.75, 0.5; the second fails its part."""
    stage = Calibrated(Constraints(("safe",), 1.0))
    met = np.array([True, False, True])
    rewards = stage.rewards(np.array([1.0, 0.0, 0.5]), met)
    np.testing.assert_allclose(rewards, [1 / (1 + math.exp(-0.75)), 0.0, 0.5])
    best = Calibrated(Constraints(), best=True).rewards(np.array([1.0, 0.0, 0.5]), met)
    np.testing.assert_allclose(best, [1 / (1 + math.exp(-0.75)), 0.0, 0.0])


@pytest.mark.parametrize(
    ("met", "ranks"),
    [
        ([False, True, True, False], [0, 1, 0, -1]),  # the best does not meet them
        ([True, True, True, True], [1, 0, 0, -1]),
        ([False, False, False, False], [0, 0, 0, 0]),
    ],
)
def test_codpo_pairs_by_constraints(met: list[bool], ranks: list[int]) -> None:
    rewards = np.array([0.9, 0.8, 0.7, 0.1])
    found = ConstrainedPair(Constraints()).ranks(rewards, np.array(met))
    assert found.tolist() == ranks


def test_constraints_are_parts_or_form() -> None:
    rows = [
        {"reward": {"accuracy": 1.0, "safe": 0.0}},
        {"reward": {"accuracy": 0.5, "safe": 1.0}},
        {"reward": {"accuracy": 0.0, "safe": 0.0}},
    ]
    found = evaluate("cgpo", [rows], optimiser="codpo", constraints=["safe"], objective="simpo")
    labels = [row[0] for row in found["advantages"][0]]
    assert labels == [0.0, 1.0, -1.0]
    formed = evaluate("cgpo", [[{"reward": 1.0}, {"reward": 1.0, "status": "missing"}]], kl=None)
    assert formed["rewards"][0] == pytest.approx([0.5, 0.0])


def test_turns_are_discounted_by_how_many_are_left() -> None:
    """T = 3, gamma 0.5: 1, (1 - 0.25) / 0.875 and 0.5 / 0.875."""
    np.testing.assert_allclose(turn_weights(3, 0.5), [1.0, 0.857143, 0.571429], atol=1e-6)


def two_episodes() -> list[dict[str, Any]]:
    """Turns [0, 2) alike, [3, 5) and [6, 8) not; between them stands the environment."""
    return [
        {
            "reward": reward,
            "ids": ids,
            "logprobs": [-1.0] * 8,
            "ref_logprobs": [-1.0 - apart] * 8,
            "turns": [[0, 2, 0.0], [3, 5, 0.0], [6, 8, 0.0]],
        }
        for reward, ids, apart in (
            (1.0, [1, 2, 0, 3, 4, 0, 5, 6], 0.5),
            (0.0, [1, 2, 0, 3, 9, 0, 5, 6], -0.5),
        )
    ]


def test_dmpo_sums_weighed_turns() -> None:
    """Two tokens a turn, each 0.5 apart: 2 x 0.5 x (1 + 0.857143 + 0.571429) and as much below."""
    expected = softplus(-0.1 * 2 * (1 + 0.857143 + 0.571429))
    assert loss("dmpo", two_episodes(), gamma=0.5) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("turns", "tokens"), [(0, 4), (1, 2)])
def test_sdpo_trains_the_segment_where_episodes_part(turns: int, tokens: int) -> None:
    result = evaluate("sdpo", [two_episodes()], turns=turns)
    assert result["loss"] == pytest.approx(softplus(-0.1 * tokens), abs=1e-9)
    taught = [np.flatnonzero(row).tolist() for row in result["gradient"][0]]
    assert taught == [[3, 4, 6, 7][:tokens]] * 2


def test_rewards_take_the_place_of_ranks() -> None:
    made = group([0.5, 1.0, None, 0.0])
    found = Paired("best_worst", earned=True)([made], context())
    labels = [s.advantages[0] if s.mask.any() else None for s in found]
    assert labels == [None, 1.0, None, 0.0]
    whole = Paired("all", earned=True)([made], context())
    assert [s.advantages[0] if s.mask.any() else None for s in whole] == [0.5, 1.0, None, 0.0]


# --- slopes, and that none is left out -----------------------------------------------------------

SLOPES: dict[str, tuple[dict[str, Any], float, float]] = {
    # name, options: d loss / d log-prob of a token of the better and of the worse answer; sigmoid
    # of the margin 0.2 is 0.549834, of -0.2 0.450166, and beta is 0.1
    "dpo": ({}, -0.0450166, 0.0450166),
    # 1 - p and p weighed: (0.9 x 0.450166 + 0.1 x 0.549834) / 0.8
    "rdpo": ({}, -0.0575166, 0.0575166),
    # sigmoid(-0.14) = 0.465057, times 0.8
    "h_dpo": ({"alpha": 0.8}, -0.0372046, 0.0372046),
    # p (1 - p) (log(p / 0.999) - log((1 - p) / 0.001)) = 0.247517 x -6.706755
    "exo": ({}, -0.1660036, 0.1660036),
    "rpo_regularised": ({}, -0.0450166 - 0.005, 0.0450166),
    # 0.549834 - sigmoid(1.5) = 0.549834 - 0.817574
    "rpo_reward_aware": ({"scale": 1.5}, -0.0267740, 0.0267740),
    # sigmoid(0.3) = 0.574443
    "odpo": ({"offset": 0.5}, -0.0574443, 0.0574443),
    # IPO: 2 x (2 - 5)
    "ipo": ({}, -6.0, 6.0),
    "rs_dpo": ({}, -0.0450166, 0.0450166),
    "tr_dpo": ({}, -0.0450166, 0.0450166),
    "iterative_dpo": ({}, -0.0450166, 0.0450166),
}


@pytest.mark.parametrize("name", SLOPES)
def test_slopes_of_pair_losses(name: str) -> None:
    options, better, worse = SLOPES[name]
    first, second = evaluate(name, [answers()], **options)["gradient"][0]
    assert first == pytest.approx([better] * 10, abs=1e-6)
    assert second == pytest.approx([worse] * 20, abs=1e-6)


def test_group_robust_ipo() -> None:
    """(2 - 5)^2 of a kind that is alone."""
    assert loss("gr_dpo", answers(implied=(1.0, -1.0)), loss="ipo") == pytest.approx(9.0, abs=1e-9)


def test_kinds_must_be_named() -> None:
    rows = answers(implied=(1.0, -1.0))
    with pytest.raises(UserError, match="sample '0' has no 'country': records say it in a column"):
        evaluate("gr_dpo", [rows], kind="country")


def test_egpo_brings_margins_to_win_rates() -> None:
    """Two answers: log-ratios to the reference 0.3 and -0.3, win rates 0.75 and 0.25, beta 0.1."""
    result = evaluate("egpo", [[played()[0], played()[2]]], beta=0.1)
    assert result["loss"] == pytest.approx((0.6 - 5.0) ** 2, abs=1e-9)
    slopes = [row[0] for row in result["gradient"][0]]
    np.testing.assert_allclose(slopes, [2 * (0.6 - 5.0), -2 * (0.6 - 5.0)], atol=1e-9)


def test_direct_advantage_regresses_every_step() -> None:
    """Steps a, b of one token each: values 0.2 and 0.5, reward 1, so they gained 0.3 and 0.5.

    beta 2, log-ratios 0.1 and 0.4: ((0.1 - 0.15)^2 + (0.4 - 0.25)^2) / 2 / 2.
    """
    batch = TrainSample(
        prompt=None,
        response=Response(np.arange(2), np.array([-1.0, -1.0]), "", "stop"),
        advantages=step_advantages(np.array([0.2, 0.5]), np.array([0, 1]), 1.0),
        mask=np.ones(2, dtype=bool),
        old_logprobs=np.array([-1.0, -1.0]),
        ref_logprobs=np.array([-1.1, -1.4]),
        group=0,
        second=np.array([0.0, 1.0]),
    )
    found, slopes = loss_and_gradient(
        [batch], [np.array([-1.0, -1.0])], DirectAdvantage(2.0), Reducer()
    )
    assert found == pytest.approx((0.0025 + 0.0225) / 4, abs=1e-9)
    np.testing.assert_allclose(slopes[0], [-0.05 / 2, 0.15 / 2], atol=1e-9)


def test_cgpo_weighs_log_probs_by_calibrated_rewards() -> None:
    """Rewards 1 and 0: sigmoid(1) = 0.731059 and, unmet, 0, or less their mean of 0.365529.

    CRRAFT: the best one's log-prob alone, over two answers. CODPO: DPO.
    """
    rows = [{"reward": 1.0, "logprobs": [-2.0]}, {"reward": 0.0, "logprobs": [-3.0]}]
    rows[1]["status"] = "missing"
    crpg = evaluate("cgpo", [rows], kl=None)["gradient"][0]
    np.testing.assert_allclose([row[0] for row in crpg], [-0.365529 / 2, 0.365529 / 2], atol=1e-6)
    raft = evaluate("cgpo", [rows], kl=None, optimiser="crraft")["gradient"][0]
    np.testing.assert_allclose([row[0] for row in raft], [-0.731059 / 2, 0.0], atol=1e-6)
    assert loss("cgpo", optimiser="codpo") == pytest.approx(DPO, abs=1e-6)


def test_dvpo_pays_values_alone() -> None:
    """Values 0.1, 0.4 and 0.9 of three tokens, whatever the reward: those after are whitened.

    0.4, 0.9, 0.9 have the mean 0.733333 and the deviation 0.288675 (of a sample): -1.154701 and
    twice 0.577350.
    """
    rows = [{"reward": 5.0, "logprobs": [-1.0] * 3, "values": [0.1, 0.4, 0.9]}]
    found = evaluate("dvpo", [rows], step=100, total_steps=100)["advantages"][0][0]
    np.testing.assert_allclose(found, [-1.154701, 0.577350, 0.577350], atol=1e-5)


def test_dr_po_compares_what_goes_on_from_one_prefix() -> None:
    """GRPO's loss on what was written: rewards 1 and 0 are 1 and -1 over 0.5 (of a population)."""
    rows = [{"reward": r, "logprobs": [-1.0], "old_logprobs": [-1.0]} for r in (1.0, 0.0)]
    found = evaluate("dr_po", [rows])["gradient"][0]
    plain = evaluate("grpo", [rows])["gradient"][0]
    assert found == plain and found[0][0] < 0 < found[1][0]


def test_d_ppo_counts_its_ratio_from_a_recent_policy() -> None:
    """Sampled at -1.0, the step's start is -0.9, now -0.8: e^0.1 is clipped by 0.05, e^0.1 weighs.

    The ratio to what sampled, e^0.2, stands nowhere. Advantage 1: -1.05 e^0.1.
    """
    made = replace(drawn([math.exp(-1.0)]), advantages=np.ones(1))
    recent = [np.array([-0.9])]
    (weighed,), _ = correct([made], recent, Correction("token_truncate", 100.0))
    found, _ = loss_and_gradient(
        [replace(weighed, old_logprobs=recent[0])],
        [np.array([-0.8])],
        Clipped(0.05, 0.05),
        Reducer(),
    )
    assert found == pytest.approx(-1.05 * math.exp(0.1), abs=1e-9)
