"""Every worked number, reproduced by the code that computes it in a run.

The numbers in `expected.json` were computed from the papers' formulas without any framework.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmrl.algorithms import (
    a_star_po,
    ada_grpo,
    balanced_filtering,
    brpo,
    cppo,
    gpg,
    grpo_lead,
    gvm_raft,
    ktae,
    otc,
    ptst,
    seed_grpo,
    ssb,
)
from mmrl.algorithms.ar_lopti import ByProbability
from mmrl.algorithms.arpo import ReplaySuccess
from mmrl.algorithms.gigpo import EpisodesAndSteps, discounted
from mmrl.algorithms.stages import samplers
from mmrl.algorithms.stages.advantage_estimation import LengthAdaptive, value_targets
from mmrl.algorithms.stages.credit import PRESETS, Normalise, TokenReturns, gae, group_relative
from mmrl.algorithms.stages.key_steps import is_valid_path, matched_share
from mmrl.algorithms.stages.refiners import DampUnlikely, RandomTokens
from mmrl.algorithms.stages.schedules import Adaptive, FallThenRise
from mmrl.algorithms.stages.shapers import ShortIsBetter, SoftOverlong
from mmrl.algorithms.stages.variants import AcrossVariants
from mmrl.algorithms.t_spmo import prefix_gains
from mmrl.objective import KL, TokenBatch, kl_estimate
from mmrl.objectives.clipped_ratio import Clipped
from mmrl.train.losses import (
    policy_loss,
    token_batch,
    value_loss,
)
from mmrl.train.measure import self_certainty
from mmrl.types import Response, TokenSpan, TrainSample
from tests.algorithms.cases import (
    NEW,
    OLD,
    REF,
    R,
    advantages,
    context,
    evaluate,
    first_tokens,
    group,
    padded,
    tokens,
)

EXPECTED: dict[str, Any] = json.loads(Path(__file__).with_name("expected.json").read_text())
NOT_COVERED: dict[str, str] = {}
"""Keys without a computation, and why."""

WIDE = {"low": 0.2, "high": 0.2}
PAPER = PRESETS["paper"].normalise
TRL = PRESETS["trl"].normalise
ARRAY = np.array

Compute = dict[str, Callable[[], Any]]


def loss(name: str, rewards: Any = (1.0, -1.0), **params: Any) -> float:
    """The loss on the shared tokens, with the rewards themselves as advantages."""
    return float(evaluate(name, [tokens(rewards)], **{"credit": "raw", **params})["loss"])


def gradient(name: str, rewards: Any = (1.0, -1.0), **params: Any) -> Any:
    return evaluate(name, [tokens(rewards)], **{"credit": "raw", **params})["gradient"][0]


def token_losses(name: str, **params: Any) -> list[list[float]]:
    """Every token's loss, from losses of a sum in which only that token is trained."""
    rows = []
    for i, new in enumerate(NEW):
        row = []
        for t in range(len(new)):
            one = [{k: [v[t]] if isinstance(v, list) else v for k, v in tokens()[i].items()}]
            row.append(evaluate(name, [one], **{"credit": "raw", **params})["loss"])
        rows.append(row)
    return rows


def kl_tokens(estimator: str) -> list[list[float]]:
    kl = KL(1.0, estimator)
    return [kl.estimate(ARRAY(n), ARRAY(r)).tolist() for n, r in zip(NEW, REF, strict=True)]


def kl_mean(estimator: str) -> float:
    return float(np.concatenate(kl_tokens(estimator)).mean())


def kl_slope(estimator: str) -> list[list[float]]:
    rows = []
    for new, ref in zip(NEW, REF, strict=True):
        logprobs = torch.tensor(new, dtype=torch.float64, requires_grad=True)
        difference = logprobs - torch.tensor(ref, dtype=torch.float64)
        kl_estimate(difference, estimator).sum().backward()
        rows.append(logprobs.grad.tolist())
    return rows


