"""Stages under bad input and under what must not matter; edge cases have one defined result."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from mmrl import plugins
from mmrl.algorithm import Updates
from mmrl.algorithms.ar_lopti import ByProbability
from mmrl.algorithms.arpo import ReplaySuccess
from mmrl.algorithms.compose import compose
from mmrl.algorithms.ssb import ReplaySignal
from mmrl.algorithms.stages.credit import (
    GroupCredit,
    GroupRelative,
    Normalise,
    PartsRelative,
    TokenReturns,
    Whitened,
    group_relative,
    leave_one_out,
    length_weighted,
    outcomes,
)
from mmrl.algorithms.stages.editors import AccuracyBand, DropUniform, EnoughSignal
from mmrl.algorithms.stages.key_steps import is_valid_path, matched, matched_share, scored_steps
from mmrl.algorithms.stages.refiners import DampUnlikely, KeepLargest, MaskTruncated, RandomTokens
from mmrl.algorithms.stages.replay import TakenIn, is_taken_in
from mmrl.algorithms.stages.samplers import DropSolved, EasyToHard, HardStage, UpperConfidence
from mmrl.algorithms.stages.variants import AcrossVariants, Rewrites
from mmrl.algorithms.stepgrpo import StepSpans, step_spans
from mmrl.errors import UserError
from mmrl.objective import KL
from mmrl.stage import FROM_DATA, needed
from mmrl.types import Extra, Group, Sample, Score, Text, TokenSpan
from tests.algorithms.cases import R, context, evaluate, first_tokens, group

NAN = float("nan")
ALGORITHMS = sorted(plugins.available("algorithm"))


def values(result: dict[str, Any]) -> list[Any]:
    return first_tokens(result)[0]


@pytest.mark.parametrize("name", ALGORITHMS)
def test_defaults_compose_and_describe_themselves(name: str) -> None:
    module = plugins.load("algorithm", name)
    algorithm = compose({"name": name})
    assert algorithm.name == name
    assert module.SUMMARY and module.PAPER and module.__doc__
    assert "<function" not in repr(algorithm.objective)


# --- rewards that are missing, equal, alone ------------------------------------------------------


def test_unscorable_answers_leave_no_trace() -> None:
    """None and NaN rewards: advantage 0, no token in the loss, the others as if alone."""
    alone = values(evaluate("grpo", [[{"reward": r, "length": 2} for r in R]]))
    rows = [*R[:2], None, NAN, *R[2:]]
    result = evaluate("grpo", [[{"reward": r, "length": 2} for r in rows]])
    assert [values(result)[i] for i in (0, 1, 4, 5)] == pytest.approx(alone)
    masks = {s["response"]: s["mask"] for s in result["samples"]}
    assert masks[2] == masks[3] == [False, False]
    assert [s["advantages"] for s in result["samples"] if s["response"] in (2, 3)] == [[0, 0]] * 2
    assert result["gradient"][0][2] == [0, 0]


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "rloo", "opo", "reinforce_pp", "gpg", "gvpo"])
def test_nothing_scorable_is_no_loss(name: str) -> None:
    extra = {} if name in ("dr_grpo", "opo", "gpg", "gvpo") else {"kl": None}
    result = evaluate(name, [[{"reward": None, "length": 2}] * 3], **extra)
    assert result["loss"] == 0
    assert not np.any([s["advantages"] for s in result["samples"]])


@pytest.mark.parametrize(
    ("name", "numerics", "expected"),
    [("grpo", "paper", 0.0), ("grpo", "trl", 0.0), ("grpo", "verl", 0.7), ("dr_grpo", None, 0.0)],
)
def test_a_group_of_one(name: str, numerics: str | None, expected: float) -> None:
    params = {"numerics": numerics} if numerics else {}
    assert values(evaluate(name, [[{"reward": 0.7}]], **params)) == [expected]


def test_a_lone_scorable_answer_of_rloo() -> None:
    rewards = np.array([0.7, NAN])
    assert leave_one_out(rewards).tolist() == [0, 0]
    assert leave_one_out(rewards, "raw").tolist() == [0.7, 0]


def test_equal_rewards_give_exactly_zero_or_next_to_it() -> None:
    assert np.abs(group_relative(np.full(7, 0.1), Normalise())).max() < 1e-9
    np.testing.assert_allclose(length_weighted(np.full(3, 0.1), np.zeros(3)), 0, atol=1e-12)
    assert not np.any(Whitened()([group([0.3] * 3, [2, 2, 2])], context())[0].advantages)


def test_an_empty_response_is_legal_everywhere() -> None:
    for name in ("grpo", "dapo", "gspo", "rloo", "cppo", "gpg", "opo", "reinforce_pp", "ktae"):
        extra = {"kl": None} if name in ("rloo", "cppo", "reinforce_pp") else {}
        rows = [{"reward": 1.0, "length": 0}, {"reward": 0.0, "length": 3}]
        result = evaluate(name, [rows], **extra)
        assert np.isfinite(result["loss"]), name


def test_biased_standard_deviation_shows() -> None:
    rewards = np.array([1.0, 0.0])
    assert group_relative(rewards, Normalise(1, 0.0))[0] == pytest.approx(0.5**0.5)
    assert group_relative(rewards, Normalise(0, 0.0))[0] == pytest.approx(1.0)


# --- what must not matter ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "rloo", "opo", "seed_grpo", "reinforce_pp"])
def test_permuting_a_group_permutes_its_advantages(name: str) -> None:
    rows = [{"reward": r, "length": n, "answer": str(n)} for n, r in enumerate(R, start=1)]
    extra = {"kl": None} if name in ("rloo", "reinforce_pp") else {}
    order = [2, 0, 3, 1]
    plain = evaluate(name, [rows], **extra)["advantages"][0]
    mixed = evaluate(name, [[rows[i] for i in order]], **extra)["advantages"][0]
    for place, i in enumerate(order):
        assert mixed[place] == pytest.approx(plain[i])


def test_a_group_of_equal_rewards_changes_denominators_only() -> None:
    rows = [{"reward": r, "length": 2, "logprobs": [-0.3, -0.9]} for r in R]
    equal = [{"reward": 1.0, "length": 2, "logprobs": [-0.3, -0.9]}] * 4
    alone, beside = evaluate("grpo", [rows]), evaluate("grpo", [rows, equal])
    np.testing.assert_allclose(beside["advantages"][0], alone["advantages"][0])
    np.testing.assert_allclose(2 * np.array(beside["gradient"][0]), alone["gradient"][0])
    assert not np.any(beside["gradient"][1])


def test_advantages_stay_with_their_tokens() -> None:
    """Advantages that differ by token: each token's slope shows its own."""
    steps = [[0, 1, 1.0], [1, 3, 0.0]]
    rows = [
        {"reward": 1.0, "logprobs": [-0.1] * 4, "steps": steps},
        {"reward": 0.0, "logprobs": [-0.1] * 4, "steps": [[1, 2, 0.5]]},
    ]
    result = evaluate("brpo", [[{**rows[0], "length": 4}] * 2])
    for advantages, slope in zip(result["advantages"][0], result["gradient"][0], strict=True):
        np.testing.assert_allclose(slope, -np.array(advantages) / 8)
    made = StepSpans(Normalise(1, 0.0))(
        replace(
            group([1.0, 0.0], [4, 4]),
            extra=Extra(steps=[[TokenSpan(*s) for s in row["steps"]] for row in rows]),
        ),
        context(),
    )
    base, unit = 0.5**0.5, 0.5
    np.testing.assert_allclose(made[0], [base + unit / 0.5, base - 1, base - 1, base])
    np.testing.assert_allclose(made[1], [-base, -base, -base, -base])


