"""One large step changes every parameter that should learn, and no other.

What should learn in a step is what the plain model's own backward reaches; what it never reaches is
written down here with the reason, so that a gradient lost on the way to the policy cannot hide.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from mmrl.backend.local import LocalBackend
from mmrl.config import OptimizerConfig
from mmrl.model_config import LoraConfig, ModelConfig
from mmrl.policy.policy import Policy, load_policy
from mmrl.policy.shared_prefix import SharedRow
from tests.families.cases import Case, ask, cases, make, plain, policy, processed, responses, shared
from tests.families.tiny import TINY, build

every_family = pytest.mark.parametrize("name", TINY)

UNUSED: dict[str, dict[str, str]] = {
    "llava_onevision": {
        r"model\.vision_tower\..*post_layernorm\.(weight|bias)": (
            "features are taken from the last layer, in front of this norm"
        ),
    },
    "qwen2_5_omni": {
        r"(model\.)?audio_tower\.audio_bos_eos_token\.weight": "no forward of the library uses it",
    },
}
"""Parameters that no forward of the model's own reaches, by a pattern of their whole names."""

LENGTHS = (5, 2, 9)


def asked_kinds(name: str) -> dict[str, Case]:
    """Text alone, and one medium of each kind."""
    return {label: c for label, c in cases(TINY[name].kinds).items() if len(c.media) < 2}


def step(made: Policy, asked: Sequence[Case]) -> set[str]:
    """Names of the parameters whose bits one large step changes."""
    before = {n: p.detach().clone() for n, p in made.model.named_parameters()}
    backend = LocalBackend(made.model, OptimizerConfig(learning_rate=1.0), total_updates=1)
    backend.backward(loss(shared(made, rows(made, asked))))
    backend.step()
    return {n for n, p in made.model.named_parameters() if not torch.equal(p, before[n])}


def rows(made: Policy, asked: Sequence[Case]) -> list[SharedRow]:
    return [SharedRow(ask(made, case), responses(i, LENGTHS)) for i, case in enumerate(asked)]


def loss(logprobs: Tensor) -> Tensor:
    return (logprobs * torch.randn(len(logprobs), generator=torch.Generator().manual_seed(0))).sum()


def reached(made: Policy, model: nn.Module, asked: Sequence[Case]) -> tuple[set[str], set[str]]:
    """Parameters that the plain model's own backward reaches: surely, and at all.

    A key's bias has no gradient but rounding, which may be nothing on either path.
    """
    model.zero_grad()
    found = [
        plain(model, processed(made, case), row.prompt, row.responses, made.banned)
        for case, row in zip(asked, rows(made, asked), strict=True)
    ]
    loss(torch.cat(found)).backward()
    sizes = {n: float(p.grad.norm()) for n, p in model.named_parameters() if p.grad is not None}
    floor = 1e-7 * max(sizes.values())
    return {n for n, s in sizes.items() if s > floor}, {n for n, s in sizes.items() if s}


def unused(name: str, names: Sequence[str]) -> set[str]:
    return {n for n in names if any(re.fullmatch(p, n) for p in UNUSED.get(name, {}))}


@every_family
def test_a_step_reaches_what_the_plain_models_does(name: str) -> None:
    learnt, known = set(), set()
    for label, case in asked_kinds(name).items():
        made, (reference, _) = policy(name), build(name)
        changed = step(made, [case])
        surely, at_all = reached(made, reference, [case])
        assert surely <= changed, (label, sorted(surely - changed))
        # The rounding of a gradient that is nothing else may be more than nothing here.
        extra = {n for n in changed - at_all if not n.endswith("bias")}
        assert not extra, (label, sorted(extra))
        assert any(n.startswith(made.family.declaration.towers) for n in changed) == bool(
            case.media
        )
        learnt |= changed
        # The library itself freezes Whisper's sinusoids.
        known |= {n for n, p in reference.named_parameters() if p.requires_grad}
        assert not unused(name, sorted(at_all))
    assert known - learnt == unused(name, sorted(known))


def test_every_written_exception_is_a_parameter() -> None:
    for name, patterns in UNUSED.items():
        names = [n for n, _ in build(name)[0].named_parameters()]
        assert all(any(re.fullmatch(p, n) for n in names) for p in patterns), name


@every_family
def test_frozen_towers_stay_and_all_else_learns(name: str) -> None:
    made = policy(name)
    towers = {id(p) for p in made.family.tower_parameters()}
    for parameter in made.family.tower_parameters():
        parameter.requires_grad_(False)
    names = {n: id(p) in towers for n, p in made.model.named_parameters()}
    changed = step(made, list(asked_kinds(name).values()))
    wanted = {n for n, frozen in names.items() if not frozen}
    assert changed == wanted - unused(name, sorted(wanted))


@every_family
@pytest.mark.parametrize("tower", ["frozen", "trained"])
def test_adapters_learn_and_nothing_else(
    name: str, tower: Literal["frozen", "trained"], tmp_path: Path
) -> None:
    pytest.importorskip("peft")
    policy(name).save(tmp_path)
    config = ModelConfig(path=str(tmp_path), lora=LoraConfig(rank=2, tower=tower))
    made = load_policy(config, torch.device("cpu"))
    adapters = [(n, p) for n, p in made.model.named_parameters() if "lora_" in n]
    with torch.no_grad():
        for i, (_, parameter) in enumerate(adapters):
            generator = torch.Generator().manual_seed(i)
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    changed = step(made, [Case((make(k, i), "What?")) for i, k in enumerate(TINY[name].kinds)])
    assert changed == {n for n, _ in adapters}
