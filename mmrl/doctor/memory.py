"""Predicted memory of one process, by what it is for; sharding divides what its stage shards."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch

from mmrl.algorithms.compose import compose
from mmrl.config import RunConfig
from mmrl.doctor.counts import Counts
from mmrl.doctor.fullest import MicroBatch, fullest, group_size
from mmrl.doctor.shape import Shape
from mmrl.engines.prefix_cache import MAX_TOKENS
from mmrl.engines.vllm.in_process import CPU_CACHE_BYTES, SHARE_OF_GPU
from mmrl.evaluate.ask import ANSWERS_AT_ONCE
from mmrl.policy.buckets import SHARE
from mmrl.policy.encoder import MAX_KEPT_BYTES
from mmrl.policy.features import MAX_KEPT_TOKENS
from mmrl.policy.logprobs import CHUNK_TOKENS
from mmrl.policy.policy import DTYPES
from mmrl.train.reference_config import following, reference_of

GIB = 1 << 30

Place = Literal["device", "host", "disk"]
STAGES = ("local", "ZeRO-1", "ZeRO-2", "ZeRO-3")

PACKED = {"none": None, "nf4": 0.55, "int8": 1.05}
"""Bytes of a base parameter with its scales."""

TOWER_KEEPS = 1.4
"""What a tower keeps of a position, over the inputs and outputs of its linears: between 1.0 and 1.5
in the families' tiny models, the larger in those with gates."""


@dataclass(frozen=True)
class Sharding:
    """How DeepSpeed's JSON spreads a run: the ZeRO stage, and where state and weights live."""

    stage: int = 0
    optimizer: Place = "device"
    parameters: Place = "device"


@dataclass(frozen=True)
class Plan:
    """Bytes of one process on its device; `host` and `disk` are what it keeps elsewhere.

    The first line stays; the second comes and goes with the update, whose fullest micro-batch is
    `batch`, the third with the rollout.
    `gathered` are the weights that a sharded run has whole at a time: all of them where it rolls
    out with its own, else what syncs and saves make whole at once;
    `engine` is what vLLM or a copy of the weights takes beside the trainer, for good or, where it
    `sleeps`, to roll out. `ahead`: rollouts overlap with the update. `processed` are media that are
    kept for steps to come, a part of `host`.
    """

    weights: int
    reference: int
    critic: int
    optimizer: int

    gradients: int
    activations: int
    media: int
    logits: int

    cache: int
    gathered: int
    engine: int

    batch: MicroBatch
    processed: int
    host: int
    disk: int
    sleeps: bool
    ahead: bool

    @property
    def stays(self) -> int:
        awake = 0 if self.sleeps else self.engine
        return self.weights + self.reference + self.critic + self.optimizer + awake

    @property
    def update(self) -> int:
        return self.stays + self.gradients + self.activations + self.media + self.logits

    @property
    def rollout(self) -> int:
        return self.stays + self.cache + self.gathered + (self.engine if self.sleeps else 0)

    @property
    def peak(self) -> int:
        """The larger of the two stages that alternate; both, where they overlap."""
        both = self.update + self.rollout - self.stays
        return both if self.ahead else max(self.update, self.rollout)


def sharding_of(config: RunConfig) -> Sharding:
    """Read the run's DeepSpeed JSON; no sharding without one."""
    if config.trainer.backend == "local" or config.trainer.deepspeed is None:
        return Sharding()
    zero = json.loads(config.trainer.deepspeed.read_text(encoding="utf-8"))["zero_optimization"]
    places: dict[Any, Place] = {"cpu": "host", "nvme": "disk"}

    def place(part: str) -> Place:
        return places.get(zero.get(part, {}).get("device"), "device")

    return Sharding(int(zero["stage"]), place("offload_optimizer"), place("offload_param"))


