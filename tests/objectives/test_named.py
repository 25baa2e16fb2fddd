"""Objectives by name: one file each, of this package and of others; none brings torch along."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from mmrl import plugins
from mmrl.algorithms.catalogue import show
from mmrl.algorithms.compose import compose
from mmrl.config import RunConfig
from mmrl.errors import UserError
from mmrl.objectives.margins import log_sigmoid
from mmrl.objectives.named import OBJECTIVES
from mmrl.runlog.journal import Journal
from mmrl.train.algorithm_case import evaluate_case
from mmrl.train.run import train
from mmrl.validation import validate
from tests.runs import make_digits, run_config

DOC = (Path(__file__).parents[2] / "docs" / "algorithms.md").read_text(encoding="utf-8")
SECTION = DOC[DOC.index("## Writing an objective") :]


def block(language: str) -> str:
    """The first code block of the section on objectives in a language."""
    found = re.search(rf"```{language}\n(.*?)```", SECTION, re.DOTALL)
    assert found
    return found[1]


@pytest.fixture
def other_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The documented package, and one with stages and with entry points that lead nowhere."""
    entries = re.findall(r"(\w+) = \"(.*)\"", block("toml"))
    about = tmp_path / "site" / "other-1.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Name: other\nVersion: 1\n")
    (about / "entry_points.txt").write_text(
        "[mmrl.objectives]\n"
        + "".join(f"{name} = {value}\n" for name, value in entries)
        + "wrong = topr:dataclass\nempty = topr:nothing\ncispo = topr:TOPR\n"
        "[mmrl.shapers]\nhalved = other_stages:halved\n"
        "[mmrl.credits]\nflat = other_stages:Flat\n"
        "[mmrl.editors]\nfirst = other_stages:first\n"
        "[mmrl.refiners]\ndoubled = other_stages:doubled\n"
        "[mmrl.schedules]\nfalling = other_stages:Falling\n"
    )
    (tmp_path / "site" / "topr.py").write_text(block("python"))
    (tmp_path / "site" / "other_stages.py").write_text(STAGES)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    yield
    for name in ("topr", "other_stages"):
        sys.modules.pop(name, None)


STAGES = """
from dataclasses import dataclass, replace

import numpy as np

from mmrl.algorithms.stages.credit import pair
from mmrl.stage import Edit, Stage, with_rewards


def first(groups, context):
    return Edit(groups[:1])


def doubled(samples, context):
    return [replace(s, advantages=2 * s.advantages) for s in samples]


@dataclass(frozen=True)
class Falling(Stage):
    start: float = 0.4

    def at(self, context):
        return self.start / context.step

    def observe(self, kl, responses, context):
        pass


def halved(groups, context):
    return [with_rewards(group, group.rewards / 2) for group in groups]


@dataclass(frozen=True)
class Flat(Stage):
    value: float = 1.0

    def __call__(self, groups, context):
        return [
            s for i, g in enumerate(groups) for s in pair(g, np.full(len(g.scores), self.value), i)
        ]
"""


def test_every_objective_is_one_file_that_says_where_it_comes_from() -> None:
    modules = plugins.modules("mmrl.objectives")
    defined = {type(objective).__module__ for objective in OBJECTIVES.values()}
    assert defined == set(modules.values())
    for objective in OBJECTIVES.values():
        assert re.search(r"arXiv \d{4}\.\d{5}|doi 10\.", objective.paper)
        assert type(objective).__doc__ and type(objective).losses.__doc__