GRPO: Compute = {
    "grpo.mean": lambda: float(np.mean(R)),
    "grpo.std_ddof1": lambda: _implied_std(1),
    "grpo.std_ddof0": lambda: _implied_std(0),
    "grpo.adv_ddof1_eps1e-4": lambda: advantages("grpo", R, numerics="trl"),
    "grpo.adv_ddof1_eps1e-6": lambda: advantages("grpo", R),
    "grpo.adv_ddof0_eps1e-6": lambda: group_relative(ARRAY(R), Normalise(0, 1e-6)).tolist(),
    "grpo.adv_all_equal": lambda: advantages("grpo", [0.3] * 4),
    "grpo.ratio": lambda: [
        [-v * sign for v in row]
        for row, sign in zip(
            token_losses("grpo", objective={"low": 1.0, "high": 10.0}), (1, -1), strict=True
        )
    ],
    "grpo.pg_token": lambda: token_losses("grpo"),
    "grpo.loss_seqmean": lambda: loss("grpo"),
    "grpo.loss_tokenmean": lambda: loss("grpo", reducer="token-mean"),
    "grpo.loss_seqsum": lambda: loss("grpo", reducer="seq-mean-token-sum"),
    "grpo.loss_k3_beta.04": lambda: loss("grpo", kl_coefficient=0.04),
    "grpo.grad": lambda: gradient("grpo"),
    "grpo.dual_clip": lambda: evaluate(
        "grpo",
        [[{"reward": -1.0, "logprobs": [math.log(4.0)], "old_logprobs": [0.0]}]],
        credit="raw",
        objective={"dual": 3.0},
    )["loss"],
    "kl.k1_token": lambda: kl_tokens("k1"),
    "kl.k1_tokenmean": lambda: kl_mean("k1"),
    "kl.k2_token": lambda: kl_tokens("k2"),
    "kl.k2_tokenmean": lambda: kl_mean("k2"),
    "kl.k3_token": lambda: kl_tokens("k3"),
    "kl.k3_tokenmean": lambda: kl_mean("k3"),
    "kl.k3_grad": lambda: kl_slope("k3"),
    "kl.k2_grad": lambda: kl_slope("k2"),
    "kl.adaptive_beta": lambda: _adaptive(),
    "drgrpo.adv": lambda: advantages("dr_grpo", R),
    "drgrpo.loss_L4": lambda: loss("dr_grpo", length=4),
}

DAPO: Compute = {
    "dapo.pg_token": lambda: token_losses("dapo", edit=[]),
    "dapo.loss": lambda: loss("dapo", edit=[]),
    "dapo.soft_overlong": lambda: (
        SoftOverlong(20, 5).punishment(ARRAY([10.0, 17, 20, 25])).tolist()
    ),
    "dapo.soft_overlong_verl": lambda: [
        evaluate("dapo", [[{"reward": 0, "length": n}]], longest=20, cache=5, numerics="verl")[
            "rewards"
        ][0][0]
        for n in (10, 17, 20, 25)
    ],
    "dapo.keep_groups": lambda: evaluate("dapo", _by_correct([4, 2, 0, 1], 4))["kept"],
    "dapo.loss_overlong_filtered": lambda: _overlong_filtered(),
    "gspo.s": lambda: [
        abs(row[0])
        for row in token_ratios("gspo", WIDE | {"high": 10.0, "low": 1.0, "ratio": "sequence-mean"})
    ],
    "gspo.loss_wide": lambda: loss("gspo", objective=WIDE),
    "gspo.grad_wide": lambda: gradient("gspo", objective=WIDE),
    "gspo.loss_paper_eps": lambda: loss("gspo"),
    "cispo.weight": lambda: _cispo_weights({"high": 1.28}),
    "cispo.weight_verl_.2_.28": lambda: _cispo_weights({"high": 1.28, "low": 0.8}),
    "cispo.loss": lambda: loss("cispo", objective={"high": 1.28}),
    "cispo.grad": lambda: gradient("cispo", objective={"high": 1.28}),
}

KEYS = ["red ball", "left of", ["12 + 4", "12 plus 4"], "16"]
STEPS = [
    "Step 1: The red ball is left of the box.",
    "Step 2: 12 plus 4 is 16.",
]


def _script(*lines: str) -> str:
    head = ["Image Description: a box", "Rationales: add them"]
    return "\n".join(f"### {line}" for line in (*head, *lines))


COMPLETIONS = [
    (_script(*STEPS, "The final answer is: 16"), 1.0, "ok"),
    (_script("Step 1: The red ball.", "The final answer is: 3"), 0.0, "ok"),
    (
        _script("Step 1: The red ball is left of it.", "Step 3: 12 + 4", "The final answer is: 16"),
        1.0,
        "ok",
    ),
    (_script("Step 1: The red ball is left of it."), 0.0, "missing"),
]


def _stepgrpo(**params: Any) -> dict[str, Any]:
    group = [{"reward": right, "text": text, "status": s} for text, right, s in COMPLETIONS]
    return evaluate("stepgrpo", [group], meta=[{"key_steps": KEYS}], kl=None, **params)


STEPGRPO: Compute = {
    "stepgrpo.k": lambda: [matched_share(text, KEYS) for text, _, _ in COMPLETIONS],
    "stepgrpo.rvr": lambda: [float(is_valid_path(text)) for text, _, _ in COMPLETIONS],
    "stepgrpo.reward_paper": lambda: _stepgrpo()["rewards"][0],
    "stepgrpo.reward_code": lambda: _stepgrpo(variant="code")["rewards"][0],
    "stepgrpo.adv_paper": lambda: first_tokens(_stepgrpo())[0],
    "stepgrpo.adv_code": lambda: first_tokens(_stepgrpo(variant="code"))[0],
}

SHARED = [ARRAY([1.0, 0.0]), ARRAY([1.0, 1.0])]