# --- refiners and updates ------------------------------------------------------------------------


def refined(stage: Any, made: Group) -> list[Any]:
    return stage(GroupCredit(GroupRelative())([made], context()), context())


def test_pruning_keeps_at_least_one_and_breaks_ties_by_order() -> None:
    assert KeepLargest(0.99).kept(np.zeros(8)) == [0]
    assert KeepLargest(0.9).kept(np.arange(10.0)) == [9]
    assert KeepLargest(0.5).kept(np.array([1.0, 2, 2, 1])) == [1, 2]
    assert KeepLargest(0.75).kept(np.array([1.0, 1, 1, 1, 1, 1, 1, 1])) == [0, 1]


def test_truncated_responses_are_masked_but_counted() -> None:
    kept = refined(MaskTruncated(), group(R, truncated=True))
    assert len(kept) == 4 and not any(s.mask.any() for s in kept)


def test_random_tokens_are_drawn_once_from_the_context() -> None:
    made = group([1.0, 0.0], [50, 50])
    first, second = (refined(RandomTokens(2, 0.3, 20), made) for _ in (0, 1))
    assert [s.mask.tolist() for s in first] == [s.mask.tolist() for s in second]
    assert all(s.mask[:2].all() and s.mask.sum() <= 20 for s in first)


def test_damping_keeps_likely_tokens() -> None:
    factors = DampUnlikely(0.3).factor(np.log([1.0, 0.5, 1e-9]))
    np.testing.assert_allclose(factors, [1.0, 0.85, 0.7])