def test_algorithms_and_objectives_do_not_bring_torch() -> None:
    code = (
        "import sys; from mmrl import plugins; from mmrl.objectives.named import OBJECTIVES\n"
        "from mmrl.algorithms.compose import compose\n"
        "for name in plugins.available('algorithm'): compose({'name': name})\n"
        "sys.exit('torch' in sys.modules or len(OBJECTIVES) < 16)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.usefixtures("other_package")
def test_the_documented_objective_has_the_gradient_it_promises() -> None:
    """Ratios of the two responses: e^0.3 and e^(0.4 - 0.1); a right one weighs 1, a wrong 0.8."""
    assert "topr" in OBJECTIVES and OBJECTIVES["topr"].paper == "arXiv 2503.14286"
    params = yaml.safe_load(block("yaml"))["algorithm"]
    responses = [
        {"reward": 1.0, "logprobs": [-1.0, -0.5], "old_logprobs": [-1.2, -0.6]},
        {"reward": 0.0, "logprobs": [-0.6, -0.9], "old_logprobs": [-1.0, -0.8]},
    ]
    case = {"groups": [responses], "params": {**params, "updates": {}}}
    (right, wrong) = evaluate_case("grpo", case)["gradient"][0]
    # Centred rewards are +-1/2; a mean over two responses of means over two tokens is a 1/4.
    np.testing.assert_allclose(right, [-0.5 / 4] * 2)
    np.testing.assert_allclose(wrong, [0.8 * 0.5 / 4] * 2)
    case["params"] = {**params, "updates": {}, "objective": "topr"}
    responses[1]["logprobs"] = [-1.1, -0.8]  # the ratio e^-0.1 is below its bound
    (_, wrong) = evaluate_case("grpo", case)["gradient"][0]
    np.testing.assert_allclose(wrong, [np.exp(-0.1) * 0.5 / 4] * 2)


@pytest.mark.usefixtures("other_package")
def test_the_documented_objective_trains_from_its_configuration(tmp_path: Path) -> None:
    digits = make_digits(tmp_path / "digits", train=6, test=2)
    made = run_config(tmp_path / "run", digits, trainer={"steps": 1, "prompts_per_step": 4})
    made["algorithm"] = {**yaml.safe_load(block("yaml"))["algorithm"], "group_size": 4}
    made["data"].pop("eval_path")
    train(validate(RunConfig, made, "test"))
    (row,) = Journal(tmp_path / "run" / "metrics.jsonl").rows()
    assert row["train/updates"] == 2 and np.isfinite(row["train/loss"])
    assert 0 <= row["train/bounded_share"] <= 1 and "train/clip_share" not in row


@pytest.mark.usefixtures("other_package")
def test_stages_of_another_package_have_names() -> None:
    """Rewards are halved; what is flat is the same for right and wrong, with its option."""
    values: dict[str, Any] = {"groups": [[{"reward": 1.0}, {"reward": 0.0}]]}
    found = evaluate_case("grpo", {**values, "params": {"shape": ["halved"]}})
    assert found["rewards"] == [[0.5, 0.0]]
    params = {"credit": {"name": "flat", "value": 0.25}}
    assert evaluate_case("grpo", {**values, "params": params})["advantages"] == [[[0.25], [0.25]]]
    two = {"groups": [*values["groups"], *values["groups"]]}
    found = evaluate_case("grpo", {**two, "params": {"edit": ["first"]}})
    assert found["kept"] == [0]
    found = evaluate_case("grpo", {**values, "params": {**params, "refine": ["doubled"]}})
    assert found["advantages"] == [[[0.5], [0.5]]]
    kl = {"kl": {"schedule": {"name": "falling", "start": 0.3}}}
    known = [{**r, "logprobs": [-1.0], "ref_logprobs": [-1.0]} for r in values["groups"][0]]
    found = evaluate_case("grpo", {"groups": [known], "params": kl, "step": 3, "total_steps": 4})
    assert found["kl_coefficient"] == pytest.approx(0.1)
    with pytest.raises(UserError, match=r"algorithm\.shape has no option 'by'"):
        compose({"name": "grpo", "shape": [{"name": "halved", "by": 3}]})


@pytest.mark.usefixtures("other_package")
@pytest.mark.parametrize("name", ["wrong", "empty"])
def test_an_entry_point_that_is_no_objective_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=rf"'{name}' of the entry points .* is no Objective"):
        compose({"name": "grpo", "objective": name})


@pytest.mark.usefixtures("other_package")
def test_a_name_of_ours_is_not_taken_over_in_silence() -> None:
    with pytest.raises(UserError, match=r"'cispo' is mmrl's own, and topr:TOPR takes it again"):
        compose({"name": "grpo", "objective": "cispo"})


def test_what_an_objective_follows_is_shown_with_its_algorithm() -> None:
    (line,) = (x for x in show("nft", as_json=False).split("\n") if x.startswith("  objective: "))
    assert line.endswith("(arXiv 2505.18116)")


def test_an_unknown_name_gets_its_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'clipped'"):
        compose({"name": "grpo", "objective": "cliped"})


def test_log_sigmoid_is_the_reference_s_everywhere() -> None:
    at = torch.tensor([-1e30, -800.0, -30.0, -1.0, 0.0, 1.0, 30.0, 800.0, 1e30])
    for dtype in (torch.float64, torch.float32):
        ours, theirs = (at.to(dtype).clone().requires_grad_() for _ in range(2))
        value, wanted = log_sigmoid(ours), torch.nn.functional.logsigmoid(theirs)
        value.sum().backward()
        wanted.sum().backward()
        assert torch.allclose(value, wanted, rtol=1e-6)
        assert torch.allclose(ours.grad, theirs.grad, rtol=1e-6)
