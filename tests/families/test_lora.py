"""Adapters on every family: exact rows with them on and off, PEFT's own format, merging."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from mmrl.engines.engine import Sampling
from mmrl.engines.hf import HFEngine
from mmrl.errors import UserError
from mmrl.model_config import LoraConfig, ModelConfig
from mmrl.policy.buckets import named
from mmrl.policy.checkpoint_names import (
    checkpoint_adapter,
    checkpoint_weights,
)
from mmrl.policy.policy import Policy, load_policy
from mmrl.policy.shared_prefix import SharedRow
from tests.families.cases import (
    all_gradients,
    ask,
    cases,
    lifted,
    plain,
    policy,
    processed,
    relative,
    responses,
    retyped,
    shared,
)
from tests.families.tiny import TINY, build

peft = pytest.importorskip("peft")

TOLERANCE = 1e-5  # relative, float32

every_family = pytest.mark.parametrize("name", TINY)


def base(name: str, folder: Path) -> Path:
    """The tiny model of a family on disk."""
    policy(name).save(folder / "base")
    return folder / "base"


def adapted(path: Path, tower: Literal["frozen", "trained"] = "frozen", **options: Any) -> Policy:
    """A policy with adapters whose second half is not zero, as after some training."""
    config = LoraConfig(rank=2, alpha=6, tower=tower, **options)
    made = load_policy(ModelConfig(path=str(path), lora=config), torch.device("cpu"), seed=3)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in adapters(made).values():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return made


def adapters(made: Policy) -> dict[str, torch.nn.Parameter]:
    return {n: p for n, p in made.model.named_parameters() if "lora_" in n}


def rows(made: Policy, name: str) -> list[SharedRow]:
    asked = cases(TINY[name].kinds).values()
    return [SharedRow(ask(made, case), responses(i, (5, 2, 7))) for i, case in enumerate(asked)]


def reference(model: Any, made: Policy, name: str, asked: Sequence[SharedRow]) -> Tensor:
    """Every response with its own copy of prompt and media, by the library's own forward."""
    return copies(model, made, asked, inputs_of(made, name))


def inputs_of(made: Policy, name: str) -> list[dict[str, Any]]:
    return [processed(made, case) for case in cases(TINY[name].kinds).values()]


def copies(
    model: Any, made: Policy, asked: Sequence[SharedRow], inputs: Sequence[dict[str, Any]]
) -> Tensor:
    return torch.cat(
        [
            plain(model, given, row.prompt, row.responses, made.banned)
            for given, row in zip(inputs, asked, strict=True)
        ]
    )


@every_family
@torch.no_grad()
def test_shared_rows_are_exact_with_adapters_on_and_off(name: str, tmp_path: Path) -> None:
    made, bare = adapted(base(name, tmp_path)), policy(name)
    made.save(tmp_path / "adapter")
    asked, plain_model = rows(made, name), build(name)[0]
    without = reference(plain_model, made, name, asked)
    on, off = shared(made, asked), shared(made.frozen_copy(), asked)
    assert relative(off, without) < TOLERANCE
    assert torch.equal(off, shared(bare, asked))
    assert torch.equal(shared(made, asked), on), "asking the reference leaves the adapters on"

    peft_model = peft.PeftModel.from_pretrained(plain_model, str(tmp_path / "adapter"))
    with_adapters = reference(peft_model.base_model.model, made, name, asked)
    assert relative(on, with_adapters) < TOLERANCE
    assert relative(on, without) > 1e-2