def test_passes_train_on_their_own_tokens() -> None:
    updates = Updates(2, 1, (ByProbability(0.7, True), ByProbability(0.7, False)))
    samples = GroupCredit(GroupRelative())([group([1.0, 0.0], [5, 5])], context())
    first, second = (updates.select(samples, index)[0].mask for index in (0, 1))
    assert first.tolist() == [False, False, False, True, True]
    assert (first ^ second).all()


def test_replayed_responses_are_told_apart_by_their_place() -> None:
    """One response object stands in three places of the step, replayed in one of them."""
    (response, _), scores = (made := group([1.0, 0.0], [2, 2])).responses, made.scores
    twice = replace(made, responses=(response, response), scores=scores)
    replayed = replace(twice, extra=Extra(replayed=(1,)))
    samples = compose({"name": "grpo"}).train_samples([twice, replayed], context())
    assert [s.older for s in samples] == [False, False, False, True]
    assert [s.origin for s in samples] == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_a_buffer_keeps_both_groups_of_a_sample_that_was_asked_twice() -> None:
    made, here = [group([1.0, 0.0], [2, 3]), group([0.0, 1.0], [4, 5])], context()
    ReplaySignal()(made, here)
    kept = [[len(r["ids"]) for r in e["responses"]] for e in here.state["replay"]]
    assert kept == [[2, 3], [4, 5]]
    ReplaySignal()(made[:1], replace(here, step=2))
    assert [len(e["responses"][0]["ids"]) for e in here.state["replay"]] == [2]


# --- editors -------------------------------------------------------------------------------------


def test_filter_keeps_variants_together_and_asks_for_what_is_missing() -> None:
    groups = [
        group([1.0, 1.0], variant="a"),
        group([1.0, 0.0], variant="b"),
        group([0.0, 0.0], sample="p"),
    ]
    edited = AccuracyBand()(groups, replace(context(), prompts_per_step=3))
    assert edited.groups == groups[:2] and edited.wanted == 2
    full = AccuracyBand()([group([1.0, 0.0], sample=s) for s in "abc"], context())
    assert len(full.groups) == 1 and full.wanted == 0


def test_filter_looks_at_accuracy_not_at_the_total() -> None:
    rows = [{"reward": {"accuracy": 0.0, "format": f}} for f in (0.0, 0.1)]
    assert evaluate("dapo", [rows])["kept"] == []
    assert evaluate("dapo", [rows], edit=[{"name": "dapo_filter", "part": "format"}])["kept"] == [0]


def test_filters_drop_what_cannot_be_judged() -> None:
    assert not AccuracyBand(0, 1, inclusive=True).keeps(np.array([NAN, NAN]))
    assert DropUniform()([group([NAN, 1.0])], context()).groups == []


def test_signal_is_waited_for() -> None:
    groups = [group([1.0, 0.0], sample="a"), *(group([1.0, 1.0], sample=s) for s in "bcd")]
    four = replace(context(), prompts_per_step=4)
    edited = EnoughSignal(0.6)(groups, four)
    assert edited.groups == groups[:1] and edited.wanted == 2
    assert EnoughSignal(0.25)(groups, four).wanted == 0


def test_replayed_success_counts_as_on_policy() -> None:
    stage, run = ReplaySuccess(size=1), context()
    stage([group([1.0, 0.0], [2, 3])], run)
    state = json.loads(json.dumps(run.state))
    failed = stage([group([0.0, 0.0], [4, 4])], context(**state)).groups[0]
    assert failed.rewards.tolist() == [1.0, 0.0]
    assert np.isnan(failed.responses[0].logprobs).all()
    samples = GroupCredit(GroupRelative())([failed], context())
    assert samples[0].old_logprobs is None and samples[1].old_logprobs is not None
    other = stage([group([0.0, 0.0], sample="other")], context(**state)).groups[0]
    assert other.rewards.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("placement", ["reward", "token-reward"])