def _share(numerics: str) -> dict[str, Any]:
    group = [
        {"reward": float(r), "variant": v} for v, rs in zip("ab", SHARED, strict=True) for r in rs
    ]
    return evaluate("share_grpo", [group], numerics=numerics)


def _share_pairs(numerics: str, own: bool) -> list[list[float]]:
    rows = {r["response"]: r for r in _share(numerics)["samples"] if r["own_prompt"] == own}
    return [[rows[i]["advantages"][0] for i in pair] for pair in ((0, 1), (2, 3))]


SHARE: Compute = {
    "share.global_paper": lambda: _share_pairs("paper", own=False),
    "share.global_code": lambda: [
        a.tolist() for a in AcrossVariants(repeated=True).globally(SHARED)
    ],
    "share.local": lambda: [group_relative(rewards, PAPER).tolist() for rewards in SHARED],
    "share.own_code": lambda: _share_pairs("code", own=True),
    "share.shared_code": lambda: _share_pairs("code", own=False),
    "share.objective_ratio1": lambda: _share("code")["loss"],
    "eis.adv": lambda: _eis(),
}

REINFORCE: Compute = {
    "rloo.adv": lambda: advantages("rloo", R, kl=None),
    "rpp.return": lambda: _token_returns(None),
    "rpp.adv_ddof1": lambda: _token_returns(1),
    "rpp.adv_ddof0": lambda: _token_returns(0),
    "rppb.centered": lambda: [
        a for pair in ([1.0, 0.0], [1.0, 1.0]) for a in advantages("dr_grpo", pair)
    ],
    "rppb.adv_ddof1": lambda: _whitened_baseline(),
    "gpg.alpha_paper": lambda: gpg.alpha(GPG_GROUPS),
    "gpg.inv_alpha": lambda: 1 / gpg.alpha(GPG_GROUPS),
    "gpg.resample_if_below_0.6": lambda: float(_gpg()["wanted"] > 0),
    "gpg.adv": lambda: [[a / 2.0 for a in group] for group in first_tokens(_gpg(edit=[]))],
    "gpg.alpha_verl": lambda: gpg.alpha(GPG_GROUPS, "verl"),
    "opo.baseline": lambda: R[0] - _opo()[0],
    "opo.adv": lambda: _opo(),
    "cppo.adv": lambda: [
        r["advantages"][0] for r in evaluate("cppo", _cppo_group(), kl=None, refine=[])["samples"]
    ],
    "cppo.kept": lambda: [
        r["response"] for r in evaluate("cppo", _cppo_group(), kl=None)["samples"]
    ],
    "cppo.questions_factor": lambda: cppo.questions_factor(0.75),
}
GPG_GROUPS = [ARRAY(g, dtype=float) for g in ([1, 0, 0, 0], [1] * 4, [0] * 4, [1, 0, 0, 1])]

LABELS, MEANS = [0, 0, 1, 2], [-0.2, -0.4, -0.3, -1.0]
DISCO = [[-0.5], [-0.8], [-0.6], [-1.4]]

REGRESSION: Compute = {
    "seed.p_cluster": lambda: seed_grpo.cluster_shares(LABELS, MEANS).tolist(),
    "seed.se_likelihood": lambda: seed_grpo.semantic_entropy(LABELS, MEANS, "likelihood"),
    "seed.se_count": lambda: seed_grpo.semantic_entropy(LABELS, MEANS, "count"),
    "seed.se_moonlight": lambda: seed_grpo.semantic_entropy(LABELS, MEANS, "monte-carlo"),
    "seed.scale_linear_alpha.5": lambda: seed_grpo.damping(
        0.5, seed_grpo.semantic_entropy(LABELS, MEANS, "count"), 4, "linear"
    ),
    "seed.adv_linear": lambda: first_tokens(
        evaluate(
            "seed_grpo",
            [[{"reward": r, "answer": a} for r, a in zip(R, "xxyz", strict=True)]],
            alpha=0.5,
        )
    )[0],
    "gvpo.rtheta": lambda: _implied_by_gvpo(),
    "gvpo.loss": lambda: evaluate("gvpo", [tokens((1.0, 0.0))])["loss"],
    "gvpo.grad_seq": lambda: [
        row[0] for row in evaluate("gvpo", [tokens((1.0, 0.0))])["gradient"][0]
    ],
    "cpgd.loss": lambda: loss("cpgd"),
    "cpgd.grad": lambda: gradient("cpgd"),
    "disco.loss_tau10": lambda: _disco(tau=10.0)["loss"],
    "disco.grad_tau10": lambda: _column(_disco(tau=10.0)["gradient"]),
    "disco.b_loss": lambda: _disco(tau=None)["loss"],
    "disco.b_grad": lambda: _column(_disco(tau=None)["gradient"]),
    "disco.loss_tau1": lambda: _disco(tau=1.0)["loss"],
    "disco.grad_tau1": lambda: _column(_disco(tau=1.0)["gradient"]),
    "disco.constraint": lambda: _disco(tau=10.0, drift=3e-4)["loss"] - _disco(tau=10.0)["loss"],
    "nft.pos_R1.2": lambda: _nft(True, 1.2)["loss"],
    "nft.proxy_R1.2": lambda: math.exp(-_nft(False, 1.2, epsilon=1e-3, weight="none")["loss"]),
    "nft.neg_R1.2": lambda: _nft(False, 1.2)["loss"],
    "nft.neg_R0.8": lambda: _nft(False, 0.8)["loss"],
    "nft.neg_grad_R1.2": lambda: _nft(False, 1.2)["gradient"],
    "nft.neg_grad_R0.8": lambda: _nft(False, 0.8)["gradient"],
    "apo.vstar": lambda: a_star_po.optimal_value([1, 0, 0, 1, 0, 0, 0, 0], 0.5),
    "apo.loss": lambda: evaluate(
        "a_star_po",
        [[{"reward": 1.0, "logprobs": [-40.0], "ref_logprobs": [-42.0]}]],
        state={"value_estimates": {"0": a_star_po.optimal_value([1, 0, 0, 1, 0, 0, 0, 0], 0.5)}},
    )["loss"],
    "apo.target_adv": lambda: 1 - a_star_po.optimal_value([1, 0, 0, 1, 0, 0, 0, 0], 0.5),
    "rebel.loss": lambda: evaluate(
        "rebel",
        [
            [
                {"reward": 1.0, "logprobs": [-1.0], "old_logprobs": [-1.5]},
                {"reward": 0.0, "logprobs": [-1.0], "old_logprobs": [-0.9]},
            ]
        ],
        kl=None,
    )["loss"],
}

