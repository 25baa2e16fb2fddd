"""vLLM with the base and the newest adapter says what it says with merged weights.

What decides which of the two it gets is in tests/rollout/test_vllm_adapter.py.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mmrl.engines.engine import Sampling
from mmrl.errors import UserError
from mmrl.model_config import LoraConfig
from mmrl.policy.buckets import named
from mmrl.rollout_config import RolloutConfig
from mmrl.types import Response
from tests.engines.models import MODELS, THOROUGH, TOLERANCE
from tests.engines.pair import GREEDY, LENGTH, SAMPLED, TIED, Pair, teacher_forced

pytest.importorskip("vllm", reason="vLLM is not installed: pip install 'mmrl[vllm]'")
pytest.importorskip("peft", reason="PEFT is not installed: pip install 'mmrl[lora]'")
from mmrl.engines.vllm.client.remote import VLLMServerEngine
from mmrl.engines.vllm.in_process import VLLMEngine
from mmrl.engines.vllm.server.endpoint import Endpoint

pytestmark = [pytest.mark.engines, pytest.mark.timeout(900)]

LORA = LoraConfig(rank=3, alpha=6, dropout=0.5)  # acts in updates alone
CHANGES = 3
MERGED = ("qwen2_5_omni", "qwen3_omni, dense", "llava_onevision")
"""What vLLM's classes take no adapters for."""


def make(
    folder: Path,
    adapter_sync: str,
    engine: str = "vllm",
    name: str = "qwen2_5_vl",
    lora: LoraConfig = LORA,
) -> Pair:
    rollout = RolloutConfig.model_validate(
        {
            "engine": engine,
            "max_new_tokens": LENGTH,
            "max_sequences": 64,
            "adapter_sync": adapter_sync,
        }
    )
    build = VLLMEngine if engine == "vllm" else VLLMServerEngine
    return Pair(name, folder, build, rollout, lora)


def adapters(pair: Pair) -> list[torch.nn.Parameter]:
    return [p for name, p in pair.policy.model.named_parameters() if "lora_" in name]