def test_a_replayed_success_brings_nothing_that_was_measured_of_another(placement: str) -> None:
    """The stored response has 3 tokens, the one it replaces 5: its reference is measured anew."""
    kl = {"kl_coefficient": 0.5, "kl_estimator": "k1", "kl_placement": placement}
    algorithm = compose({"name": "arpo", **kl, "credit": "token_returns"})
    run = context()
    algorithm.edit_groups([group([1.0, 0.0], [3, 2])], run)
    made = group([0.0, 0.0], [5, 4])
    gaps = (np.full(5, 0.16), np.full(4, 0.2))  # of one sum: the group fails as a whole
    reference = [r.logprobs - gap for r, gap in zip(made.responses, gaps, strict=True)]
    failed = replace(made, extra=Extra(reference=reference))
    edited = algorithm.edit_groups(algorithm.shape_rewards([failed], run), run).groups
    returns = TokenReturns().returns(edited[0])
    replayed, own = algorithm.train_samples(edited, run)
    assert replayed.ref_logprobs is None and len(replayed.advantages) == 3
    np.testing.assert_allclose(returns[0], 1.0)  # what it earned then; its KL is not known
    by_token = placement == "token-reward"
    np.testing.assert_allclose(returns[1], [-0.4, -0.3, -0.2, -0.1] if by_token else -0.4)
    assert own.ref_logprobs is None


def test_what_a_stage_keeps_is_known_by_its_type() -> None:
    @dataclass(frozen=True)
    class Seen:
        times: int

    extra = Extra(own=(Seen(1), TakenIn(), Seen(2)))
    assert extra.of(Seen) == Seen(2) and extra.of(TakenIn) == TakenIn()
    assert Extra().of(Seen) is None and not is_taken_in(group([1.0]))


def test_what_a_run_does_not_provide_is_said_by_its_name() -> None:
    with pytest.raises(UserError, match="entropy at every sampled token, which this run does not"):
        needed(Extra().entropy, "entropy")
    assert needed(Extra(greedy=0.0).greedy, "greedy") == 0.0


def test_replayed_groups_keep_the_log_probs_of_their_policy() -> None:
    stage, run = ReplaySignal(size=2), context()
    mixed = group([1.0, 0.0], [2, 3], sample="old")
    assert stage([mixed, group([1.0, 1.0])], run).groups[1].rewards.tolist() == [1.0, 1.0]
    state = json.loads(json.dumps(run.state))
    later = replace(context(**state), recall=lambda sample: mixed.prompt)
    back = stage([group([1.0, 1.0])], later).groups[0]
    assert back.rewards.tolist() == [1.0, 0.0] and back.extra.replayed == (0, 1)
    np.testing.assert_allclose(back.responses[1].logprobs, mixed.responses[1].logprobs)
    with pytest.raises(UserError, match="bring back"):
        stage([group([1.0, 1.0])], context(**state))


# --- prompt samplers -----------------------------------------------------------------------------


def asked(name: str, **meta: Any) -> Sample:
    return Sample(name, "t", (), gold=None, meta=meta)


def test_solved_samples_are_left_out_of_the_next_epoch() -> None:
    run = context()
    groups = [
        group([1.0, 1.0], sample="a"),
        group([0.0, 0.0], sample="b"),
        group([NAN], sample="c"),
    ]
    DropSolved().observe(groups, [], run)
    pool = [asked(name) for name in "abc"]
    again = context(**json.loads(json.dumps(run.state)))
    assert sorted(DropSolved().epoch(pool, again) or ()) == [1, 2]


def test_curricula() -> None:
    pool = [asked("a", pass_rate=0.2), asked("b", pass_rate=0.9), asked("c", pass_rate=0.2)]
    assert EasyToHard().epoch(pool, context()) == [1, 0, 2]
    with pytest.raises(UserError, match="pass_rate"):
        EasyToHard().epoch([asked("a")], context())
    run = context(1, 100)
    stage = HardStage(first_steps=2, full=1.0)
    assert stage.epoch(pool, run) is None
    stage.observe([group([1.0, 1.0], sample="a"), group([1.0, 0.0], sample="b")], [], run)
    assert sorted(stage.epoch(pool, context(3, 100, **run.state)) or ()) == [1, 2]