COUNTS = ktae.Counts(3, 1, 0, 2, 4 / 12, 1 / 12)

WEIGHTS: Compute = {
    "lead.reward": lambda: _lead_rewards(),
    "lead.adv": lambda: group_relative(ARRAY(_lead_rewards()), PAPER).tolist(),
    "lead.w_pos_neg": lambda: [grpo_lead.WeighedByDifficulty().weight(p) for p in (0.75, 0.25)],
    "lead.adv_weighted": lambda: first_tokens(
        evaluate(
            "grpo_lead",
            [
                [
                    {"reward": float(right), "length": n}
                    for n, right in zip(LEAD_LENGTHS, LEAD_RIGHT, strict=True)
                ]
            ],
            free_length=0,
        )
    )[0],
    "egsw.weights": lambda: _egsw_weights(),
    "ar.adv_alpha.3": lambda: [
        (sign * DampUnlikely(0.3).factor(ARRAY(old))).tolist()
        for old, sign in zip(OLD, (1, -1), strict=True)
    ],
    "lopti.pass1_mask": lambda: _lopti_masks(unlikely=True),
    "lopti.pass2_mask": lambda: _lopti_masks(unlikely=False),
    "lopti.adv_combined_alpha.3_pass1": lambda: _ar_and_lopti(),
    "ktae.p_F_IG": lambda: [
        ktae.fisher(COUNTS),
        math.exp(-2 * ktae.fisher(COUNTS)),
        ktae.information_gain(COUNTS),
    ],
    "ktae.tfc_tfw_x_key": lambda: [
        ktae.term_frequency(4 / 12, 1.0),
        ktae.term_frequency(1 / 12, 1.0),
        ktae.direction(COUNTS),
        ktae.KeyTokens().key(COUNTS),
    ],
    "ktae.value": lambda: ktae.KeyTokens().value(COUNTS),
    "ktae.adv_correct_wrong": lambda: _ktae_advantages(),
    "grpod.beta_0_15_30_65_100": lambda: [
        FallThenRise(0.04, 0.1, 0.3).value(s, 100) for s in (0, 15, 30, 65, 100)
    ],
}

