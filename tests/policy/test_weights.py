"""Copies of the weights are those of their moment, all of them, and what is tied stays so."""

from __future__ import annotations

import pytest
import torch

from mmrl.model_config import LoraConfig, ModelConfig
from mmrl.policy.buckets import Buckets, named
from mmrl.policy.policy import Policy, load_policy
from mmrl.policy.weights import Weights, weights_of
from tests.conftest import TINY


def policy(lora: bool, dtype: str = "float32") -> Policy:
    """The shipped model, whose head is its embeddings; its adapters are not zero."""
    adapters = LoraConfig(rank=4, alpha=8) if lora else None
    made = load_policy(ModelConfig.model_validate({"path": TINY, "lora": adapters, "dtype": dtype}))
    move(made, seed=1)
    return made


def move(made: Policy, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in made.model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_copy_is_every_tensor_of_its_moment(lora: bool, dtype: str) -> None:
    if lora:
        pytest.importorskip("peft")
    made = policy(lora, dtype)
    for adapter_only in (False, True) if lora else (False,):
        read = made.adapter_weights if adapter_only else made.weights
        wanted = {name: value.clone() for name, value in named(read())}
        copied = weights_of(made, 3).copied(adapter_only=adapter_only)
        move(made, seed=2)
        assert copied.version == 3
        found = dict(named(copied.adapter() if adapter_only else copied.whole()))
        assert found.keys() == wanted.keys()
        assert [n for n, value in wanted.items() if not torch.equal(found[n], value)] == []
        changed = {name for name, value in named(read()) if not torch.equal(value, wanted[name])}
        assert len(changed) > 20


@pytest.mark.parametrize("lora", [False, True])
def test_what_is_tied_is_copied_once_and_nothing_else_is(lora: bool) -> None:
    if lora:
        pytest.importorskip("peft")
    found = dict(named(weights_of(policy(lora), 0).copied(adapter_only=False).whole()))
    names: dict[int, list[str]] = {}
    for name, value in found.items():
        names.setdefault(value.data_ptr(), []).append(name)
    assert sorted(len(group) for group in names.values()) == [1] * (len(names) - 1) + [2]
    assert sorted(
        n.rpartition(".")[0].rpartition(".")[2] for n in max(names.values(), key=len)
    ) == [
        "embed_tokens",
        "lm_head",
    ]


def test_tensors_that_live_one_after_the_other_at_one_address_are_not_tied() -> None:
    """Of sharded weights a bucket is whole at a time; here all lie where the first one lay."""
    place = torch.zeros(2, 3)

    def merged() -> Buckets:
        for i in range(3):
            place.fill_(i)
            yield {f"w{i}": place.view(2, 3)}

    copied = Weights(0, merged, merged, place.device).copied(adapter_only=False)
    found = {name: float(value[0, 0]) for name, value in named(copied.whole())}
    assert found == {"w0": 0, "w1": 1, "w2": 2}


def test_a_copy_has_what_it_was_made_for_and_nothing_else() -> None:
    copied = weights_of(policy(lora=False), 0).copied(adapter_only=False)
    with pytest.raises(AssertionError, match="does not take"):
        copied.adapter()