@pytest.mark.parametrize("name", ["qwen3_5", "qwen3_5_moe", "lfm2_vl", "nemotron_h_omni"])
def test_adapters_of_recurrent_layers_learn_what_pefts_do(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradients through the state that a prompt ended with, beside a frozen tower, in float64."""
    made = adapted(base(name, tmp_path))
    made.save(tmp_path / "adapter")
    asked, inputs = rows(made, name), inputs_of(made, name)
    theirs = peft.PeftModel.from_pretrained(
        build(name)[0], str(tmp_path / "adapter"), is_trainable=True
    ).base_model.model
    for model in (made.model, theirs):
        retyped(model, torch.float64).set_experts_implementation("eager")
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)  # in chunks made again, too
    with lifted(torch.float64):
        found, wanted = shared(made, asked), copies(theirs, made, asked, inputs)
    weights = torch.randn(len(wanted), generator=torch.Generator().manual_seed(0))
    for logprobs in (found, wanted):
        (logprobs * weights).sum().backward()
    assert relative(found, wanted) < 1e-12
    known = {n for n, p in theirs.named_parameters() if p.grad is not None}
    assert known == set(adapters(made))
    assert relative(*(all_gradients(m, theirs) for m in (made.model, theirs))) < 1e-11


@every_family
def test_only_adapters_learn_and_all_of_them_do(name: str, tmp_path: Path) -> None:
    path = base(name, tmp_path)
    for tower in ("frozen", "trained"):
        made = adapted(path, tower)
        shared(made, rows(made, name)).sum().backward()
        named = dict(made.model.named_parameters())
        assert {n for n, p in named.items() if p.requires_grad} == set(adapters(made))
        prefixes = made.family.declaration.towers
        seen = {n: p for n, p in adapters(made).items() if n.startswith(prefixes)}
        assert bool(seen) == (tower == "trained")
        language = {n: p for n, p in adapters(made).items() if n not in seen}
        assert all(p.grad is not None and p.grad.any() for p in language.values())
        assert any(p.grad is not None and p.grad.any() for p in seen.values()) == bool(seen)
        layers = made.model.config.get_text_config().num_hidden_layers
        assert len({found[1] for n in language if (found := re.search(r"layers\.(\d+)", n))}) == (
            layers
        )


@every_family
@torch.no_grad()
def test_merged_weights_equal_the_adapters(name: str, tmp_path: Path) -> None:
    path = base(name, tmp_path)
    made = adapted(path, "trained")
    made.save(tmp_path / "adapter")
    merged = load_policy(ModelConfig(path=str(tmp_path / "adapter")), torch.device("cpu"))
    asked = rows(made, name)
    wanted = shared(made, asked)
    assert relative(shared(merged, asked), wanted) < TOLERANCE
    assert relative(shared(made.frozen_copy(), asked), wanted) > 1e-2

    by_name, own = dict(named(made.weights())), merged.model.state_dict()
    assert by_name.keys() == own.keys()
    for key, value in own.items():
        torch.testing.assert_close(by_name[key], value, rtol=TOLERANCE, atol=1e-6)

    merged.save(tmp_path / "merged")
    again = load_policy(ModelConfig(path=str(tmp_path / "merged")), torch.device("cpu"))
    assert torch.equal(shared(again, asked), shared(merged, asked))


@every_family
@torch.no_grad()
def test_the_adapters_tensors_stand_on_the_checkpoints_names(name: str, tmp_path: Path) -> None:
    """Base plus plain product is the merged weight, whatever alpha and rank are."""
    made = adapted(base(name, tmp_path), "trained")
    if any(".experts." in name for name in adapters(made)):
        pytest.skip("fused experts: engines get them merged")
    tensors = dict(named(checkpoint_adapter(made.model, made.adapter_weights())))
    beneath = dict(named(checkpoint_weights(made.model, made.base_weights())))
    merged = dict(named(checkpoint_weights(made.model, made.weights())))
    assert len(tensors) == len(adapters(made))
    changed = {key for key in merged if not torch.equal(merged[key], beneath[key])}
    assert {key.replace("lora_A.weight", "weight") for key in tensors if "lora_A" in key} == changed
    for key in changed:
        first, second = (tensors[key.replace("weight", f"lora_{x}.weight")] for x in "AB")
        torch.testing.assert_close(beneath[key] + second @ first, merged[key])


@every_family
def test_rollout_of_adapters_is_what_is_trained(name: str, tmp_path: Path) -> None:
    made = adapted(base(name, tmp_path))
    prompts = [ask(made, case) for case in cases(TINY[name].kinds).values()]
    groups = HFEngine(made).generate(prompts, [2] * len(prompts), Sampling(6), seed=1)
    taken = [
        SharedRow(p, tuple(r.ids for r in group)) for p, group in zip(prompts, groups, strict=True)
    ]
    sampled = [torch.from_numpy(r.logprobs).float() for group in groups for r in group]
    with torch.no_grad():
        assert relative(shared(made, taken), torch.cat(sampled)) < TOLERANCE


def test_fresh_adapters_change_nothing_and_come_from_the_seed(tmp_path: Path) -> None:
    path = base("qwen2_5_vl", tmp_path)

    def fresh(seed: int) -> Policy:
        config = ModelConfig(path=str(path), lora=LoraConfig(rank=2))
        return load_policy(config, torch.device("cpu"), seed)

    one, same, other = fresh(0), fresh(0), fresh(1)
    asked = rows(one, "qwen2_5_vl")
    with torch.no_grad():
        assert torch.equal(shared(one, asked), shared(policy("qwen2_5_vl"), asked))
    values = [torch.cat([p.flatten() for p in adapters(p).values()]) for p in (one, same, other)]
    assert torch.equal(values[0], values[1])
    assert not torch.equal(values[0], values[2])


def test_chosen_targets_only(tmp_path: Path) -> None:
    made = adapted(base("gemma3", tmp_path), targets=("q_proj", "v_proj"))
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in adapters(made)} == {
        "q_proj",
        "v_proj",
    }
    assert not any(n.startswith(made.family.declaration.towers) for n in adapters(made))


ELSEWHERE = ("gemma3", "qwen2_5_vl")


@pytest.mark.parametrize("name", ELSEWHERE)
@pytest.mark.parametrize(
    "targets",
    ["all-linear", "ALL-LINEAR", r".*layers\.0\..*\.(q|up)_proj", ["self_attn.q_proj", "up_proj"],
     ["language_model.layers.1.mlp.down_proj"]],
    ids=str,
)  # fmt: skip
def test_targets_are_named_as_in_peft(name: str, targets: Any, tmp_path: Path) -> None:
    """What PEFT puts adapters on, asked of PEFT; names that towers share are language layers'."""
    made = adapted(base(name, tmp_path), targets=targets)
    plain_model = build(name)[0]
    peft.get_peft_model(plain_model, peft.LoraConfig(r=2, target_modules=targets))
    theirs = {n.split(".lora_")[0] for n, _ in plain_model.named_parameters() if "lora_" in n}
    ours = {n.split(".lora_")[0] for n in adapters(made)}
    towers = made.family.declaration.towers
    if isinstance(targets, list):
        theirs = {n for n in theirs if not n.startswith(towers)}
    assert ours and ours == theirs
    assert any(n.startswith(towers) for n in ours) >= (str(targets).lower() == "all-linear")
    assert not any(n.endswith("lm_head") for n in ours)
    asked = rows(made, name)
    shared(made, asked).sum().backward()
    assert all(p.requires_grad for p in adapters(made).values())
    assert sum(p.grad is not None and bool(p.grad.any()) for p in adapters(made).values()) > 1


def test_a_name_that_only_a_tower_has_is_the_towers(tmp_path: Path) -> None:
    made = adapted(base("qwen2_5_vl", tmp_path), targets=("q_proj", "attn.qkv"))
    owners = {n.split(".lora_")[0].rpartition(".")[2] for n in adapters(made)}
    assert owners == {"q_proj", "qkv"}
    single = adapted(base("qwen2_5_vl", tmp_path / "2"), targets="q_proj")
    assert set(adapters(single)) == {n for n in adapters(made) if "q_proj" in n}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"targets": ("qproj",)}, "no linear 'qproj'.*q_proj"),
        ({"targets": ("oj",)}, "no linear 'oj'"),
        ({"targets": "q_proj,v_proj"}, r"\[q_proj, v_proj\]"),
        ({"targets": ".*nothing"}, "no linear"),
        ({"quantize": "nf4"}, r"pip install 'mmrl\[qlora\]'"),
    ],
    ids=str,
)
def test_mistakes_say_what_to_do(
    options: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "bitsandbytes" else found(name)
    )
    with pytest.raises(UserError, match=said):
        adapted(base("qwen2_5_vl", tmp_path), **options)