DATA: Compute = {
    "ssb.group_score": lambda: [ssb.signal(ARRAY(g)) for g in SSB_GROUPS],
    "ssb.draw_prob": lambda: ssb.draw_probabilities(
        [ssb.signal(ARRAY(g)) for g in SSB_GROUPS]
    ).tolist(),
    "ptst.tokens_per_prompt": lambda: _ptst_tokens(),
    "lgrpo.reward_all_correct": lambda: _solved()["rewards"][0],
    "lgrpo.adv_all_correct": lambda: first_tokens(_solved())[0],
    "ada.alpha": lambda: ada_grpo.scales(ADA, 0.5).tolist(),
    "ada.reward": lambda: _ada()["rewards"][0],
    "ada.adv": lambda: first_tokens(_ada())[0],
    "degrpo.loss_code": lambda: _degrpo("code"),
    "degrpo.loss_paper": lambda: _degrpo("paper"),
    "degrpo.adv": lambda: _degrpo_advantages(),
    "arpo.trigger": lambda: float(ReplaySuccess().fails(np.zeros(4))),
    "arpo.reward_after": lambda: _arpo()["after"],
    "arpo.adv_after": lambda: _arpo()["advantages"],
    "srpo.kept": lambda: samplers.unsolved(RATES),
    "balanced.kept_.2_.8": lambda: evaluate("balanced_filtering", _by_correct([8, 4, 0, 7, 1], 8))[
        "kept"
    ],
    "balanced.p(1-p)": lambda: [balanced_filtering.learnability(p) for p in RATES],
    "sari.easy_to_hard_order": lambda: samplers.easy_to_hard(RATES),
    "rcs.kept": lambda: samplers.under_full(
        [np.mean(g) for g in ([2, 2, 2, 2], [2, 1, 2, 0], [0, 0, 0, 0])], 2.0
    ),
    "dump.ucb": lambda: samplers.upper_bounds(ARRAY([0.8, 0.3]), ARRAY([50.0, 10.0])).tolist(),
    "dump.prob": lambda: _dump_mix(),
    "sgrpo.mask": lambda: _random_tokens().astype(float).tolist(),
    "sgrpo.loss": lambda: float(ARRAY([0.5, 0.4, 0.3, 0.2, 0.1, 0.6])[_random_tokens()].mean()),
    "tspmo.adv": lambda: _prefix_advantages(),
    "raft.adv": lambda: _rejection("raft"),
    "rej.adv": lambda: _rejection("reinforce_rej"),
    "gvm.ratio": lambda: _gvm().tolist(),
    "gvm.samples_of_32": lambda: gvm_raft.whole_numbers(_gvm(), 32),
}
SSB_GROUPS = [[1.0, 0, 0, 0], [1.0, 1, 0, 0]]
RATES = [1, 0.5, 0, 0.875, 0.125]
ADA = ["cot", "cot", "cot", "code"]
LEAD_LENGTHS, LEAD_RIGHT = [100, 200, 300, 250], [1, 1, 1, 0]

EPISODES = [
    [TokenSpan(0, 1, 0.0, "s0"), TokenSpan(1, 2, 0.0, "s1"), TokenSpan(2, 3, 1.0, "s2")],
    [TokenSpan(0, 1, 0.0, "s0"), TokenSpan(1, 2, 0.0, "s1")],
]
BUDGETS = ARRAY([[0.0, 0, 1, 1], [0.0, 0, 0, 1]])
UNIFORM = brpo.chances(4, "uniform")

SPANS: Compute = {
    "gigpo.step_return": lambda: _joined(discounted(row, 0.95) for row in EPISODES),
    "gigpo.adv_episode_paper": lambda: _gigpo("paper", step_weight=0.0),
    "gigpo.adv_episode_code": lambda: _gigpo("code", step_weight=0.0),
    "gigpo.adv_step": lambda: (
        EpisodesAndSteps(0.95, 1.0, None, False)
        .anchored(
            ARRAY(_joined(discounted(row, 0.95) for row in EPISODES)),
            [span.state for row in EPISODES for span in row],
        )
        .tolist()
    ),
    "gigpo.adv_paper": lambda: _gigpo("paper"),
    "gigpo.adv_code": lambda: _gigpo("code"),
    "turn.before_result": lambda: [row[0] for row in _two_turns()],
    "turn.after_result": lambda: [row[-1] for row in _two_turns()],
    "turn.no_tool_call": lambda: [row[0] for row in _one_turn()],
    "otc.ppo_m0_1_2_4": lambda: _otc_alone([0, 1, 2, 4]),
    "otc.grpo_n2_m1_2_3_4": lambda: [otc.compared(m, 2, 4) for m in (1, 2, 3, 4)],
    "otc.grpo_n0_m0_1_2": lambda: [otc.compared(m, 0, 4) for m in (0, 1, 2)],
    "brpo.v1": lambda: brpo.own_past(BUDGETS, UNIFORM).tolist(),
    "brpo.v2": lambda: [brpo.returns(BUDGETS, UNIFORM).mean(0).tolist()] * 2,
    "brpo.adv": lambda: evaluate(
        "brpo",
        [
            [
                {"reward": 0, "length": 4, "steps": [[s, s + 1, v] for s, v in enumerate(row)]}
                for row in BUDGETS.tolist()
            ]
        ],
    )["advantages"][0],
    "intuitor.token": lambda: self_certainty(torch.tensor(LOGITS)).tolist(),
    "intuitor.seq": lambda: float(self_certainty(torch.tensor(LOGITS)).mean()),
    "intuitor.kl_uniform": lambda: (self_certainty(torch.tensor(LOGITS)) - math.log(4)).tolist(),
    "multi.sum_then_norm": lambda: advantages("grpo", [1, 1, 1, 0], numerics="trl"),
    "multi.norm_then_sum": lambda: first_tokens(
        evaluate(
            "intuitor",
            [
                [
                    {"reward": r, "self_certainty": [c]}
                    for r, c in zip([1, 0, 0, 0], [0.0, 1.0, 1.0, 0.0], strict=True)
                ]
            ],
            task_weight=1.0,
            kl=None,
        )
    )[0],
}
LOGITS = [[2.0, 0, 0, 0], [1.0, 1, 1, 1]]

