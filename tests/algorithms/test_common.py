"""Options that any algorithm may be given: each has its effect, or is said to have none."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmrl import plugins
from mmrl.algorithm import Algorithm
from mmrl.algorithms.catalogue import common_table
from mmrl.algorithms.common import NUMERICS, Common
from mmrl.algorithms.compose import compose
from mmrl.algorithms.ptst import StagedGroups
from mmrl.algorithms.stages.refiners import RandomTokens
from mmrl.algorithms.stages.shapers import ShortIsBetter, ShortWhenSolved, SoftOverlong
from mmrl.errors import UserError
from mmrl.objective import Reducer
from mmrl.objectives.bounded_weight import CISPO
from mmrl.objectives.clipped_ratio import Clipped
from tests.algorithms.cases import context

ALGORITHMS = sorted(plugins.available("algorithm"))

# Values that are no algorithm's own.
OPTIONS: list[dict[str, Any]] = [
    {"group_size": 5},
    {"kl_coefficient": 0.07},
    {"kl_coefficient": 0.0},
    {"kl_coefficient": 0.07, "kl_estimator": "k2"},
    {"kl_coefficient": 0.07, "kl_estimator": "k1"},
    {"kl_coefficient": 0.07, "kl_placement": "reward"},
    {"kl_coefficient": 0.07, "kl_placement": "token-reward"},
    {"kl_coefficient": 0.07, "kl_placement": "loss"},
    {"kl_estimator": "k2"},
    {"clip_low": 0.17},
    {"clip_high": 0.37},
    {"part": "format"},
    *({"numerics": numerics} for numerics in NUMERICS),
]


def bare(section: dict[str, Any]) -> Algorithm:
    return dataclasses.replace(compose(section), notes=())


def has(name: str, option: str, value: Any) -> bool:
    """True if the algorithm has the value without being told."""
    if option == "numerics":
        field = plugins.load("algorithm", name).Params.model_fields.get(option)
        return field is not None and field.default == value
    kl = bare({"name": name, "kl_coefficient": 0.07}).kl
    if option == "kl_coefficient":
        return value == 0 and compose({"name": name}).kl is None
    return kl is not None and getattr(kl, option.removeprefix("kl_"), None) == value


@pytest.mark.parametrize("name", ALGORITHMS)
def test_an_option_has_its_effect_or_is_said_to_have_none(name: str) -> None:
    for section in OPTIONS:
        *others, option = section
        without = bare({"name": name, **{key: section[key] for key in others}})
        found = compose({"name": name, **section})
        idle = any(f"{option}={section[option]}" in note for note in found.notes)
        changed = dataclasses.replace(found, notes=()) != without
        assert changed != idle or has(name, option, section[option]), (section, found.notes)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_what_is_given_is_what_the_stages_have(name: str) -> None:
    section = {"name": name, "group_size": 5, "kl_coefficient": 0.07, "clip_high": 0.37}
    found = compose(section)
    said = " ".join(found.notes)
    if "group_size" not in said and name != "ptst":
        assert getattr(found.plan, "size", None) == 5
    if "kl_coefficient" not in said:
        assert found.kl is not None and found.kl.coefficient == 0.07
        assert "reference" in found.needs
    if "clip_high" not in said and not isinstance(found.objective, CISPO):
        assert getattr(found.objective, "high", None) == 0.37


def test_an_algorithm_keeps_its_own_kind_of_kl() -> None:
    """Only the weight is the user's: RLOO's KL stands in rewards, PPO's in those of tokens."""
    kls = {n: compose({"name": n, "kl_coefficient": 0.02}).kl for n in ("rloo", "ppo", "dr_grpo")}
    kinds = {name: kl and (kl.coefficient, kl.estimator, kl.placement) for name, kl in kls.items()}
    assert kinds == {
        "rloo": (0.02, "k1", "reward"),
        "ppo": (0.02, "k1", "token-reward"),
        "dr_grpo": (0.02, "k3", "loss"),
    }
    assert compose({"name": "dr_grpo"}).kl is None and compose({"name": "ppo"}).kl is None


