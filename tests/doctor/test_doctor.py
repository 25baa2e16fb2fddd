"""Predicted memory against what the tiny model really holds, and refusals that name a setting."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmrl.backend.local import LocalBackend
from mmrl.cli import main
from mmrl.config import OptimizerConfig, RunConfig
from mmrl.data.samples import load_samples
from mmrl.doctor import memory, packages, shape
from mmrl.doctor.counts import Asked, Counts, count, positions
from mmrl.doctor.fullest import MicroBatch
from mmrl.doctor.memory import GIB, Plan, plan
from mmrl.doctor.report import advice, lines_of, plans, refuse
from mmrl.engines.decoding import Decoding
from mmrl.engines.prefill import Prefill
from mmrl.errors import UserError
from mmrl.model_config import LoraConfig, ModelConfig
from mmrl.policy.attention import active_layout
from mmrl.policy.encoder import Encoder
from mmrl.policy.features import MAX_KEPT_TOKENS
from mmrl.policy.packing import Weighted, chunks
from mmrl.policy.policy import Policy, load_policy
from mmrl.policy.shared_prefix import SharedRow, lay_out
from mmrl.scoring.tasks import fixture_path, load_task
from mmrl.types import EncodedMedium, Prompt, Response, Sample, Text, TrainSample
from tests.conftest import TINY
from tests.families import cases

CONFIGS = Path(__file__).parents[2] / "configs"


def report(found: RunConfig, **given: Any) -> list[str]:
    """What the command says of a configuration."""
    made = plans(found, **given)
    for each in made:
        each.refuse()
    return lines_of(made)


def config(**sections: Any) -> RunConfig:
    values: dict[str, Any] = {
        "run": "unused",
        "model": {"path": TINY, "max_prompt_tokens": 64},
        "data": {"task": "unused", "path": "unused"},
        "algorithm": {"name": "grpo", "group_size": 4},
        "optimizer": {},
        "rollout": {"max_sequences": 8, "max_new_tokens": 16},
        "trainer": {"steps": 1, "tokens_per_micro_batch": 600},
    }
    for name, section in sections.items():
        values[name] = {**values[name], **section}
    return RunConfig.model_validate(values)


def prompts_of(*lengths: int) -> Counts:
    """Prompts of text alone."""
    return Counts(len(lengths), tuple(Asked(length, 0, (0.0,)) for length in lengths))


NO_MEDIA = prompts_of(1)


def asked(number: int, prompt_tokens: int, answers: int, answer: int) -> list[Weighted]:
    """A prompt of so many tokens with its answers, as the run packs them."""
    ids = np.full(prompt_tokens, number)
    sample = Sample(str(number), "test", (Text("?"),), gold=None)
    prompt = Prompt(sample, (), ids, np.arange(prompt_tokens)[None], prompt_tokens, (), "unit")
    response = Response(np.zeros(answer, dtype=np.int64), np.zeros(answer), "", "stop")
    mask = np.ones(answer, dtype=bool)
    made = TrainSample(prompt, response, np.ones(answer), mask, group=number)
    return [Weighted(made, np.ones(answer))] * answers


def planned(found: RunConfig, processes: int = 1, counts: Counts = NO_MEDIA) -> Plan:
    return plan(found, shape.measure(found), counts, processes)


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
    assert size(moments) == found.optimizer
    assert found.gradients == weights


@pytest.mark.parametrize("moments", ["float32", "bfloat16"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("lora", [None, LoraConfig(rank=4)])
def test_what_an_update_holds_is_counted_in_every_precision(
    dtype: Any, moments: Any, lora: LoraConfig | None
) -> None:
    if lora is not None:
        pytest.importorskip("peft")
    settings = {"dtype": dtype, "lora": lora}
    found = planned(config(model=settings, optimizer={"moments": moments}))
    made = load_policy(ModelConfig(path=TINY, **settings), torch.device("cpu"))
    assert found.weights == size(made.model.parameters())
    backend = LocalBackend(made.model, OptimizerConfig(moments=moments), 1)
    trained = {n: p for n, p in made.model.named_parameters() if p.requires_grad}
    backend.backward(sum(p.float().sum() for p in trained.values()))
    own = [p.grad for p in trained.values() if p.grad is not None]
    assert found.gradients == size([*own, *backend._gradients.values()])
    backend.step()
    optimizer = backend._optimizer
    state = [t for s in optimizer.state.values() for key, t in s.items() if key != "step"]
    masters = [master._lower for master in optimizer.masters.values()]
    assert found.optimizer == size([*state, *masters])
    # Textbook masters would take 18 bytes a parameter here.
    whole = found.optimizer + found.gradients + size(trained.values())
    per_parameter = whole / sum(p.numel() for p in trained.values())
    assert per_parameter == (16 if moments == "float32" else 12)


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
        model={"gradient_checkpointing": recompute},
        trainer={"tokens_per_micro_batch": tokens, "prompts_per_step": 100},
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
    prefill = Prefill([len(prompt.ids)] * 2)
    rows = lay_out([SharedRow(prompt, ())] * 2, policy.device)
    with torch.no_grad():
        with active_layout(prefill.part(rows, np.arange(2))):
            policy.hidden_states(rows.ids, rows.positions, rows.media)
        decoding = Decoding(16)
        decoding.join(prefill, np.repeat([0, 1], 4))
        with active_layout(decoding):
            policy.hidden_states(rows.ids[:8], rows.positions[:, :8], ())
    seen = prompts_of(len(prompt.ids))
    assert planned(wanted, counts=seen).cache == decoding.allocated
    limit = prompts_of(64)
    assert planned(wanted, counts=limit).cache > decoding.allocated


def test_micro_batches_are_no_fuller_than_a_step() -> None:
    seen = prompts_of(10)
    row = 10 + 4 * 15  # the last token of an answer is no input
    full = planned(config(trainer={"prompts_per_step": 9, "kept_prompt_tokens": 0}), counts=seen)
    assert full.batch.tokens == 600 // row * row
    step = config(trainer={"prompts_per_step": 3, "kept_prompt_tokens": 0})
    assert planned(step, counts=seen).batch.tokens == 3 * row
    assert planned(step, processes=2, counts=seen).batch.tokens == 2 * row
    kept = full.activations / full.batch.tokens
    assert planned(step, counts=seen).activations == 3 * row * kept


def test_the_fullest_micro_batch_is_that_of_the_run() -> None:
    """Prompts of three lengths whose groups of four fill, leave room in or burst 300 tokens.

    No two answers are alike, of which the plan knows nothing.
    """
    lengths, answer, budget = (10, 90, 200), 17, 300
    wanted = config(
        trainer={"prompts_per_step": 7, "tokens_per_micro_batch": budget},
        rollout={"max_new_tokens": answer},
    )
    come = [lengths[i % 3] for i in range(7)]
    packed = [
        sum(len(prompt.ids) for prompt in chunk.prompts)
        + sum(len(m.sample.response.ids) - 1 for _, row in rows for m in row.members)
        for prompts in (come, [200] * 7)
        for chunk in chunks(
            [w for i, n in enumerate(prompts) for w in asked(i, n, 4, answer)], budget, alike=False
        )
        for rows in chunk.batches
    ]
    assert planned(wanted, counts=prompts_of(*lengths)).batch.tokens == max(packed)
    short = plan(wanted, shape.measure(wanted), prompts_of(*lengths), 1, answer=1)
    assert short.batch.tokens == 300 == 200 + 90 + 10


def test_dense_prompts_count_more_where_answers_are_short() -> None:
    seen = Counts(2, (Asked(30, 20, (4000.0,)), Asked(60, 0, (0.0,))))
    found = config(trainer={"prompts_per_step": 50, "kept_prompt_tokens": 0})
    limit = planned(found, counts=seen)
    short = plan(found, shape.measure(found), seen, 1, answer=1)
    assert limit.batch.positions == (600 // (30 + 4 * 15) * 4000.0,)
    assert short.batch.positions == (600 // 30 * 4000.0,)


def test_kept_prompts_stand_beside_a_micro_batch_of_responses() -> None:
    """Nine of 100 tokens are kept; behind them go nine groups of 4 x 15 tokens."""
    step = {"prompts_per_step": 9, "tokens_per_micro_batch": 600, "kept_prompt_tokens": 310}
    seen = Counts(1, (Asked(100, 50, (4000.0,)),))
    found = planned(config(trainer=step), counts=seen)
    assert found.batch.tokens == 3 * 100 + 3 * 60
    many = planned(config(trainer={**step, "kept_prompt_tokens": 900}), counts=seen)
    assert many.batch.tokens == 9 * 100 + 9 * 60
    assert many.batch.positions == (9 * 4000.0,)


def test_the_cache_is_of_what_is_asked_at_once() -> None:
    seen = prompts_of(10)

    def tokens(processes: int = 1, **sections: Any) -> float:
        asked = config(**sections)
        sizes = shape.measure(asked)
        cache = plan(asked, sizes, seen, processes).cache
        return cache / memory.token_cache(sizes, width=4)

    few, many = {"prompts_per_step": 3}, {"max_sequences": 1000}
    assert tokens() == 2 * (10 + 4 * 16)  # two groups are all that is decoded side by side
    assert tokens(trainer=few, rollout=many) == 3 * (10 + 4 * 16)
    assert tokens(processes=2, trainer=few, rollout=many) == 2 * (10 + 4 * 16)
    held_out = {"eval_path": "unused"}
    assert tokens(data=held_out, trainer=few, rollout=many) == 64 * (10 + 16)
    assert tokens(data=held_out) == 8 * (10 + 16)  # max_sequences records of one answer
    assert tokens(data=held_out, model={"max_prompt_tokens": 9999}) == 8 * (10 + 16)


def deepspeed(name: str) -> dict[str, str]:
    return {"backend": "deepspeed", "deepspeed": str(CONFIGS / "deepspeed" / f"{name}.json")}


def test_sharding_divides_what_its_stage_shards() -> None:
    def sharded(stage: int) -> Plan:
        trainer = deepspeed(f"zero{stage}")
        return planned(config(trainer=trainer, model={"dtype": "bfloat16"}), processes=4)

    whole = planned(config(model={"dtype": "bfloat16"}))
    parameters = whole.weights // 2
    assert [sharded(s).optimizer for s in (1, 2, 3)] == [parameters * 12 // 4] * 3
    # ZeRO-1 has the last micro-batch's beside their float32 sum.
    assert whole.gradients == 4 * parameters
    assert [sharded(s).gradients for s in (1, 2, 3)] == [6 * parameters, parameters, parameters]
    assert [whole.weights // sharded(s).weights for s in (1, 2, 3)] == [1, 1, 4]


def test_what_is_offloaded_is_not_on_the_device() -> None:
    half = {"dtype": "bfloat16"}
    whole = planned(config(trainer=deepspeed("zero3"), model=half), processes=2)
    moved = planned(config(trainer=deepspeed("zero3_offload"), model=half), processes=2)
    parameters = planned(config(model=half)).weights // 2
    assert (whole.host, whole.disk) == (0, 0)
    assert (moved.optimizer, moved.weights) == (0, 0)
    # Float32 gradients are added up beside the state.
    assert moved.host == whole.optimizer + whole.weights + parameters * 4 // 2
    stored = planned(config(trainer=deepspeed("zero3_nvme"), model=half), processes=2)
    assert stored.disk == whole.optimizer + whole.weights
    assert stored.host == parameters * 4 // 2
    state = planned(config(trainer=deepspeed("zero2_offload"), model=half), processes=2)
    assert (state.optimizer, state.weights) == (0, parameters * 2)


def test_sharded_weights_are_whole_only_where_a_process_rolls_out_with_them() -> None:
    own = config(trainer=deepspeed("zero3"))
    found = shape.measure(own)
    weights = found.parameters * 4
    assert plan(own, found, NO_MEDIA, 4).gathered == weights
    served = config(trainer=deepspeed("zero3"), rollout={"engine": "vllm_server"})
    # A sixteenth at a time, as it is and as it is sent; or a layer, or the embeddings.
    many = replace(found, layers=80, vocabulary=8)
    assert plan(served, many, NO_MEDIA, 4).gathered == 2 * (weights // 16)
    few = replace(found, layers=10, vocabulary=8)
    assert plan(served, few, NO_MEDIA, 4).gathered == 2 * (weights // 10)
    wide = replace(found, layers=80, vocabulary=10**6)
    assert plan(served, wide, NO_MEDIA, 4).gathered == 2 * 10**6 * found.hidden * 4
    assert plan(config(), found, NO_MEDIA, 1).gathered == 0


def test_a_colocated_engine_takes_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    found = planned(config(rollout={"engine": "vllm"}))
    assert found.engine == found.weights + GIB and not found.sleeps
    assert found.stays > found.engine and found.cache == 0
    half = {"dtype": "bfloat16"}
    settings = {"engine": "vllm", "vllm": {"gpu_memory_utilization": 0.5}}
    asleep = planned(config(model=half, rollout=settings))
    assert asleep.sleeps and asleep.engine == 40 * GIB
    assert asleep.rollout - asleep.stays == asleep.engine
    assert asleep.host == asleep.weights
    awake = {"engine": "vllm", "vllm": {"enable_sleep_mode": False}}
    assert planned(config(model=half, rollout=awake)).stays > 32 * GIB


def test_rolling_out_ahead_needs_both_sides_at_once() -> None:
    own = planned(config())
    copied = planned(config(rollout={"engine": "hf_copy"}))
    assert copied.engine == own.weights and copied.cache == own.cache
    assert copied.stays == own.stays + own.weights
    ahead = planned(config(rollout={"engine": "hf_copy", "max_staleness": 1}))
    assert ahead.peak == copied.update + copied.cache > copied.peak
    assert ahead.host == copied.host
    further = planned(config(rollout={"engine": "hf_copy", "max_staleness": 2}))
    assert further.host == copied.host + 2 * own.weights
    assert not planned(config(rollout={"engine": "vllm", "max_staleness": 1})).sleeps


@pytest.mark.parametrize(
    ("adapter_sync", "alone"), [("auto", True), ("merged", False)], ids=["auto", "merged"]
)
def test_an_adapter_waits_for_the_engine_by_itself(adapter_sync: str, alone: bool) -> None:
    adapters = {"lora": {"rank": 4, "alpha": 8}}
    engine = {"engine": "vllm", "adapter_sync": adapter_sync}
    on_policy, ahead = (
        planned(config(model=adapters, rollout={**engine, "max_staleness": staleness}))
        for staleness in (0, 2)
    )
    made = shape.measure(config(model=adapters))
    waits = made.adapter_parameters if alone else made.parameters
    assert ahead.host - on_policy.host == 2 * 4 * waits


def test_a_critic_of_its_own_is_counted() -> None:
    found = planned(config(algorithm={"name": "ppo"}))
    assert found.critic == 4 * found.weights
    half = planned(config(algorithm={"name": "ppo"}, model={"dtype": "bfloat16"}))
    assert half.critic == half.weights + half.optimizer + half.gradients == found.critic
    shared = RunConfig.model_validate(
        {**config(algorithm={"name": "ppo"}).model_dump(), "critic": {"trunk": "shared"}}
    )
    assert planned(shared).critic == 0


def test_counts_are_those_of_the_records(policy: Policy) -> None:
    path = fixture_path("digit_count")
    found = config(
        data={"task": "digit_count", "path": str(path)}, model={"max_prompt_tokens": 999}
    )
    towers = shape.measure(found).towers
    counts = count(found, towers)
    task, encoder = load_task("digit_count", {}), Encoder(policy.family)
    prompts = [encoder.prompt(s) for s in load_samples(task, path, "d", lambda *_: None)]
    assert counts.records == len(prompts)
    assert counts.prompt_tokens == max(len(p.ids) for p in prompts)
    assert counts.media_tokens == max(p.media[0].num_tokens for p in prompts)
    patches = [len(p.media[0].tensors["pixel_values"]) for p in prompts]
    assert [each.positions for each in counts.asked] == [(n,) for n in patches]
    assert [each.tokens for each in counts.asked] == [len(p.ids) for p in prompts]
    made = [sum(t.nbytes for t in p.media[0].tensors.values()) for p in prompts]
    assert counts.media_bytes == sum(made) // len(made)


def test_without_records_every_token_is_a_mediums() -> None:
    found = config()
    counts = count(found, shape.measure(found).towers)
    assert (counts.records, counts.media_tokens) == (0, 64)
    assert counts.asked[0].positions == (4.0 * 64,)  # 2 x 2 patches are merged


def test_without_records_a_model_without_ears_is_asked_for_what_it_takes(tmp_path: Path) -> None:
    """Of Gemma 4's sizes, and Nemotron-H's, some hear and some do not."""
    cases.policy("gemma4_moe").save(tmp_path)
    found = config(model={"path": str(tmp_path)})
    counts = count(found, shape.measure(found).towers)
    (longest,) = counts.asked
    assert counts.records == 0 and len(longest.positions) == 1 and longest.positions[0] > 0


def tower_memory(policy: Policy, kind: str) -> tuple[int, list[EncodedMedium]]:
    """Bytes that the towers keep for their backward pass over three media."""
    media = [policy.family.encode_medium(cases.make(kind, seed)) for seed in range(3)]
    own = {p.untyped_storage().data_ptr() for p in policy.model.parameters()}
    held: dict[int, int] = {}
    kept: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            held[storage.data_ptr()] = storage.nbytes()
        kept.append(tensor)  # or another tensor takes its address
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        policy.family.features(media)
    return sum(held.values()), media


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("qwen2_5_vl", "image"),
        ("qwen2_5_vl", "video"),
        ("qwen3_vl", "image"),
        ("gemma3", "image"),
        ("internvl", "video"),
        ("qwen2_audio", "audio"),
        ("qwen2_5_omni", "audio"),
    ],
)
def test_what_towers_keep_is_near_what_is_measured(name: str, kind: str) -> None:
    policy = cases.policy(name)
    measured, media = tower_memory(policy, kind)
    found = config()
    sizes = shape.shape_of(policy.model, policy.family.declaration, found)
    batch = MicroBatch(1000, tuple(sum(positions(m, t) for m in media) for t in sizes.towers))
    few = Counts(1, (Asked(1000, 100, batch.positions),))
    predicted = memory.media(found, sizes, few, batch, width=4)
    assert 0.6 < predicted / measured < 1.5
    learns_not = config(model={"freeze_tower": True, "freeze_projector": True})
    drawn = learns_not.trainer.prompts_per_step * learns_not.trainer.steps
    kept = memory.media(learns_not, sizes, few, batch, width=4)
    assert kept == drawn * 100 * sizes.hidden * 4 < MAX_KEPT_TOKENS * sizes.hidden * 4
    many = Counts(1, (Asked(1000, MAX_KEPT_TOKENS, batch.positions),))
    kept = memory.media(learns_not, sizes, many, batch, width=4)
    assert kept == MAX_KEPT_TOKENS * sizes.hidden * 4
    tower_only = config(model={"freeze_tower": True})
    assert memory.media(tower_only, sizes, few, batch, width=4) == 0


@pytest.mark.parametrize(
    ("name", "queries", "keys"),
    [
        ("qwen2_5_vl", 4 * 32, 2 * 32),
        ("qwen3_5", (4 * 32 + 4) // 5, (2 * 32 + 4) // 5),  # one layer of five attends
        ("gemma4", (8 * 4 * 48 + 2 * 4 * 96) // 10 + 1, (8 * 48 + 2 * 96) // 10 + 1),
        ("gemma4_moe", (5 * 256 + 2 * 512 + 6) // 7, (5 * 4 * 32 + 2 * 2 * 64 + 6) // 7),
    ],
)
def test_layers_have_sizes_of_their_own(name: str, queries: int, keys: int) -> None:
    policy = cases.policy(name)
    sizes = shape.shape_of(policy.model, policy.family.declaration, config())
    assert (sizes.queries, sizes.keys) == (queries, keys)


@pytest.mark.parametrize(
    ("sections", "named"),
    [
        (
            {"rollout": {"max_sequences": 100_000}, "trainer": {"prompts_per_step": 100_000}},
            "rollout.max_sequences",
        ),
        (
            {"trainer": {"tokens_per_micro_batch": 10_000_000, "prompts_per_step": 100_000}},
            "model.gradient_checkpointing",
        ),
        (
            {
                "trainer": {"tokens_per_micro_batch": 10_000_000, "prompts_per_step": 1_000_000},
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
        report(config(**sections), capacity_gib=0.01)


def test_media_name_the_tower() -> None:
    dense = {"gradient_checkpointing": True, "max_prompt_tokens": 16}
    full = {"tokens_per_micro_batch": 400_000, "prompts_per_step": 400_000}
    found = config(trainer=full, model=dense)
    plenty = planned(found, counts=Counts(1, (Asked(16, 16, (64000.0,)),)))
    assert "model.freeze_tower" in advice(found, plenty)


def test_an_engine_that_holds_no_weights_names_its_share() -> None:
    found = config(model={"dtype": "bfloat16"}, rollout={"engine": "vllm"})
    with pytest.raises(UserError, match=r"rollout\.vllm\.gpu_memory_utilization"):
        refuse(found, shape.measure(found), planned(found, counts=NO_MEDIA), 1000, 1 << 40)


def test_a_full_host_names_the_disk() -> None:
    found = config(trainer=deepspeed("zero2_offload"))
    with pytest.raises(UserError, match=r"zero3_nvme\.json"):
        refuse(found, shape.measure(found), planned(found), 1 << 40, host=1000)


def test_a_run_needs_its_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "_installed", lambda name: None)
    found = config(
        model={"lora": {"quantize": "nf4"}},
        trainer=deepspeed("zero2"),
        rollout={"engine": "vllm"},
    )
    with pytest.raises(UserError, match=r"pip install 'mmrl\[lora,qlora,deepspeed,vllm\]'"):
        report(found)


def test_packages_that_do_not_fit_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert packages.conflicts() == []
    here = {"torch": "2.13.0+cpu", "torchvision": "0.29.0", "transformers": "4.50.0"}
    asked = {"torchvision": ["torch==2.14.0+cu130"], "mmrl": ["transformers<5.21,>=5.19"]}
    monkeypatch.setattr(
        packages, "_installed", lambda name: (name, here[name]) if name in here else None
    )
    monkeypatch.setattr(packages.importlib.metadata, "requires", lambda name: asked.get(name))
    assert packages.conflicts() == [
        "mmrl wants transformers<5.21,>=5.19, here is 4.50.0",
        "torchvision 0.29.0 wants torch==2.14.0, here is 2.13.0+cpu",
        "torch 2.13.0+cpu needs torchvision 0.28, here is 0.29.0",
    ]


def test_places_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("deepspeed")
    found = config(trainer=deepspeed("zero3_offload"))
    told = "\n".join(report(found, processes=8, nodes=2))
    assert "8 processes on 2 machines" in told and "ZeRO-3" in told
    assert "host     weights, optimiser, gradients" in told
    assert "1 process," in "\n".join(report(config()))


def test_phases_are_planned_apart() -> None:
    values = config().model_dump()
    later = {"rollout": {"max_new_tokens": 32}, "trainer": {"steps": 2}}
    values["phases"] = [{"name": "first"}, {"name": "second", **later}]
    lines = report(RunConfig.model_validate(values))
    assert [line for line in lines if line.startswith("phase")] == [
        "phase 'first'",
        "phase 'second'",
    ]
    assert sum("answers of 32 tokens" in line for line in lines) == 1


def test_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert f"torch {torch.__version__.split('+')[0]}" in printed
    quickstart = str(CONFIGS / "quickstart.yaml")
    assert main(["doctor", quickstart]) == 0
    assert "peak" in capsys.readouterr().out
    assert main(["doctor", quickstart, "--memory-gib", "0.001"]) == 2
    assert "do not fit" in capsys.readouterr().err
