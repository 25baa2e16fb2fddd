"""vLLM gets adapters alone where it can take them; what decides needs no vLLM."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mmrl.backend.world import World
from mmrl.config import RunConfig
from mmrl.engines.vllm import adapter
from mmrl.engines.vllm.adapter import adapter_arguments, room_for, takes_adapter
from mmrl.engines.vllm.client.push import WeightFiles
from mmrl.engines.vllm.client.pushed_parts import Parts
from mmrl.engines.vllm.in_process import engine_arguments
from mmrl.errors import UserError
from mmrl.model_config import LoraConfig, ModelConfig
from mmrl.policy.buckets import named
from mmrl.policy.policy import load_policy
from mmrl.policy.weights import weights_of
from mmrl.rollout_config import RolloutConfig
from mmrl.validation import validate
from tests.conftest import TINY


def settings(model_type: str = "qwen2_5_vl", **text: Any) -> Any:
    inner = SimpleNamespace(max_position_embeddings=4096, to_dict=lambda: text)
    return SimpleNamespace(
        model_type=model_type, architectures=["Known"], get_text_config=lambda: inner
    )


def model(dtype: str = "float32", **lora: Any) -> ModelConfig:
    return ModelConfig.model_validate({"path": TINY, "dtype": dtype, "lora": lora})


def asked(adapter_sync: str = "auto", **rollout: Any) -> RolloutConfig:
    return RolloutConfig.model_validate({"engine": "vllm", "adapter_sync": adapter_sync, **rollout})


@pytest.fixture(autouse=True)
def classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A vLLM that has adapters for one class."""

    def missing(of: Any) -> str | None:
        return None if of.architectures == ["Known"] else "vLLM has no adapters for Unknown"

    monkeypatch.setattr(adapter, "_class_objection", missing)


@pytest.mark.parametrize(
    ("rank", "room"), [(1, 1), (2, 8), (8, 8), (9, 16), (33, 64), (257, 320), (321, 512)]
)
def test_the_room_is_the_least_that_vllm_offers(rank: int, room: int) -> None:
    assert room_for(rank) == room


def test_vllm_is_started_for_one_adapter() -> None:
    made = adapter_arguments(settings(), model(rank=24), asked(), False)
    assert made == {
        "enable_lora": True,
        "max_lora_rank": 32,
        "max_loras": 1,
        "max_cpu_loras": 1,
        "lora_target_modules": None,
    }
    some = adapter_arguments(settings(), model(targets=["q_proj"]), asked("adapter"), False)
    assert some["lora_target_modules"] == ["q_proj"]
    ends = model(targets=["self_attn.q_proj", "mlp.up_proj"])
    ended = adapter_arguments(settings(), ends, asked("adapter"), False)
    assert ended["lora_target_modules"] == ["q_proj", "up_proj"]
    own = asked(vllm={"max_lora_rank": 64})
    assert engine_arguments(settings(), model(rank=24), own, False)["max_lora_rank"] == 64


MOE = settings("qwen3_vl_moe", num_experts=4)
UNKNOWN = settings()
UNKNOWN.architectures = ["Unknown"]


@pytest.mark.parametrize(
    ("of", "config", "on_gpu", "reason"),
    [
        (settings(), model(tower="trained"), False, "tower=trained"),
        (settings(), model(targets="all-linear"), False, "outside of language layers"),
        (settings(), model(targets=".*q_proj"), False, "outside of language layers"),
        (settings(), model(targets=["q_proj", "qkv"]), False, "outside of language layers"),
        (settings(), model(targets=["visual.blocks.0.q_proj"]), False, "outside of language"),
        (settings(), model(rank=513), False, "ranks up to 512, model.lora.rank is 513"),
        (MOE, model(), False, "fused experts"),
        (settings(), model(), True, "model.dtype=bfloat16"),
        (UNKNOWN, model(), False, "no adapters for Unknown"),
        (settings(), ModelConfig(path=TINY), False, r"no model\.lora"),
    ],
    ids=[
        "tower",
        "all-linear",
        "pattern",
        "tower by name",
        "tower by path",
        "rank",
        "experts",
        "float32 on a GPU",
        "class",
        "no adapter",
    ],
)
def test_where_vllm_cannot_it_gets_merged_weights(
    of: Any, config: ModelConfig, on_gpu: bool, reason: str
) -> None:
    assert adapter_arguments(of, config, asked(), on_gpu) == {}
    with pytest.raises(UserError, match=rf"rollout\.adapter_sync=adapter: .*{reason}") as said:
        adapter_arguments(of, config, asked("adapter"), on_gpu)
    assert "\n" not in str(said.value)
    if of is not UNKNOWN:  # which only those know who have vLLM
        assert not takes_adapter(of, config, asked(), on_gpu, 512)
        with pytest.raises(UserError, match=reason):
            takes_adapter(of, config, asked("adapter"), on_gpu, 512)