def redraw(pair: Pair, seed: int) -> None:
    """Other adapters, both halves of them."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapters(pair):
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))


def answers(pair: Pair, sampling: Sampling = GREEDY) -> list[Response]:
    """One response to every prompt, in order."""
    prompts = list(pair.prompts.values())
    return [r for (r,) in pair.vllm.generate(prompts, [1] * len(prompts), sampling, 0)]


def gap(a: list[Response], b: list[Response]) -> float:
    """The largest of log-probs; infinite where tokens differ."""
    return max(
        np.abs(x.logprobs - y.logprobs).max() if x.ids.tolist() == y.ids.tolist() else np.inf
        for x, y in zip(a, b, strict=True)
    )


@pytest.fixture(scope="module", params=["qwen2_5_vl", f"qwen2_5_vl{TIED}", "qwen2_vl", "qwen3_vl"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def merged(name: str, tmp_path_factory: pytest.TempPathFactory) -> list[list[Response]]:
    """Greedy answers by merged weights: of fresh adapters and of those drawn later."""
    pair = make(tmp_path_factory.mktemp("merged"), "merged", name=name)
    found = [answers(pair)]
    for seed in range(CHANGES):
        redraw(pair, seed)
        pair.sync()
        found.append(answers(pair))
    pair.vllm.close()
    assert min(gap(a, b) for a, b in itertools.pairwise(found)) > 1e-2
    return found


@pytest.fixture(scope="module", params=["vllm", "vllm_server"])
def pair(
    name: str,
    merged: list[list[Response]],  # before it: one engine of vLLM's in a process at a time
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Pair]:
    made = make(tmp_path_factory.mktemp("adapter"), "adapter", request.param, name)
    yield made
    made.vllm.close()


def test_adapter_sync_equals_merged_sync(pair: Pair, merged: list[list[Response]]) -> None:
    """Text, pictures and clips; the caches hold the same prompts by the adapters before."""
    prompts = list(pair.prompts.values())
    assert gap(answers(pair), merged[0]) < TOLERANCE
    for seed, wanted in enumerate(merged[1:]):
        redraw(pair, seed)
        assert gap(answers(pair), merged[seed]) < TOLERANCE  # nothing moves without a sync
        pair.sync()
        assert gap(answers(pair), wanted) < TOLERANCE
        assert pair.compare(prompts) < TOLERANCE


def test_sampled_logprobs_are_the_trainers(pair: Pair) -> None:
    redraw(pair, 7)
    pair.sync()
    prompts = list(pair.prompts.values())
    groups = pair.vllm.generate(prompts, [3] * len(prompts), SAMPLED, 5)
    for prompt, group in zip(prompts, groups, strict=True):
        wanted = teacher_forced(pair.policy, prompt, group, SAMPLED.temperature)
        found = np.concatenate([r.logprobs for r in group])
        assert np.abs(found - wanted).max() < TOLERANCE


def test_a_sync_sends_the_adapter_and_nothing_else(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []
    if isinstance(pair.vllm, VLLMEngine):
        engine = pair.vllm._engine
        call = engine.collective_rpc

        def spy(method: str, args: tuple[Any, ...]) -> Any:
            assert method == "take_adapter"
            sent.extend(tensor.numel() for tensor in args[0].values())
            return call(method, args=args)

        monkeypatch.setattr(engine, "collective_rpc", spy)
    else:
        files = pair.vllm._files
        save = files._save

        def spy_on_files(tensors: dict[str, torch.Tensor], name: str) -> Path:
            sent.extend(tensor.numel() for tensor in tensors.values())
            return save(tensors, name)

        monkeypatch.setattr(files, "_save", spy_on_files)
    pair.sync()
    assert sum(sent) == sum(p.numel() for p in adapters(pair))
    assert len(sent) == len(adapters(pair))
    assert sum(sent) < sum(p.numel() for p in pair.policy.model.parameters()) / 5


def test_chosen_linears_and_a_class_without_adapters(tmp_path: Path) -> None:
    """Two of the three linears that vLLM packs into one; Qwen2-Audio gets merged weights."""
    some = LoraConfig(rank=9, alpha=3, targets=("q_proj", "v_proj", "down_proj"))
    pair = make(tmp_path / "some", "adapter", lora=some)
    redraw(pair, 1)
    pair.sync()
    assert pair.vllm.takes_adapter
    assert pair.compare(list(pair.prompts.values())) < TOLERANCE
    pair.vllm.close()

    with pytest.raises(UserError, match="no adapters for Qwen2AudioForConditionalGeneration"):
        make(tmp_path / "asked", "adapter", name="qwen2_audio_30s")
    pair = make(tmp_path / "auto", "auto", name="qwen2_audio_30s")
    redraw(pair, 1)
    pair.sync()
    assert not pair.vllm.takes_adapter
    assert pair.compare(list(pair.prompts.values())) < TOLERANCE
    pair.vllm.close()


def test_a_module_that_vllm_has_no_layer_for_is_named(tmp_path: Path) -> None:
    """vLLM itself would pass over it."""
    pair = make(tmp_path, "adapter")
    _, tensor = next(named(pair.policy.adapter_weights()))
    lost = {f"model.language_model.layers.0.lost.lora_{half}.weight": tensor for half in "AB"}
    with pytest.raises(ValueError, match=r"layers\.0\.lost: set rollout\.adapter_sync=merged"):
        pair.vllm._engine.collective_rpc("take_adapter", args=(lost,))
    pair.vllm.close()


@pytest.mark.parametrize("name", [name for name in MODELS if name not in THOROUGH])
def test_every_family_is_answered_with_its_adapters(name: str, tmp_path: Path) -> None:
    """By themselves or merged, whichever vLLM's class for it takes."""
    pair = make(tmp_path, "auto", name=name)
    try:
        for seed in range(2):
            redraw(pair, seed)
            pair.sync()
            assert pair.compare(list(pair.prompts.values())) < TOLERANCE
        assert pair.vllm.takes_adapter is (name not in MERGED)
    finally:
        pair.vllm.close()


class Workers:
    """An engine whose workers take whatever they are pushed, or fail."""

    def __init__(self) -> None:
        self.took: list[Any] = []
        self.fails = False
        self.version = "default"
        self.vllm_config = SimpleNamespace(
            lora_config=SimpleNamespace(max_lora_rank=8),
            parallel_config=SimpleNamespace(world_size=1),
        )

    async def collective_rpc(self, method: str, args: tuple[Any]) -> None:
        if self.fails:
            raise RuntimeError("out of memory")
        self.took.append({k: v for k, v in args[0].items() if k != "host"})


def test_a_server_takes_the_base_once_and_again_when_it_is_not_sure() -> None:
    endpoint, workers = Endpoint(None), Workers()

    def take(**push: Any) -> Any:
        asyncio.run(endpoint._take(push, workers))
        return workers.took[-1]

    assert take(folder="b", base="r-1", adapter="a1")["folder"] == "b"
    assert take(folder="b", base="r-1", adapter="a2") == {
        "folder": None,
        "base": "r-1",
        "adapter": "a2",
    }
    assert take(folder="c", base="other-1", adapter=None)["folder"] == "c"  # another run's
    assert take(folder="b", base="r-1", adapter="a3")["folder"] == "b"
    workers.fails = True
    with pytest.raises(RuntimeError):
        take(folder="d", base="r-4", adapter="a4")
    workers.fails = False
    assert take(folder="b", base="r-1", adapter="a3")["folder"] == "b"

    assert take(host="h", weights=False, base="r-1")["weights"] is False
    with pytest.raises(ValueError, match="without the weights"):
        take(host="h", weights=False, base="r-5")
    assert take(host="h", weights=True, base="r-5")["weights"] is True
    assert take(host="h", weights=False, base="r-5")["weights"] is False