def test_bandit_moves_to_the_source_that_teaches() -> None:
    run, bandit = context(), UpperConfidence(window=2)
    even = bandit.mix({"t": 0.5, "u": 0.5}, run)
    assert even == pytest.approx({"t": 0.5, "u": 0.5})
    samples = GroupCredit(GroupRelative())([group([1.0, 0.0])], context())
    for _ in range(40):
        bandit.observe([], samples, run)
    assert run.state["sources"]["t"]["count"] == 80
    assert len(run.state["sources"]["t"]["window"]) == 2
    assert bandit.mix({"t": 0.5, "u": 0.5}, run)["u"] > 0.9  # never asked: a large bonus


# --- Share-GRPO ----------------------------------------------------------------------------------


def test_every_response_meets_every_variant() -> None:
    groups = [group([1.0, 0.0], [2, 3], variant="a"), group([1.0, 1.0], [1, 4], variant="b")]
    samples = AcrossVariants(cross=True)(groups, context())
    assert len(samples) == 8 and {s.group for s in samples} == {0}
    for sample in samples:
        home = next(g for g in groups if any(r is sample.response for r in g.responses))
        assert (sample.old_logprobs is None) == (sample.prompt is not home.prompt)
        own = sample.prompt is home.prompt
        expected = {(True, 0): 1.20710, (True, 1): 0.5, (False, 0): 0.5, (False, 1): 0.5}
        if home is groups[0] and sample.response is home.responses[0]:
            assert sample.advantages[0] == pytest.approx(expected[own, 0], abs=1e-4)
        if home is groups[1]:  # all right: no local part, the global one still teaches
            assert sample.advantages[0] == pytest.approx(expected[own, 1], abs=1e-4)


def test_rewrites_are_drawn_by_sample_and_step() -> None:
    sample = Sample("a", "t", (Text("how many?"),), 3, meta={"rewrites": ["x", "y", "z"]})
    stage = Rewrites(3)
    first, again = stage(sample, context()), stage(sample, context())
    assert [s.variant for s in first] == [s.variant for s in again]
    assert first[0] is sample and {s.key for s in first} == {"a"}
    assert {s.parts[0].text for s in first[1:]} <= {"x", "y", "z"} and first[1].gold == 3
    assert len({s.variant for s in first}) == 3
    with pytest.raises(UserError, match="rewrites"):
        Rewrites(5)(sample, context())


def changing(sample: Sample, options: Mapping[str, Any]) -> Sample:
    """What a run does for a task whose gold stays: note the options."""
    return replace(sample, meta={**sample.meta, "options": dict(options)})


def test_variants_from_templates_and_changed_pictures() -> None:
    sample = Sample("a", "t", (Text("how many?"),), 3)
    said = Rewrites(2, templates=("Look closely: {text}",))(sample, context())
    assert [s.parts[0].text for s in said] == ["how many?", "Look closely: how many?"]
    able = replace(context(), change=changing)
    turned = Rewrites(3, changes=("mirror", "noise_25"))(sample, able)
    assert turned[0] is sample and {s.variant for s in turned[1:]} == {"mirror", "noise_25"}
    by_name = {s.variant: s for s in turned}
    assert by_name["mirror"].meta["options"] == {"turn": "mirror"}
    told = "The picture is mirrored: left and right are swapped. how many?"
    assert by_name["mirror"].parts[0].text == told
    both = Rewrites(2, ("Look: {text}",), ("rotate_180",), change_share=1.0)(sample, able)
    assert both[1].variant == "template-0+rotate_180"
    assert both[1].parts[0].text == "The picture is rotated by 180 degrees. Look: how many?"
    plain = Rewrites(2, ("Look: {text}",), ("rotate_180",), change_share=0.0)(sample, able)
    assert plain[1].variant == "template-0"


def test_changes_are_drawn_with_their_share() -> None:
    able = replace(context(), change=changing)
    stage = Rewrites(2, ("Look: {text}",), ("mirror", "noise_10", "rotate_90_cw"), 0.3)
    drawn = [stage(Sample(str(i), "t", (Text("?"),), 3), able)[1].variant for i in range(600)]
    changed = [v for v in drawn if "+" in v]
    assert len(changed) / 600 == pytest.approx(0.3, abs=0.06)  # three standard deviations
    assert len(set(changed)) == 3


def test_a_picture_is_not_changed_where_nobody_knows_the_gold() -> None:
    with pytest.raises(UserError, match="cannot change the pictures"):
        Rewrites(2, changes=("mirror",))(Sample("a", "t", (Text("left?"),), 3), context())


