"""Predicted memory against what the tiny model really holds, and refusals that name a setting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmrl import doctor
from mmrl.backend.local import LocalBackend
from mmrl.cli import main
from mmrl.config import LoraConfig, ModelConfig, OptimizerConfig, RunConfig
from mmrl.errors import UserError
from mmrl.policy.attention import active_layout
from mmrl.policy.encoder import Encoder
from mmrl.policy.policy import Policy, load_policy
from mmrl.policy.shared_prefix import SharedRow, lay_out
from mmrl.rollout.hf import Decoding, Prefill
from mmrl.types import Sample, Text
from tests.conftest import TINY

CONFIGS = Path(__file__).parent.parent / "configs"


def config(**sections: Any) -> RunConfig:
    values: dict[str, Any] = {
        "run": "unused",
        "model": {"path": TINY, "max_prompt_tokens": 64},
        "data": {"task": "unused", "path": "unused"},
        "algorithm": {"name": "grpo", "group_size": 4},
        "rollout": {"max_sequences": 8, "max_new_tokens": 16},
        "trainer": {"steps": 1, "tokens_per_micro_batch": 600},
    }
    for name, section in sections.items():
        values[name] = {**values[name], **section}
    return RunConfig.model_validate(values)


def planned(found: RunConfig, processes: int = 1) -> doctor.Plan:
    return doctor.plan(found, doctor.measure(found), processes)


def size(tensors: Any) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def one_update(policy: Policy, tokens: int) -> tuple[int, LocalBackend]:
    """Bytes that a pass over `tokens` keeps for its backward, and the backend after its step."""
    sample = Sample("s", "test", (Text("How many?"),), gold=None)
    prompt = Encoder(policy.family).prompt(sample)
    rng = np.random.default_rng(0)
    answers = tuple(rng.integers(100, 300, (tokens - len(prompt.ids)) // 8 + 1) for _ in range(8))
    row = SharedRow(prompt, answers)
    assert abs(row.num_tokens - tokens) < 10
    held: dict[int, int] = {}
    own = {p.untyped_storage().data_ptr() for p in policy.model.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            held[storage.data_ptr()] = storage.nbytes()
        kept.append(tensor)
        return tensor

    kept: list[torch.Tensor] = []
    layout = lay_out([row], policy.device)
    with active_layout(layout), policy.learning(0):
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            logprobs, _ = policy.logprobs(layout, [prompt], 1.0)
        backend = LocalBackend(policy.model, OptimizerConfig(), 1)
        backend.backward(logprobs.sum())
    backend.step()
    return sum(held.values()), backend


def test_what_stays_is_what_the_tiny_model_holds(policy: Policy) -> None:
    found = planned(config(algorithm={"kl_coefficient": 0.1}))
    weights = size(policy.model.parameters())
    assert found.weights == found.reference == weights
    _, backend = one_update(policy, 64)
    moments = [t for name, t in backend.state()[0].items() if not name.startswith("step.")]
    # Towers saw nothing and have no moments yet.
    towers = size(policy.family.tower_parameters())
    assert size(moments) == found.optimizer - 2 * towers
    assert found.gradients == weights


def test_adapters_are_counted_as_peft_makes_them() -> None:
    pytest.importorskip("peft")
    found = planned(config(model={"lora": {"rank": 4}}))
    made = load_policy(ModelConfig(path=TINY, lora=LoraConfig(rank=4)), torch.device("cpu"))
    trained = [p for p in made.model.parameters() if p.requires_grad]
    assert found.gradients == size(trained)
    assert found.optimizer == 2 * size(trained)
    assert found.weights == size(made.model.parameters())
    assert found.reference == 0


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("tokens", [300, 600])
def test_activations_are_near_those_measured(recompute: bool, tokens: int) -> None:
    made = load_policy(
        ModelConfig(path=TINY, gradient_checkpointing=recompute), torch.device("cpu")
    )
    wanted = config(
        model={"gradient_checkpointing": recompute}, trainer={"tokens_per_micro_batch": tokens}
    )
    found = planned(wanted).activations
    measured, _ = one_update(made, tokens)
    if recompute:
        # Hooks see what is kept between the layers, not the one layer that runs again.
        assert measured < found
    else:
        assert 0.7 < found / measured < 1.4


def test_the_cache_is_what_decoding_allocates(policy: Policy) -> None:
    wanted = config()
    sample = Sample("s", "test", (Text("How many?"),), gold=None)
    prompt = Encoder(policy.family).prompt(sample)
    rows = lay_out([SharedRow(prompt, ())] * 2, policy.device)
    prefill = Prefill(rows)
    with active_layout(prefill), torch.no_grad():
        policy.hidden_states(rows.ids, rows.positions, [prompt] * 2)
    lengths = np.array([len(prompt.ids)] * 2)
    decoding = Decoding(prefill, lengths, np.repeat([0, 1], 4), 16)
    held = [
        tensor
        for cache in (
            decoding._prompt_keys,
            decoding._prompt_values,
            decoding._own_keys,
            decoding._own_values,
        )
        for tensor in cache.values()
    ]
    longest = config(model={"max_prompt_tokens": len(prompt.ids)})
    assert planned(longest).cache == size(held)
    assert planned(wanted).cache > size(held)


def test_sharding_divides_what_its_stage_shards() -> None:
    def sharded(stage: int) -> doctor.Plan:
        trainer = {
            "backend": "deepspeed",
            "deepspeed": str(CONFIGS / "deepspeed" / f"zero{stage}.json"),
        }
        return planned(config(trainer=trainer, model={"dtype": "bfloat16"}), processes=4)

    whole = planned(config(model={"dtype": "bfloat16"}))
    parameters = whole.weights // 2
    assert [sharded(s).optimizer for s in (1, 2, 3)] == [parameters * 12 // 4] * 3
    assert [whole.gradients // sharded(s).gradients for s in (1, 2, 3)] == [1, 4, 4]
    assert [whole.weights // sharded(s).weights for s in (1, 2, 3)] == [1, 1, 4]


@pytest.mark.parametrize(
    ("sections", "named"),
    [
        ({"rollout": {"max_sequences": 100_000}}, "rollout.max_sequences"),
        ({"trainer": {"tokens_per_micro_batch": 10_000_000}}, "model.gradient_checkpointing"),
        (
            {
                "trainer": {"tokens_per_micro_batch": 100_000_000},
                "model": {"gradient_checkpointing": True},
            },
            "lower trainer.tokens_per_micro_batch",
        ),
        ({"trainer": {"tokens_per_micro_batch": 1}}, "model.lora"),
    ],
    ids=str,
)
def test_what_cannot_fit_names_the_setting(sections: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named):
        doctor.report(config(**sections), capacity_gib=0.01)


def test_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert f"torch {torch.__version__.split('+')[0]}" in printed
    quickstart = str(CONFIGS / "quickstart.yaml")
    assert main(["doctor", quickstart]) == 0
    assert "peak" in capsys.readouterr().out
    assert main(["doctor", quickstart, "--memory-gib", "0.001"]) == 2
    assert "do not fit" in capsys.readouterr().err