def test_what_is_near_a_limit_is_taken() -> None:
    for of, config, on_gpu in [
        (settings(), model(rank=512), False),
        (settings(), model("bfloat16"), True),
        (MOE, model(targets=["q_proj"]), False),
        (settings("qwen3_vl"), model(), False),
    ]:
        assert adapter_arguments(of, config, asked(), on_gpu)["enable_lora"]
        assert takes_adapter(of, config, asked(), on_gpu, 512)


def test_merged_is_merged() -> None:
    assert adapter_arguments(settings(), model(), asked("merged"), False) == {}
    assert not takes_adapter(settings(), model(), asked("merged"), False, 512)


@pytest.mark.parametrize(
    ("most", "reason"), [(0, "without enable_lora"), (8, r"max_lora_rank=8.*model\.lora\.rank=16")]
)
def test_an_engine_with_too_little_room_gets_merged_weights(most: int, reason: str) -> None:
    assert not takes_adapter(settings(), model(rank=16), asked(), False, most)
    with pytest.raises(UserError, match=reason):
        takes_adapter(settings(), model(rank=16), asked("adapter"), False, most)
    assert takes_adapter(settings(), model(rank=16), asked(), False, 16)


def test_engines_of_the_policys_own_model_take_no_adapters() -> None:
    values = {
        "run": "run",
        "model": {"path": TINY},
        "data": {"task": "digits", "path": "train.jsonl"},
        "trainer": {"steps": 1},
        "rollout": {"engine": "hf", "adapter_sync": "adapter"},
    }
    with pytest.raises(UserError, match="engine=hf takes no adapters: set adapter_sync to auto"):
        validate(RunConfig, values, "config")


def test_servers_that_come_later_find_the_base_and_the_newest_adapter(tmp_path: Path) -> None:
    files = WeightFiles(tmp_path)
    base, adapter = {"w": torch.zeros(1000)}, {"w.lora_A.weight": torch.ones(2, 4)}
    files.write(iter([base]), "r-1")
    first = files.write_adapter(iter([adapter]), "r-1")
    files.drop_old()
    second = files.write_adapter(iter([adapter]), "r-2")
    files.drop_old()
    assert first.told(0)["base"] == second.told(0)["base"] == "r-1"
    assert first.told(0)["folder"] == second.told(0)["folder"]
    assert second.later == second.told(1)
    assert not Path(first.told(0)["adapter"]).exists()
    (base_file,), (adapter_file,) = (
        Path(second.told(0)[key]).iterdir() for key in ("folder", "adapter")
    )
    assert adapter_file.stat().st_size < 300 < 4000 < base_file.stat().st_size
    merged = files.write(iter([base]), "r-3")
    files.drop_old()
    assert merged.told(0)["base"] == "r-3"
    assert merged.told(0)["adapter"] is None
    assert not Path(second.told(0)["folder"]).exists()
    files.close()


def test_a_base_that_is_sharded_is_not_sent_empty() -> None:
    """A server that came back without it may ask while the trainer is in the middle of a step."""
    pytest.importorskip("peft")
    policy = load_policy(ModelConfig(path=TINY, lora=LoraConfig(rank=2)))
    kept = weights_of(policy, 0).copied(adapter_only=True)
    base, _ = Parts(policy, kept, World()).take("base", "adapter")
    assert len(dict(named(base))) > 50
    sharded = replace(policy, gather=lambda _, written=False: nullcontext())
    Parts(sharded, weights_of(sharded, 0), World()).take("base", "adapter")
    with pytest.raises(UserError, match=r"set rollout\.servers\.weights=file"):
        Parts(sharded, kept, World()).take("base", "adapter")