REWARDS, VALUES = ARRAY([0.0, 0, 1]), ARRAY([0.2, 0.5, 0.7])

CRITIC: Compute = {
    "gae.lam.95": lambda: gae(REWARDS, VALUES, 1.0, 0.95).tolist(),
    "gae.lam1_return": lambda: value_targets(REWARDS, VALUES, 1.0, 1.0).tolist(),
    "vapo.lambda_l100_l1000": lambda: [LengthAdaptive(0.05)(n) for n in (100, 1000)],
    "vapo.adv_lam.8": lambda: gae(REWARDS, VALUES, 1.0, LengthAdaptive(0.05)(100)).tolist(),
    "vapo.total_loss": lambda: float(
        policy_loss(_batch((1.0, -1.0), 0.6), Clipped(low=0.2, high=0.28, imitation=0.1))
    ),
    "ppo.value_loss_clip.5": lambda: float(
        value_loss(*(torch.tensor([v], dtype=torch.float64) for v in (0.9, 0.2, 1.0)), 0.5)
    ),
    "dpo.loss_beta.1": lambda: _preference("dpo"),
    "ipo.loss_beta.1_sum": lambda: _preference("ipo"),
    "ipo.loss_beta.1_avg": lambda: _preference("ipo", average=True),
    "simpo.loss_b2_g.5": lambda: _preference("simpo"),
}

COMPUTED: Compute = {
    **GRPO,
    **DAPO,
    **STEPGRPO,
    **SHARE,
    **REINFORCE,
    **REGRESSION,
    **WEIGHTS,
    **DATA,
    **SPANS,
    **CRITIC,
}


def test_every_number_is_covered_or_excused() -> None:
    assert set(COMPUTED) | set(NOT_COVERED) == set(EXPECTED)
    assert not set(COMPUTED) & set(NOT_COVERED)


@pytest.mark.parametrize("key", sorted(COMPUTED))
def test_worked_number(key: str) -> None:
    np.testing.assert_allclose(
        np.array(padded(COMPUTED[key]()), dtype=float), np.array(EXPECTED[key]), atol=1e-5, rtol=0
    )


def _implied_std(ddof: int) -> float:
    """The divisor that the advantages imply."""
    scaled = group_relative(ARRAY(R), Normalise(ddof, 0.0))
    return float((R[0] - np.mean(R)) / scaled[0])


def _adaptive() -> float:
    schedule, run = Adaptive(0.04, 0.1, 10_000), context()
    schedule.observe(0.2, 64, run)
    return schedule.at(run)


def token_ratios(name: str, objective: dict[str, Any]) -> list[list[float]]:
    """Ratios from the gradient: of a sequence alone, d loss / d log-prob is -A x ratio x weight."""
    rows = gradient(name, objective=objective, reducer="seq-mean-token-sum")
    return [[2 * v for v in row] for row in rows]


def _by_correct(counts: list[int], size: int) -> list[list[dict[str, Any]]]:
    return [[{"reward": float(i < n), "length": 1} for i in range(size)] for n in counts]


def _overlong_filtered() -> float:
    group = tokens()
    group[1]["truncated"] = True
    return float(evaluate("dapo", [group], edit=[], credit="raw")["loss"])


def _cispo_weights(objective: dict[str, float]) -> list[list[float]]:
    rows = gradient("cispo", objective=objective, reducer="seq-mean-token-sum")
    return [[-2 * sign * v for v in row] for row, sign in zip(rows, (1, -1), strict=True)]