def test_a_kl_without_weight_loads_no_reference() -> None:
    for section in ({"kl_coefficient": 0}, {"kl": {"coefficient": 0}}, {"kl": {"estimator": "k2"}}):
        assert compose({"name": "cppo", **section, "kl_coefficient": 0}).needs == frozenset()
    (note,) = compose({"name": "dapo", "kl": {"estimator": "k2"}}).notes
    assert "kl={'estimator': 'k2'} (there is no KL" in note


def test_the_clip_of_cispo_is_a_bound_of_the_ratio_itself() -> None:
    found = compose({"name": "cispo", "clip_low": 0.2, "clip_high": 0.28}).objective
    assert isinstance(found, CISPO) and (found.low, found.high) == (0.8, 1.28)
    swapped = compose({"name": "grpo", "objective": "cispo", "clip_high": 0.28}).objective
    assert isinstance(swapped, CISPO) and (swapped.low, swapped.high) == (0.0, 1.28)


def test_a_stages_own_section_goes_before() -> None:
    section = {"objective": {"high": 0.3}, "clip_high": 0.4, "clip_low": 0.1}
    found = compose({"name": "dapo", **section, "kl": {"coefficient": 0.1}, "kl_coefficient": 0.2})
    assert isinstance(found.objective, Clipped)
    assert (found.objective.low, found.objective.high) == (0.1, 0.3)
    assert found.kl is not None and found.kl.coefficient == 0.1
    (note,) = found.notes
    assert "clip_high=0.4 (the section objective says it)" in note
    assert "kl_coefficient=0.2 (the section kl says it)" in note and "clip_low" not in note
    (note,) = compose({"name": "cppo", "kl": None, "kl_coefficient": 0.2}).notes
    assert "kl_coefficient=0.2 (kl: null takes it out)" in note


def test_grpo_d_stays_grpo_d() -> None:
    found = compose({"name": "grpo_d", "kl_coefficient": 0.01})
    assert found.kl is not None and found.kl.at(context(1, 11)) == pytest.approx(0.07)
    assert "kl_coefficient=0.01 (a schedule sets it)" in found.notes[0]


