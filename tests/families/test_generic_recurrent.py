"""Types without a family whose text model remembers: rows share their prompt's state, exactly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from mmrl.engines import plain_generate
from mmrl.engines.engine import Sampling
from mmrl.engines.hf import HFEngine
from mmrl.policy.policy import Policy
from mmrl.policy.recurrent import Memory
from mmrl.policy.shared_prefix import SharedRow
from tests.families import other_types
from tests.families.cases import relative, shared
from tests.families.other_recipes import LLAVA, Settings
from tests.families.test_generic_sharing import ANSWERS, CASES, policy, reference, rows_of, slopes
from tests.policy.test_recurrent import detached, forgotten

MAMBA: Settings = {
    "mamba_d_ssm": 256,
    "mamba_d_state": 16,
    "mamba_n_heads": 16,
    "mamba_d_head": 16,
    "mamba_n_groups": 2,
    "mamba_chunk_size": 32,
}
TEXT: dict[str, Settings] = {
    "falcon_h1": MAMBA,
    "bamba": {**MAMBA, "attn_layer_indices": [1]},
    "granitemoehybrid": {
        **MAMBA,
        "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    },
    "qwen3_next": {
        "layer_types": ["linear_attention", "full_attention", "linear_attention"],
        "shared_expert_intermediate_size": 48,
    },
}
"""Text models behind a picture's tower, beside the types that come with one."""
OWN = ("nemotron_h_omni", "lfm3_vl")
every_type = pytest.mark.parametrize("name", [*OWN, *TEXT])


@pytest.fixture(autouse=True)
def recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    for language, text in TEXT.items():
        classes = {**LLAVA.classes, "model": "LlavaForConditionalGeneration", "config": "llava"}
        recipe = replace(LLAVA, language=language, text=text, classes=classes)
        monkeypatch.setitem(other_types.RECIPES, language, recipe)


def learned(made: Policy) -> tuple[Tensor, Tensor]:
    """Log-probs of shared rows, and the gradient of a weighted sum of them."""
    found = shared(made, rows_of(made))
    weights = torch.randn(len(found), generator=torch.Generator().manual_seed(0))
    made.model.zero_grad()
    (found * weights).sum().backward()
    return found.detach(), slopes(made.model)


@every_type
def test_shared_rows_equal_the_models_own_forward(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = policy(name)
    assert made.family.declaration.shared_prefix, made.family.declaration.notes
    assert "audio" not in made.family.takes, "no tower of these tiny models hears"
    own, processor = other_types.make(name)
    found, gradient = learned(made)
    wanted = torch.cat(
        [
            reference(own, processor, case, answers, made.banned)
            for case, answers in zip(CASES, ANSWERS, strict=True)
        ]
    )
    weights = torch.randn(len(wanted), generator=torch.Generator().manual_seed(0))
    (wanted * weights).sum().backward()
    assert relative(found, wanted) < 1e-6
    assert relative(gradient, slopes(own)) < 1e-5
    joined = Memory.joined
    controls: list[tuple[Callable[[Memory], Memory], bool]] = [(detached, False), (forgotten, True)]
    for broken, in_logprobs in controls:
        with monkeypatch.context() as patch:
            patch.setattr(Memory, "joined", staticmethod(lambda m, b=broken: b(joined(m))))
            other, slope = learned(made)
        assert (relative(other, wanted) > 1e-4) == in_logprobs
        assert relative(slope, slopes(own)) > 1e-3


@every_type
@torch.no_grad()
def test_the_engine_decodes_what_the_library_does(name: str) -> None:
    made = policy(name)
    own_attention = other_types.make(name)[0].config.get_text_config()._attn_implementation
    prompts = [row.prompt for row in rows_of(made)]
    greedy = Sampling(max_new_tokens=6, temperature=0.0)
    ours = HFEngine(made).generate(prompts, [1, 1], greedy, 0)
    alone: Any = replace(made, family=made.family.declared(shared_prefix=False))
    with made.family.attending(own_attention):
        theirs = plain_generate.generate(alone, prompts, [1, 1], greedy, 0)
    assert [a[0].ids.tolist() for a in ours] == [b[0][0].tolist() for b in theirs]
    drawn = HFEngine(made).generate(prompts, [2, 2], Sampling(max_new_tokens=6), 0)
    rows = [
        SharedRow(p, tuple(r.ids for r in group)) for p, group in zip(prompts, drawn, strict=True)
    ]
    sampled = torch.cat([torch.from_numpy(r.logprobs) for group in drawn for r in group])
    assert relative(shared(made, rows).double(), sampled) < 1e-6