def upright(sample: Sample, options: Mapping[str, Any]) -> Sample | None:
    """What a run does for a question that hangs on sides: only noise is taken."""
    return None if "turn" in options else changing(sample, options)


def test_changes_that_a_question_refuses_give_way_to_others() -> None:
    able = replace(context(), change=upright)
    words = ("Look: {text}",)
    samples = [Sample(str(i), "t", (Text("left?"),), 3) for i in range(20)]
    for sample in samples:
        alone = Rewrites(2, changes=("mirror", "rotate_180", "noise_10"))(sample, able)
        assert [s.variant for s in alone] == ["", "noise_10"]
        said = Rewrites(2, words, ("mirror", "noise_10"), change_share=1.0)(sample, able)
        assert said[1].variant == "template-0+noise_10"
        assert Rewrites(2, words, ("mirror",), 1.0)(sample, able)[1].variant == "template-0"
    with pytest.raises(UserError, match="after 1 of `changes`"):
        Rewrites(3, changes=("mirror", "noise_10"))(samples[0], able)


def test_steps_pay_the_tokens_of_their_own_section() -> None:
    text = "### Step 1: two digits\n### Step 2: so 80\n### The final answer is: 80"
    words = text.split(" ")
    starts = np.cumsum([0, *(len(word) + 1 for word in words)])
    starts[-1] -= 1
    made = group([1.0, 0.0], [len(words), 2])
    sample = replace(made.prompt.sample, meta={"key_steps": ("80", "digits")})
    spoken = replace(
        made,
        prompt=replace(made.prompt, sample=sample),
        responses=(
            replace(made.responses[0], text=text),
            replace(made.responses[1], text="no step"),
        ),
        extra=Extra(offsets=[starts, np.array([0, 3, 7])]),
    )
    # "###" of the second step stands in the token that begins before it: tokens 0-4 and 5-8.
    assert step_spans(spoken) == [[TokenSpan(0, 5, 0.5), TokenSpan(5, 9, 0.5)], []]
    with pytest.raises(UserError, match="key_steps"):
        step_spans(made)


# --- key steps -----------------------------------------------------------------------------------

PATH = (
    "### Image Description: d\n### Rationales: r\n### Step 1: a\n### Step 2: b\n"
    "### The final answer is: 7"
)


def test_numbers_match_as_numbers() -> None:
    text = "### Step 1: It costs 180 dollars, or 1,200.50 in all.\n### Step 2: \u00bd"
    assert matched(text, ["80", "180", "1200.5", ["nothing", "180 dollars"]]) == [
        False,
        True,
        True,
        True,
    ]
    assert matched_share(text, []) == 0.0
    assert matched("180 outside of any step", ["180"]) == [False]
    assert matched("### Step 1: a a b", ["a b", "b a", ""]) == [True, False, False]


def test_steps_are_worth_what_they_add() -> None:
    text = "### Rationales: 7\n### Step 1: 7 apples\n### Step 2: 7 pears\n### Step 3: 9"
    scored = scored_steps(text, ["7", "pears", "9", "none"])
    assert [value for _, _, value in scored] == [0.25, 0.25, 0.25]
    assert [text[start:end].strip() for start, end, _ in scored] == text.split("\n")[1:]
    assert scored_steps(text, [])[0][2] == 0.0


@pytest.mark.parametrize(
    ("broken", "valid"),
    [
        (PATH, True),
        (PATH.replace("Step 2", "Step 3"), False),
        (PATH.replace("### Rationales: r\n", ""), False),
        (PATH.replace(": 7", ": "), False),
        ("\n".join(reversed(PATH.split("\n"))), False),
        (PATH.replace("### Step 1: a\n### Step 2: b\n", ""), False),
        ("", False),
    ],
)
def test_path(broken: str, valid: bool) -> None:
    assert is_valid_path(broken) is valid


def test_matching_takes_linear_time() -> None:
    text = "### Step 1: " + "a " * 200_000
    assert matched(text, ["a " * 2000 + "b"]) == [False]


# --- composition ---------------------------------------------------------------------------------