def test_a_wide_clip_of_a_response_is_said() -> None:
    (note,) = compose({"name": "gspo", "clip_low": 0.2, "clip_high": 0.28}).notes
    assert "its own is 0.0003, 0.0004" in note
    assert compose({"name": "gspo", "clip_low": 0.001}).notes == ()


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"kl_coef": 0.1}, "did you mean 'kl_coefficient'"),
        ({"clip_hihg": 0.1}, "did you mean 'clip_high'"),
        ({"group_sizes": [1]}, r"did you mean 'group_size'\? \(it is an option of ptst\)"),
        ({"longest": 100}, "it is an option of dapo, l_grpo"),
        ({"kl_coefficient": -1}, "kl_coefficient"),
        ({"clip_low": 2}, "clip_low"),
        ({"kl_estimator": "k4"}, "kl_estimator"),
        ({"numerics": "papre"}, "numerics"),
    ],
)
@pytest.mark.parametrize("name", ["grpo", "gspo", "rloo"])
def test_mistakes_are_refused(name: str, section: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        compose({"name": name, **section})


def test_the_documented_table_is_what_the_code_says() -> None:
    text = (Path(__file__).parents[2] / "docs" / "algorithms.md").read_text(encoding="utf-8")
    assert "\n".join(common_table()) in text
    assert all(f"`{option}`" in text for option in Common.model_fields)


# --- lengths -------------------------------------------------------------------------------------


def test_dapos_punishment_begins_within_the_run() -> None:
    """At 100 tokens: a fifth of them, 20, is the cache; 90 tokens cost half a point."""
    found = compose({"name": "dapo"}, 100)
    (shaper,) = found.shape
    assert isinstance(shaper, SoftOverlong) and (shaper.longest, shaper.cache) == (100, 20)
    assert shaper.punishment(np.array([80.0, 90.0, 100.0])).tolist() == [0.0, -0.5, -1.0]
    (note,) = found.notes
    assert note == (
        "algorithm 'dapo': answers over 80 tokens lose reward, up to 1 point at 100 tokens "
        "(longest 100, cache 20 tokens, the paper's share of rollout.max_new_tokens=100)"
    )


def test_lengths_follow_the_longest_response() -> None:
    reducers = {name: compose({"name": name}, 50).reducer for name in ("dr_grpo", "nft")}
    assert reducers == dict.fromkeys(reducers, Reducer("constant", 50))
    (lead,) = compose({"name": "grpo_lead"}, 1024).shape
    assert isinstance(lead, ShortIsBetter) and lead.free == 500
    (solved,) = compose({"name": "l_grpo"}, 50).shape
    assert isinstance(solved, ShortWhenSolved) and solved.longest == 50
    (tokens,) = compose({"name": "s_grpo"}, 64).refine
    assert isinstance(tokens, RandomTokens) and (tokens.first, tokens.most) == (2, 16)
    cuts = compose({"name": "brpo"}, 100).cuts
    assert cuts is not None and cuts.budgets == (20, 40, 60, 80)
    few = compose({"name": "brpo"}, 4).cuts
    assert few is not None and few.budgets == (1, 2, 3)
    ptst = compose({"name": "ptst", "group_size": 6}, 64)
    assert ptst.length is not None and isinstance(ptst.plan, StagedGroups)
    steps = [context(step, 3) for step in (1, 2, 3)]
    assert [ptst.length(c) for c in steps] == [16, 32, 64]
    assert [ptst.plan.sizes(c) for c in steps] == [12, 6, 3]


def test_lengths_that_are_set_stand() -> None:
    (shaper,) = compose({"name": "dapo", "longest": 50}, 1000).shape
    assert isinstance(shaper, SoftOverlong) and (shaper.longest, shaper.cache) == (50, 10)
    assert compose({"name": "dr_grpo", "length": 7}, 1000).reducer.length == 7
    assert compose({"name": "dr_grpo", "length": 7}, 1000).notes == ()
    reducer = {"name": "constant", "length": 7}
    assert compose({"name": "grpo", "reducer": reducer}, 1000).reducer.length == 7


def test_stages_taken_by_name_follow_too() -> None:
    section = {"shape": ["soft_overlong"], "refine": ["random_tokens"], "reducer": "constant"}
    found = compose({"name": "grpo", **section}, 512)
    assert found.shape == (SoftOverlong(512, 102),) and found.refine == (
        RandomTokens(16, 0.5, 128),
    )
    assert found.reducer == Reducer("constant", 512.0)
    assert "soft_overlong.longest 512" in found.notes[0] and "reducer.length 512" in found.notes[0]
    own = compose({"name": "dapo", "shape": ["own"], "objective": {"high": 0.3}}, 512)
    assert own.shape == (SoftOverlong(512, 102),)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_no_length_of_a_paper_is_left_in_a_short_run(name: str) -> None:
    """What is above the limit is not in tokens: DisCO's beta, DUMP's window, steps of a run."""
    long = {
        "DisCO.beta",
        "Follows.every",
        "HardStage.first_steps",
        "ReplaySignal.size",
        "Updates.new_critic_steps",
        "UpperConfidence.window",
    }
    found = compose({"name": name}, 32)
    assert {where for where, value in numbers(found) if value > 32} <= long


def numbers(stage: Any) -> list[tuple[str, float]]:
    """Every number of a dataclass and of those inside it, with where it stands."""
    found: list[tuple[str, float]] = []
    for field in dataclasses.fields(stage):
        value = getattr(stage, field.name)
        for item in value if isinstance(value, tuple) else (value,):
            if dataclasses.is_dataclass(item) and not isinstance(item, type):
                found += numbers(item)
            elif isinstance(item, int | float):
                found.append((f"{type(stage).__name__}.{field.name}", item))
    return found


def test_without_a_limit_the_papers_lengths_stand() -> None:
    assert compose({"name": "dapo"}).shape == (SoftOverlong(20_480, 4_096),)
    assert compose({"name": "dr_grpo"}).reducer == Reducer("constant", 3000)
    assert compose({"name": "dapo"}).notes == ()
