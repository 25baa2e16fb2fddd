"""Every family trains and samples where its model is, whatever is made on the CPU on the way."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmrl.engines.engine import Sampling
from mmrl.engines.hf import HFEngine
from mmrl.policy.shared_prefix import SharedRow
from tests.device import DEVICE, Placed, emulated, place
from tests.families.cases import LARGE_SCORES, ask, cases, policy, responses, shared
from tests.families.tiny import TINY

every_family = pytest.mark.parametrize("name", TINY)


@every_family
def test_training_and_sampling_on_a_device_are_those_of_the_cpu(name: str) -> None:
    own, other = policy(name), policy(name)
    for made in (own, other):  # a device would get kernels of its own
        made.model.set_experts_implementation("eager")
    prompts = [ask(own, case) for case in cases(TINY[name].kinds).values()]
    rows = [SharedRow(p, responses(i, (5, 2, 9)[: 1 + i % 3])) for i, p in enumerate(prompts)]
    wanted = shared(own, rows)
    wanted.sum().backward()
    sampling = Sampling(6, temperature=1.2, top_p=0.9, top_k=20, greedy_too=True)
    answers = HFEngine(own, 8).generate(prompts, [3] * len(prompts), sampling, seed=1)

    place(other.model)
    with emulated():
        assert other.device == DEVICE
        found = shared(other, rows)
        assert isinstance(found, Placed)
        found.sum().backward()
        engine, counts = HFEngine(other, 8), [3] * len(prompts)
        # Inference mode does not know tensors that stand for others.
        with torch.no_grad():
            sampled = HFEngine.generate.__wrapped__(engine, prompts, counts, sampling, 1)  # type: ignore[attr-defined]
    # A device has attention kernels of its own: the same numbers but for rounding.
    assert torch.allclose(found.inner, wanted, rtol=0, atol=2e-5)
    learnt = [p.grad for p in own.model.parameters() if p.grad is not None]
    whole = torch.stack([grad.norm() for grad in learnt]).norm()
    usual = max(2e-5, LARGE_SCORES.get(own.model.config.model_type, 0.0))
    for (label, a), b in zip(own.model.named_parameters(), other.model.parameters(), strict=True):
        if a.grad is not None:  # a key's bias has a gradient of nothing but rounding
            away = (b.grad.inner - a.grad).norm()
            assert away < usual * a.grad.norm() + 1e-6 * whole, label
    for group, others in zip(answers, sampled, strict=True):
        for a, b in zip(group, others, strict=True):
            assert a.ids.tolist() == b.ids.tolist()
            assert np.allclose(a.logprobs, b.logprobs, rtol=0, atol=usual)


def test_the_device_is_told_from_the_cpu() -> None:
    with emulated():
        here, there = torch.ones(3), torch.ones(3, device=DEVICE)
        assert there.device == here.to(DEVICE).device == DEVICE
        assert torch.equal(there.cpu(), here)
        for mixed in (lambda: here + there, lambda: there.index_select(0, torch.tensor([0]))):
            with pytest.raises(RuntimeError, match="same device"):
                mixed()
        with pytest.raises(TypeError):
            there.numpy()
        assert float((there * 2 + torch.tensor(1.0)).sum()) == 9.0
        assert there[torch.tensor([0, 2])].tolist() == [1.0, 1.0]
        with pytest.raises(RuntimeError, match="same device"):
            here[torch.tensor([0], device=DEVICE)]