def test_stages_of_several_papers_go_together() -> None:
    algorithm = compose(
        {
            "name": "stepgrpo",
            "alpha": 0.2,
            "objective": {"name": "cispo", "high": 4.0},
            "reducer": "token-mean",
            "edit": ["dapo_filter"],
            "kl": {"schedule": {"name": "grpo_d", "low": 0.0, "high": 0.02}},
            "shape": ["own", {"name": "soft_overlong", "longest": 100, "cache": 20}],
            "updates": {"mini_batches": 4},
        }
    )
    assert [type(s).__name__ for s in algorithm.shape] == ["StepRewards", "SoftOverlong"]
    assert repr(algorithm.objective) == "CISPO(high=4.0, low=0.0)"
    assert algorithm.kl is not None and algorithm.kl.at(context(1, 11)) == pytest.approx(0.01)
    assert algorithm.kl.at(context(11, 11)) == pytest.approx(0.02)
    assert not algorithm.updates.on_policy


def test_a_stage_without_a_name_changes_the_own_one() -> None:
    algorithm = compose({"name": "dapo", "objective": {"high": 0.3}, "kl": {"coefficient": 0.1}})
    assert repr(algorithm.objective).startswith("Clipped(low=0.2, high=0.3")
    assert algorithm.kl == KL(0.1) and algorithm.needs == {"reference"}
    assert compose({"name": "cppo", "kl": None}).needs == frozenset()