def plan(
    config: RunConfig,
    shape: Shape,
    counts: Counts,
    processes: int,
    capacity: int = 80 * GIB,
    answer: int | None = None,
) -> Plan:
    """Predict one process's memory; the update's and the rollout's stages are at their limits.

    Answers that are trained have `answer` tokens, by default as many as they may. Short ones let
    more prompts, and so more media, into a micro-batch.
    """
    width = DTYPES[config.model.dtype].itemsize
    taken = partial(_kept, config, shape, counts, width)
    batch = fullest(config, counts, processes, answer or config.rollout.max_new_tokens, taken)
    sharding = sharding_of(config)
    stage, adapters = sharding.stage, config.model.lora
    packed = PACKED[adapters.quantize] if adapters else None
    base = int(shape.parameters * (packed or width))
    # Adapters are float32, except under DeepSpeed, which turns the whole model into the dtype.
    own = 4 if adapters and not stage else width
    trained = trained_parameters(config, shape)
    state = trained * _optimizer_width(config, sharding, own) // (processes if stage else 1)
    gradients = trained * _gradient_width(sharding, own) // (processes if stage >= 2 else 1)
    held = base // (processes if stage == 3 else 1)
    engine, sleeps = _engine(config, shape, width, capacity)
    on_device = sharding.parameters == "device"
    processed = store(config, counts, processes)
    away: Counter[Place] = Counter({sharding.optimizer: state})
    away[sharding.parameters] += held
    return Plan(
        weights=(held if on_device else 0) + shape.adapter_parameters * own,
        reference=_references(config, shape, width) // (processes if stage == 3 else 1),
        critic=_critic(config, shape),
        optimizer=0 if sharding.optimizer != "device" else state,
        gradients=gradients,
        activations=activations(config, shape, batch, width),
        media=media(config, shape, counts, batch, width),
        logits=logits(shape),
        cache=_cache(config, counts, processes) * token_cache(shape, width),
        gathered=_gathered(config, shape, base, width) if stage == 3 else 0,
        engine=engine,
        batch=batch,
        processed=processed,
        # Gradients are added up in host memory, in float32, beside the state that is kept there.
        host=away["host"]
        + processed
        + (trained * 4 // processes if sharding.optimizer != "device" else 0)
        + (shape.parameters * width if sleeps else 0)
        + _handed(config, shape, width, own),
        disk=away["disk"],
        sleeps=sleeps,
        ahead=config.rollout.max_staleness > 0,
    )


def _kept(config: RunConfig, shape: Shape, counts: Counts, width: int, batch: MicroBatch) -> int:
    """Bytes that a micro-batch keeps for its backward pass, of language layers and of towers."""
    found = media(config, shape, counts, batch, width)
    return activations(config, shape, batch, width) + found


def _gathered(config: RunConfig, shape: Shape, base: int, width: int) -> int:
    """Bytes of sharded weights that are whole at a time, on their way as what other programs read.

    The embedded engine samples with all of them, which evaluates supervised phases too.
    """
    if config.rollout.engine in ("hf", "targets"):
        return base
    largest = max(base // shape.layers, shape.vocabulary * shape.hidden * width)
    return 2 * max(base // SHARE, largest)


def _handed(config: RunConfig, shape: Shape, width: int, own: int) -> int:
    """Bytes of weights that wait for the engine; a step ahead the trainer waits in their place."""
    copies = config.rollout.max_staleness if config.rollout.max_staleness > 1 else 0
    each = shape.adapter_parameters * own if shape.adapter_alone else shape.parameters * width
    return copies * each


def trained_parameters(config: RunConfig, shape: Shape) -> int:
    """How many parameters learn."""
    if config.model.lora is not None:
        return shape.adapter_parameters
    tower, projector = shape.tower_parameters, shape.projector_parameters
    parts = {
        "freeze_tower": tower,
        "freeze_projector": projector,
        "freeze_language": shape.parameters - tower - projector,
    }
    return shape.parameters - sum(n for key, n in parts.items() if getattr(config.model, key))


def _optimizer_width(config: RunConfig, sharding: Sharding, own: int) -> int:
    """Bytes of a parameter's state: two moments, and what is kept beside 16-bit weights.

    That is float32 weights under ZeRO, here the 16 bits that weights lack (`backend.masters`).
    """
    if sharding.stage:
        return 8 + (4 if own < 4 else 0)
    return 2 * DTYPES[config.optimizer.moments].itemsize + (2 if own < 4 else 0)


def _gradient_width(sharding: Sharding, own: int) -> int:
    """Bytes of a parameter's gradient: a float32 sum over the micro-batches.

    ZeRO-1 has the gradients of the last one beside it, in 16 bits; elsewhere they come and go.
    """
    return 4 + (own if sharding.stage == 1 and own < 4 else 0)


def _references(config: RunConfig, shape: Shape, width: int) -> int:
    """Of what the policy is compared with; teachers are taken to be as large as it is."""
    algorithm = compose(config.algorithm)
    if "reference" not in algorithm.needs:
        return 0
    given = following(reference_of(config.reference), algorithm.follows)
    if given.is_start and config.model.lora:
        return 0  # the base with its adapters off
    averaged = 4 if given.average is not None else 0
    return shape.parameters * (width * max(1, len(given.teachers)) + averaged)


def _critic(config: RunConfig, shape: Shape) -> int:
    """A critic with a trunk of its own: weights, moments and gradients, never sharded.

    They are 16 bytes a parameter: 4 + 8 + 4 in float32, 2 + 2 + 8 + 4 with bfloat16 weights.
    """
    if "values" not in compose(config.algorithm).needs or config.critic.trunk == "shared":
        return 0
    return shape.parameters * 16


def activations(config: RunConfig, shape: Shape, batch: MicroBatch, width: int) -> int:
    """Bytes that one micro-batch keeps for its backward pass.

    A norm keeps what comes in, in float32, and what goes out; a linear what comes in; attention its
    queries, keys and values and what it gives; an MLP the gate, its activation, what is multiplied
    with that, and the product. On top of it come the gradients of the last layer's MLP.
    """
    normed = 4 + width
    layer = (
        (shape.norms * normed + 2 * width) * shape.hidden
        + (2 * width + shape.head_norms * normed) * shape.queries
        + (2 * width + shape.head_norms * normed) * shape.keys
        + 4 * width * shape.inner
    )
    last = 2 * width * shape.inner
    if not config.model.gradient_checkpointing:
        return batch.tokens * (shape.layers * layer + last)
    return batch.tokens * (_between(shape, width) + layer + last)


def _between(shape: Shape, width: int) -> int:
    """Bytes that stand between the layers for a token."""
    return shape.layers * width * shape.hidden


def media(config: RunConfig, shape: Shape, counts: Counts, batch: MicroBatch, width: int) -> int:
    """Bytes that the towers keep for a micro-batch, over what the language layers keep.

    Towers that learn nothing keep no activations; where nothing behind the features learns, those
    of the media seen last are kept instead. Of layers that run again, only the largest counts: a
    tower's run when those of the language layers are through.
    """
    model, adapters = config.model, config.model.lora
    frozen = adapters is not None and adapters.tower == "frozen"
    if frozen or (model.freeze_tower and model.freeze_projector):
        return kept_features(config, counts) * shape.hidden * width
    if model.freeze_tower:
        return 0
    recompute = config.model.gradient_checkpointing
    counted = list(zip(shape.towers, batch.positions, strict=True))
    whole = [count * TOWER_KEEPS * width * tower.linears for tower, count in counted]
    if not recompute:
        return int(sum(whole))
    between = sum(count * tower.layers * width * tower.hidden for tower, count in counted)
    again = max((size / tower.layers for size, (tower, _) in zip(whole, counted, strict=True)))
    running = activations(config, shape, batch, width) - batch.tokens * _between(shape, width)
    return int(between + max(again - running, 0))


def kept_features(config: RunConfig, counts: Counts) -> int:
    """Tokens of media whose features are kept, where nothing behind them learns."""
    drawn = config.trainer.prompts_per_step * config.trainer.steps
    return min(drawn * counts.media_tokens, MAX_KEPT_TOKENS)


def store(config: RunConfig, counts: Counts, processes: int) -> int:
    """Bytes of processed media that are kept in host memory for steps to come."""
    drawn = config.trainer.prompts_per_step * config.trainer.steps // processes
    return min(drawn * counts.media_bytes, MAX_KEPT_BYTES)


def logits(shape: Shape) -> int:
    """Logits of a chunk, scaled, their log-softmax, its exponential and a gradient, in float32."""
    return 5 * 4 * CHUNK_TOKENS * shape.vocabulary


def _cache(config: RunConfig, counts: Counts, processes: int) -> int:
    """Tokens of the largest decoding batch: each prompt's once, each response's own.

    A step asks no more than its prompts, an evaluation so many records at once. In an episode's
    later turns every answer has a prompt of its own, and what was fed is kept from turn to turn.
    """
    rollout = config.rollout
    if rollout.engine not in ("hf", "hf_copy"):
        return 0
    asked = {group_size(config): -(-config.trainer.prompts_per_step // processes)}
    if any(data.eval_path for data in config.data):
        asked[1] = max(asked.get(1, 0), -(-ANSWERS_AT_ONCE // processes))
    beside = {n: min(wanted, max(rollout.max_sequences // n, 1)) for n, wanted in asked.items()}
    if counts.turns > 1:
        most = counts.prompt_tokens + rollout.max_new_tokens + (rollout.max_environment_tokens or 0)
        room = MAX_TOKENS if rollout.prefix_tokens is None else rollout.prefix_tokens
        kept = min(max(n * wanted for n, wanted in asked.items()) * most, room)
        return kept + max(n * prompts for n, prompts in beside.items()) * most
    return max(
        prompts * (counts.prompt_tokens + answers * rollout.max_new_tokens)
        for answers, prompts in beside.items()
    )


def token_cache(shape: Shape, width: int) -> int:
    """Bytes of a token's keys and values in all layers."""
    return shape.layers * 2 * shape.keys * width


def _engine(config: RunConfig, shape: Shape, width: int, capacity: int) -> tuple[int, bool]:
    """What an engine's own weights take of the device, and whether they leave it in between."""
    if config.rollout.engine == "hf_copy":
        return shape.parameters * width, False
    if config.rollout.engine != "vllm":
        return 0, False
    arguments = config.rollout.vllm
    if not torch.cuda.is_available() and config.model.dtype == "float32":
        cache = int(arguments.get("kv_cache_memory_bytes", CPU_CACHE_BYTES))
        return shape.parameters * width + cache, False
    share = float(arguments.get("gpu_memory_utilization", SHARE_OF_GPU))
    sleeps = bool(arguments.get("enable_sleep_mode", True)) and not config.rollout.max_staleness
    return int(share * capacity), sleeps