def test_an_adapter_takes_no_second_one(tmp_path: Path) -> None:
    made = adapted(base("qwen2_5_vl", tmp_path))
    made.save(tmp_path / "adapter")
    with pytest.raises(UserError, match="mmrl export"):
        adapted(tmp_path / "adapter")
    (tmp_path / "base").rename(tmp_path / "moved")
    with pytest.raises(UserError, match="base_model_name_or_path"):
        load_policy(ModelConfig(path=str(tmp_path / "adapter")))


@pytest.mark.parametrize("quantize", ["nf4", "int8"])
def test_a_quantised_base_learns_through_adapters(
    quantize: Literal["nf4", "int8"], tmp_path: Path
) -> None:
    pytest.importorskip("bitsandbytes")
    made = adapted(base("qwen2_5_vl", tmp_path), quantize=quantize)
    asked = rows(made, "qwen2_5_vl")
    found = shared(made, asked)
    found.sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in adapters(made).values())
    weights, exact = dict(named(made.weights())), adapted(tmp_path / "base")
    own = dict(named(exact.weights()))
    assert weights.keys() == own.keys()
    quantised = [k for k in own if "language_model.layers" in k and own[k].ndim == 2]
    assert all(0 < relative(weights[k], own[k]) < 0.2 for k in quantised)
    assert all(torch.equal(weights[k], own[k]) for k in own.keys() - quantised)
    plain_model = policy("qwen2_5_vl")
    plain_model.model.load_state_dict(weights)
    with torch.no_grad():
        assert relative(shared(plain_model, asked), found.detach()) < 0.05