def test_an_objective_of_groups_brings_its_reducer() -> None:
    algorithm = compose({"name": "dapo", "objective": "gvpo"})
    assert algorithm.reducer.name == "group-mean" and algorithm.objective.whole_groups


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"name": "grop"}, "did you mean 'grpo'"),
        ({"name": "grpo", "groupsize": 4}, "did you mean 'group_size'"),
        ({"name": "grpo", "mini_batches": 4}, "write it as updates.mini_batches"),
        ({"name": "grpo", "group_size": 0}, "group_size"),
        ({"name": "grpo", "objective": "clippped"}, "did you mean 'clipped'"),
        ({"name": "grpo", "objective": {"hihg": 0.1}}, "did you mean 'high'"),
        ({"name": "grpo", "objective": {"low": -1}}, "objective.low"),
        ({"name": "grpo", "edit": "dapo_filter"}, "is a list"),
        ({"name": "grpo", "edit": [{"low": 1}]}, "needs a name"),
        ({"name": "grpo", "objective": 3}, "section of options"),
        ({"name": "grpo", "kl": {"coefficient": 0.1, "estimator": "k1"}}, "gradient of 0"),
        (
            {"name": "grpo", "kl": {"coefficient": 0.1, "placement": "token-reward"}},
            "token rewards",
        ),
        ({"name": "rloo", "kl": {"schedule": "adaptive"}}, "follows the KL of the loss"),
        ({"name": "grpo", "reducer": "constant"}, "needs a length"),
        ({"name": "grpo", "reducer": "group-mean"}, "whole groups"),
        ({"name": "gvpo", "reducer": "token-mean"}, "group-mean"),
        ({"name": "gvpo", "refine": ["keep_largest"]}, "takes parts of them away"),
        ({"name": "gvpo", "refine": ["damp_unlikely"]}, "sequences only"),
        ({"name": "nft", "credit": "group_relative"}, "centred"),
        ({"name": "opo", "updates": {"passes": 2}}, "one update"),
        ({"name": "l_grpo", "edit": ["dapo_filter"]}, "drops them"),
        ({"name": "grpo", "group_size": 1, "edit": ["dapo_filter"]}, "keep none"),
        ({"name": "grpo", "group_size": 1, "credit": "leave_one_out"}, "at least two"),
        ({"name": "grpo", "objective": {"imitation": 0.1}}, "token-mean"),
        ({"name": "ptst", "lengths": [1, 2]}, "one value for each stage"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_reason(
    section: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        compose(section)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_what_a_run_cannot_provide_is_said(name: str) -> None:
    """Every need either stands in the data or is named by an error, never silently absent."""
    needs = compose({"name": name}).needs - FROM_DATA
    critics = ("ppo", "vc_ppo", "vapo", "apa", "direct_advantage")
    if "reference" in needs and name not in critics:
        rows = [{"reward": r, "length": 2, "text": "<COT>"} for r in (1.0, 0.0)]
        spans = {"turns": [[0, 2, 0.0]], "entropy": [0, 0], "self_certainty": [0, 0]}
        spans |= {"collision": [0, 0], "implied": 0.0, "aided": 0.0}
        more = {"meta": [{"key_steps": ["a"]}], "greedy": [0.0], "mismatched": [0.0]}
        more["state"] = {"value_estimates": {"0": 0.5}}
        with pytest.raises(UserError, match=r"reference|ref_logprobs"):
            evaluate(name, [[{**row, **spans} for row in rows]], **more)


# --- signals and parts ---------------------------------------------------------------------------


def test_a_missing_signal_is_named() -> None:
    for name, what in (("egsw", "entropy"), ("ppo", "critic"), ("turn_level", "turns")):
        with pytest.raises(UserError, match=what):
            evaluate(name, [[{"reward": 1.0}, {"reward": 0.0}]])


def test_outcomes_are_the_accuracy_where_there_is_one() -> None:
    made = group([1.1, 0.1, None])
    parts = [{"accuracy": 1.0, "format": 0.1}, {"accuracy": 0.0, "format": 0.1}, {}]
    scored = replace(
        made,
        scores=tuple(
            Score(p, None, reward=s.reward) for p, s in zip(parts, made.scores, strict=True)
        ),
    )
    np.testing.assert_array_equal(outcomes(scored), [1.0, 0.0, NAN])
    np.testing.assert_array_equal(outcomes(scored, "format"), [0.1, 0.1, NAN])
    np.testing.assert_array_equal(outcomes(made), [1.1, 0.1, NAN])
    advantages = PartsRelative({"accuracy": 1.0, "format": 1.0}, Normalise(1, 0.5))(
        scored, context()
    )
    assert advantages[2] == 0 and advantages[0] == -advantages[1] > 0


def test_credit_takes_the_options_of_its_advantages() -> None:
    """Parts [1, 0, 0] and [1, 1, 0], each centred, over the deviation of both: sqrt(1/3) + 1e-4."""
    parts = [{"accuracy": float(a), "format": float(f)} for a, f in ((1, 1), (0, 1), (0, 0))]
    rows, scale = [[{"reward": p} for p in parts]], (1 / 3) ** 0.5 + 1e-4
    for options, wanted in (
        ({}, [1.0, 0.0, -1.0]),
        ({"weights": {"accuracy": 1.0, "format": 0.5}}, [5 / 6, -1 / 6, -2 / 3]),
        ({"normalise": {"ddof": 1, "epsilon": 2e-4}}, [1.0, 0.0, -1.0]),
    ):
        found = evaluate("grpo", rows, credit={"name": "parts_relative", **options})
        by = scale + 1e-4 if "normalise" in options else scale
        np.testing.assert_allclose(first_tokens(found)[0], np.array(wanted) / by, atol=1e-12)
    alone = [[{"reward": 2.0}]]
    assert first_tokens(evaluate("grpo", alone, credit="leave_one_out"))[0] == [0.0]
    raw = evaluate("grpo", alone, credit={"name": "leave_one_out", "single": "raw"})
    assert first_tokens(raw)[0] == [2.0]
    with pytest.raises(UserError, match=r"algorithm\.credit has no option 'singel'"):
        compose({"name": "grpo", "credit": {"name": "leave_one_out", "singel": "raw"}})


def test_kl_in_the_reward_comes_before_the_baseline() -> None:
    rows = [
        {"reward": 1.0, "logprobs": [-1.0, -1.0], "ref_logprobs": [-1.5, -1.5]},
        {"reward": 1.0, "logprobs": [-1.0, -1.0], "ref_logprobs": [-1.0, -1.0]},
    ]
    result = evaluate("rloo", [rows], kl_coefficient=0.1)
    assert result["rewards"][0] == pytest.approx([0.9, 1.0])
    assert values(result) == pytest.approx([-0.1, 0.1])
    assert result["kl"] == 0


def test_unscorable_answers_stay_out_of_the_batch_statistics() -> None:
    plain = TokenReturns()([group([1.0, 0.0], [2, 2])], context())
    more = TokenReturns()([group([1.0, 0.0, None], [2, 2, 5])], context())
    for a, b in zip(plain, more, strict=False):
        np.testing.assert_allclose(a.advantages, b.advantages)
    assert not more[2].advantages.any()


def test_cases_that_do_not_fit_say_where() -> None:
    with pytest.raises(UserError, match=r"groups\.0\.0"):
        evaluate("grpo", [[{"reward": 1, "logprobs": [0.0], "old_logprobs": [0.0, 0.0]}]])
    with pytest.raises(UserError, match=r"groups\.0\.0\.logprob"):
        evaluate("grpo", [[{"reward": 1, "logprob": [0.0]}]])