def _eis() -> list[list[float]]:
    rewards = [1.0, 1, 0, 0, 0, 1]
    group = [{"reward": r, "variant": "ab"[i // 3]} for i, r in enumerate(rewards)]
    flat = first_tokens(evaluate("eis_grpo", [group]))[0]
    return [flat[:3], flat[3:]]


def _token_returns(ddof: int | None) -> list[list[float]]:
    result = evaluate(
        "reinforce_pp",
        [[t] for t in _current(tokens((1.0, 0.0)))],
        kl_coefficient=0.1,
        ddof=ddof or 0,
    )
    if ddof is not None:
        return [group[0] for group in result["advantages"]]
    kl = KL(1.0, "k1")
    penalties = [0.1 * kl.estimate(ARRAY(n), ARRAY(r)) for n, r in zip(NEW, REF, strict=True)]
    made = group([1.0, 0.0], [3, 2], penalties=penalties)
    return [row.tolist() for row in TokenReturns(gamma=1.0).returns(made)]


def _current(group: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sampled by the current policy, so that the penalty is of its own log-probs."""
    return [{k: v for k, v in response.items() if k != "old_logprobs"} for response in group]


def _whitened_baseline() -> list[float | None]:
    groups = [
        [{"reward": r, "length": n} for r, n in zip(rs, ns, strict=True)]
        for rs, ns in (([1.0, 0.0], [3, 2]), ([1.0, 1.0], [1, 2]))
    ]
    result = first_tokens(evaluate("reinforce_pp_baseline", groups, kl=None))
    return [a for group in result for a in group]


def _gpg(**params: Any) -> dict[str, Any]:
    groups = [[{"reward": float(r)} for r in rewards] for rewards in GPG_GROUPS]
    return evaluate("gpg", groups, **params)


def _opo() -> list[Any]:
    group = [{"reward": r, "length": n} for r, n in zip(R, (10, 20, 30, 40), strict=True)]
    return first_tokens(evaluate("opo", [group]))[0]


def _cppo_group() -> list[list[dict[str, Any]]]:
    return [[{"reward": r} for r in (1.0, 0, 0, 0, 0, 0, 0.5, 0)]]


def _disco(tau: float | None, drift: float = 0.0) -> dict[str, Any]:
    group = [
        {"reward": float(i < 2), "logprobs": lp, "old_logprobs": [lp[0] + drift]}
        for i, lp in enumerate(DISCO)
    ]
    return evaluate("disco", [group], tau=tau)


def _column(rows: list[list[list[float]]]) -> list[float]:
    return [row[0] for row in rows[0]]


def _implied_by_gvpo() -> list[float]:
    batch = _batch((1.0, 0.0))
    return (0.1 * batch.sequence_sum(batch.log_ratio)).tolist()


def _nft(right: bool, ratio: float, **params: Any) -> dict[str, float]:
    """One token in a group of accuracy 1/4, the only one with a ratio other than 1."""
    chosen = 0 if right else 1
    group = [
        {"reward": float(i == 0), "logprobs": [math.log(ratio) if i == chosen else 0.0]}
        | {"old_logprobs": [0.0]}
        for i in range(4)
    ]
    result = evaluate("nft", [group], length=1.0, **params)
    return {"loss": 4 * result["loss"], "gradient": 4 * result["gradient"][0][chosen][0]}


def _lead_rewards() -> list[float]:
    right = ARRAY(LEAD_RIGHT, dtype=bool)
    return ShortIsBetter(0.05).rewards(right, ARRAY(LEAD_LENGTHS, dtype=float)).tolist()


def _egsw_weights() -> list[float]:
    group = [{"reward": r, "entropy": [h]} for r, h in zip(R, (1.0, 2.0, 0.5, 1.5), strict=True)]
    weighed = first_tokens(evaluate("egsw", [group], alpha=0.1))[0]
    plain = advantages("grpo", R)
    return [w / a for w, a in zip(weighed, plain, strict=True)]


def _sample(probabilities: list[float], advantage: float) -> TrainSample:
    ids = np.arange(len(probabilities))
    response = Response(ids, np.log(probabilities), "", "stop")
    return TrainSample(None, response, np.full(len(ids), advantage), np.ones(len(ids), dtype=bool))


LOPTI = [_sample([0.9, 0.3, 0.6], 1.0), _sample([0.45, 0.2], -1.0)]


def _lopti_masks(unlikely: bool) -> list[list[float]]:
    chosen = ByProbability(0.5, unlikely)
    return [chosen(sample).astype(float).tolist() for sample in LOPTI]


def _ar_and_lopti() -> list[list[float]]:
    weighed = DampUnlikely(0.3)(LOPTI, context())
    return [(s.advantages * m).tolist() for s, m in zip(weighed, _lopti_masks(True), strict=True)]


def _ktae_advantages() -> list[float]:
    """Six responses of four tokens and an end token; token 7 stands as in COUNTS."""
    right = [[7, 7, 1, 1], [7, 1, 1, 1], [7, 1, 1, 1]]
    wrong = [[7, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]]
    group = [{"reward": float(i < 3), "ids": [*r, 99]} for i, r in enumerate([*right, *wrong])]
    assert sum(row.count(7) for row in right) == 4
    rows = evaluate("ktae", [group])["advantages"][0]
    return [rows[0][0], rows[3][0]]


def _solved() -> dict[str, Any]:
    group = [{"reward": 1.0, "length": n} for n in (100, 200, 300, 400)]
    return evaluate("l_grpo", [group], bonus=0.5, longest=500)


def _ptst_tokens() -> list[int]:
    params = ptst.Params()
    algorithm = ptst.build(params)
    steps = [context(step, 3) for step in (1, 2, 3)]
    return [algorithm.length(c) * algorithm.plan([None], c)[0] for c in steps]


def _ada() -> dict[str, Any]:
    texts = ["<COT>"] * 3 + ["<CODE>"]
    group = [{"reward": r, "text": t} for r, t in zip([1, 0, 1, 1], texts, strict=True)]
    return evaluate("ada_grpo", [group], kl=None, step=1, total_steps=2)


def _degrpo(numerics: str) -> float:
    return loss("degrpo", numerics=numerics, shape=[], edit=[], kl=None)


def _degrpo_advantages() -> list[float | None]:
    group = [
        {"reward": r, "text": t}
        for r, t in ((1, "<short> a"), (1, "<think> a"), (0, "<short> b"), (1, "<think> c"))
    ]
    return first_tokens(evaluate("degrpo", [group], kl=None))[0]


def _arpo() -> dict[str, Any]:
    won = [{"reward": {"accuracy": 1.0, "format": 0.5}}]
    state = evaluate("arpo", [won], group_size=2)["state"]
    lost = [{"reward": {"accuracy": 0.0, "format": f}} for f in (0.5, 0.5, 0.0, 0.5)]
    result = evaluate("arpo", [lost], state=state)
    advantages = [row["advantages"][0] for row in result["samples"]]
    return {"after": result["edited_rewards"][0], "advantages": advantages}


def _dump_mix() -> list[float]:
    seen = {"a": {"window": [0.8], "count": 50}, "b": {"window": [0.3], "count": 10}}
    mix = samplers.UpperConfidence().mix({"a": 0.5, "b": 0.5}, context(sources=seen))
    return list(mix.values())


def _random_tokens() -> Any:
    return RandomTokens(2, 0.5, 4).chosen(ARRAY([0.9, 0.1, 0.7, 0.2, 0.05, 0.6]))


def _prefix_advantages() -> list[float]:
    ids = [[1, 2, 3], [1, 2, 4], [1, 5], [1, 2, 3]]
    gains, first = prefix_gains(ids, ARRAY([1.0, 0, 0, 1]))
    assert [f.tolist() for f in first] == [
        [True] * 3,
        [False, False, True],
        [False, True],
        [False] * 3,
    ]
    return [gains[0][0], gains[0][1], gains[0][2], gains[1][2], gains[2][1]]


def _rejection(name: str) -> list[list[float]]:
    groups = [[1.0, -1, -1, 1], [1.0] * 4, [-1.0] * 4]
    result = evaluate(name, [[{"reward": r} for r in g] for g in groups], kl=None)
    return [[0.0 if a is None else a for a in group] for group in first_tokens(result)]


def _gvm() -> Any:
    return gvm_raft.allocation(ARRAY([0.125, 0.5, 0.875, 0]), ARRAY([2.0, 1, 1, 3]), 1e-3, 2.0)


def _joined(rows: Any) -> list[float]:
    return np.concatenate(list(rows)).tolist()


def _gigpo(numerics: str, **params: Any) -> list[float]:
    group = [
        {
            "reward": reward,
            "length": len(row),
            "turns": [[s.start, s.end, s.value] for s in row],
            "states": [s.state for s in row],
        }
        for reward, row in zip((1.0, 0.0), EPISODES, strict=True)
    ]
    rows = evaluate("gigpo", [group], numerics=numerics, **params)["advantages"][0]
    return [*rows[0], *rows[1]]


def _two_turns() -> list[list[float]]:
    """A call of two tokens, a masked result of one, an answer of one."""
    group = [
        {"reward": o, "length": 4, "turns": [[0, 2, t], [3, 4, None]]}
        for o, t in zip([1, 0, 1, 0], [0.2, 0.2, 0, 0], strict=True)
    ]
    result = evaluate("turn_level", [group])
    assert all(row["mask"] == [True, True, False, True] for row in result["samples"])
    return result["advantages"][0]


def _one_turn() -> list[list[float]]:
    group = [
        {"reward": o, "length": 2, "turns": [[0, 2, t]]}
        for o, t in zip([1, 0, 1, 0], [0.2, 0.2, 0, 0], strict=True)
    ]
    return evaluate("turn_level", [group])["advantages"][0]


def _otc_alone(calls: list[int]) -> list[float]:
    group = [{"reward": 1.0, "text": "<tool_call>" * m} for m in calls]
    return evaluate("otc", [group], form="ppo")["rewards"][0]


def _batch(rewards: tuple[float, float], positive_share: float = 1.0) -> TokenBatch:
    """The shared tokens with the rewards as advantages, weighed as a token mean."""
    samples = [
        TrainSample(
            None,
            Response(np.arange(len(new)), ARRAY(old), "", "stop"),
            np.full(len(new), sign),
            np.ones(len(new), dtype=bool),
            old_logprobs=ARRAY(old),
            positive=sign > 0,
        )
        for new, old, sign in zip(NEW, OLD, rewards, strict=True)
    ]
    logprobs = torch.tensor([*NEW[0], *NEW[1]], dtype=torch.float64)
    weights = [np.full(len(new), 0.2) for new in NEW]
    return token_batch(samples, weights, logprobs, positive_share)


def _preference(name: str, **params: Any) -> float:
    def spread(total: float, length: int) -> list[float]:
        return [total / length] * length

    group = [
        {"reward": r, "logprobs": spread(lp, n), "ref_logprobs": spread(ref, n)}
        for r, lp, ref, n in ((1.0, -12.0, -13.0, 10), (0.0, -15.0, -14.0, 20))
    ]
    return float(evaluate(name, [group], **params)["loss"])
