"""Runs in half precision move masters as float32 runs move weights, and resume bit for bit."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForImageTextToText

from mmrl.config import RunConfig
from mmrl.policy.model_folder import model_folder
from mmrl.train.run import train
from mmrl.validation import validate
from tests.conftest import TINY
from tests.runs import make_digits, run_config

RATE = 1e-6
TARGETS = {"algorithm": {"name": "sft"}, "rollout": {"engine": "targets"}}
"""Both precisions train on the same tokens: what they move apart is rounding alone."""
SAMPLED = {"algorithm": {"name": "grpo", "group_size": 8}}
"""Each precision samples its own answers, which differ from the first step on."""


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_digits(tmp_path_factory.mktemp("digits"), train=64, test=2)


def config(folder: Path, digits: Path, dtype: str, steps: int, **sections: Any) -> RunConfig:
    values = run_config(
        folder,
        digits,
        **{
            "model": {"dtype": dtype},
            "optimizer": {"learning_rate": RATE},
            "trainer": {"steps": steps, "prompts_per_step": 4},
            **sections,
        },
    )
    values["algorithm"] = sections.get("algorithm", values["algorithm"])
    del values["data"]["eval_path"]
    return validate(RunConfig, values, "test")


def step_folder(run: Path) -> Path:
    (found,) = (run / "checkpoints").glob("step_*")
    return found


def weights_of(folder: Path) -> dict[str, Tensor]:
    """The weights as a user loads them, by the names that the optimiser has too."""
    model = AutoModelForImageTextToText.from_pretrained(folder)
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def ended(run: Path) -> dict[str, Tensor]:
    """The weights as the optimiser has them: masters where there are any."""
    state = load_file(step_folder(run) / "trainer" / "optimizer.safetensors")
    weights = weights_of(step_folder(run))
    return {name: state.get(f"master.{name}", weight) for name, weight in weights.items()}


def compare(half: Path, exact: Path) -> tuple[float, float, float]:
    """Cosine of the moves, shares of weights that moved in half precision and in float32."""
    start = weights_of(model_folder(TINY))
    moves = [
        torch.cat([(found[n].double() - start[n].double()).flatten() for n in sorted(found)])
        for found in (ended(half), ended(exact))
    ]
    cosine = float(torch.nn.functional.cosine_similarity(*moves, 0))
    shares = [float((move != 0).double().mean()) for move in moves]
    return cosine, shares[0], shares[1]


def both(folder: Path, digits: Path, steps: int, **sections: Any) -> tuple[float, float, float]:
    for dtype in ("float32", "bfloat16"):
        train(config(folder / dtype, digits, dtype, steps, **sections))
    return compare(folder / "bfloat16", folder / "float32")


def test_five_steps_on_the_same_tokens_move_masters_as_float32(
    tmp_path: Path, digits: Path
) -> None:
    cosine, moved, wanted = both(tmp_path, digits, 5, **TARGETS)
    print(f"same tokens, 5 steps: cosine {cosine:.4f}, moved {moved:.4f} of {wanted:.4f}")
    assert cosine >= 0.95
    assert moved >= 0.9 * wanted > 0.5
    run = tmp_path / "bfloat16"
    weights = weights_of(step_folder(run))
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}
    assert all(
        torch.equal(master.to(torch.bfloat16), weights[name]) for name, master in ended(run).items()
    )


def optimizer(run: Path, step: int) -> dict[str, Tensor]:
    return load_file(run / "checkpoints" / f"step_{step}" / "trainer" / "optimizer.safetensors")


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


@pytest.mark.parametrize("moments", ["float32", "bfloat16"])
def test_a_resumed_run_has_the_same_masters_bit_for_bit(
    moments: str, tmp_path: Path, digits: Path
) -> None:
    settings = {
        "optimizer": {"learning_rate": RATE, "moments": moments},
        "trainer": {"steps": 4, "prompts_per_step": 2, "checkpoint_every": 2},
    }
    whole, again = tmp_path / "whole", tmp_path / "again"
    train(config(whole, digits, "bfloat16", 4, **settings))
    shutil.copytree(whole, again)
    shutil.rmtree(again / "checkpoints" / "step_4")
    train(config(again, digits, "bfloat16", 4, **settings), resume=True)
    assert same(optimizer(whole, 4), optimizer(again, 4))
    assert same(
        *(load_file(run / "checkpoints" / "step_4" / "model.safetensors") for run in (whole, again))
    )
    first, last = optimizer(whole, 2), optimizer(whole, 4)
    assert any(not torch.equal(first[n], last[n]) for n in first if n.startswith("master."))


@pytest.mark.parametrize("keep", [["state"], ["state", "optimizer"]])
def test_a_phase_begins_with_the_weights_or_with_their_masters(
    keep: list[str], tmp_path: Path, digits: Path
) -> None:
    """Its only step moves nothing that float32 shows, so that what it began with is seen."""
    still = {"learning_rate": 1e-30}
    values = config(tmp_path / "run", digits, "bfloat16", 2, **TARGETS).model_dump(mode="json")
    phases = [
        {"name": "moves", "trainer": {"steps": 2}},
        {"name": "rests", "trainer": {"steps": 1}, "optimizer": still, "keep": keep},
    ]
    train(validate(RunConfig, {**values, "phases": phases}, "test"))
    before, after = (optimizer(tmp_path / "run", step) for step in (2, 3))
    weights = weights_of(tmp_path / "run" / "checkpoints" / "step_2")
    for name, weight in weights.items():
        wanted = before[f"master.{name}"] if "optimizer" in keep else weight.float()
        assert torch.equal(after[f"master.{name}"], wanted), name
        assert after[f"step.{name}"] == (3 if "optimizer" in keep else 1)
    assert any(not torch.equal(before[f"master.{n}"], w.float()) for n, w in weights.items())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "steps", "limit"),
    [("targets", 100, 0.9), ("grpo", 5, 0.5), ("grpo", 100, 0.5)],
)
def test_moves_over_more_steps(
    name: str, steps: int, limit: float, tmp_path: Path, digits: Path
) -> None:
    sections = TARGETS if name == "targets" else SAMPLED
    cosine, moved, wanted = both(tmp_path, digits, steps, **sections)
    print(f"{name}, {steps} steps: cosine {cosine:.4f}, moved {moved:.4f} of {wanted:.4f}")
    assert cosine >= limit
    assert moved >= 0.9 * wanted
