"""vLLM in the trainer's process: it samples, and takes over the weights in memory.

On a GPU it sleeps whenever it has nothing to do, and its memory is the trainer's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mmrl.engines.batch import respond
from mmrl.engines.engine import Sampling
from mmrl.engines.vllm.adapter import adapter_arguments, takes_adapter
from mmrl.engines.vllm.media import placed_media, sent_positions
from mmrl.engines.vllm.thinker import whole_configuration
from mmrl.errors import UserError
from mmrl.model_config import ModelConfig
from mmrl.policy.buckets import Buckets, named
from mmrl.policy.checkpoint_names import checkpoint_adapter, checkpoint_weights
from mmrl.policy.features import Sources
from mmrl.policy.model_folder import base_of, model_folder
from mmrl.policy.policy import Policy
from mmrl.policy.weights import Weights, weights_of
from mmrl.rollout_config import RolloutConfig
from mmrl.types import Floats, Prompt, Response

QUIET = {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
IN_PROCESS = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    # The logits processor is written for the first model runner.
    "VLLM_USE_V2_MODEL_RUNNER": "0",
}
# What vLLM imports in its own processes.
PROCESSOR = "mmrl.engines.vllm.sampling:PolicyLogits"
EXTENSION = "mmrl.engines.vllm.server.worker_extension.TakesWeights"
ENDPOINT = "mmrl.engines.vllm.server.endpoint.Endpoint"

SHARE_OF_GPU = 0.4
CPU_CACHE_BYTES = 1 << 30
CPU_ARGUMENTS: Mapping[str, Any] = {
    "kv_cache_memory_bytes": CPU_CACHE_BYTES,
    "enforce_eager": True,
    "block_size": 32,
    # Prompts are prefilled whole, but where the encoder's cache has no room for their media.
    "enable_chunked_prefill": False,
    # vLLM's own kernel turns queries that are not flat by other angles (LFM2's, in 0.32).
    "compilation_config": {"custom_ops": ["-rotary_embedding"]},
}


class VLLMEngine:
    """Samples with vLLM's own copy of the weights, which `sync` replaces, or with an adapter on it.

    Responses mean what those of `HFEngine` mean. `rollout.vllm` holds engine arguments of vLLM's
    own, which win over those chosen here.
    """

    def __init__(self, policy: Policy, model: ModelConfig, rollout: RolloutConfig) -> None:
        for name, value in {**QUIET, **IN_PROCESS}.items():
            os.environ.setdefault(name, value)
        from vllm import EngineArgs
        from vllm.v1.engine.llm_engine import LLMEngine

        from mmrl.engines.vllm.inputs import InputMaker

        self._policy, self._sources = policy, Sources(policy.family)
        on_gpu = policy.device.type == "cuda"
        arguments = engine_arguments(policy.model.config, model, rollout, on_gpu)
        if int(arguments.get("tensor_parallel_size", 1)) > 1:
            raise UserError(
                "rollout.engine=vllm runs in one process: use rollout.engine=vllm_server with "
                "rollout.vllm.tensor_parallel_size"
            )
        self._engine = LLMEngine.from_engine_args(EngineArgs(**arguments))
        self._max_length: int = self._engine.model_config.max_model_len
        self._inputs = InputMaker(self._engine.model_config)
        self._may_sleep = bool(arguments.get("enable_sleep_mode"))
        self._asleep = self._has_base = False
        adapters = self._engine.vllm_config.lora_config
        most = adapters.max_lora_rank if adapters else 0
        settings = policy.model.config
        self.takes_adapter = takes_adapter(settings, model, rollout, on_gpu, most)
        self.sync(weights_of(policy, 0))

    def generate(
        self, prompts: Sequence[Prompt], counts: Sequence[int], sampling: Sampling, seed: int
    ) -> list[list[Response]]:
        """Sample counts[i] responses to prompt i; the prompt is computed once for all of them."""
        from mmrl.engines.vllm.inputs import adapter_request
        from mmrl.engines.vllm.sampling import sampling_params

        adapter = adapter_request() if self.takes_adapter else None
        asked = list(requests(counts, sampling, seed))
        for request in asked:
            check_length(prompts[request.prompt], sampling, self._max_length)
        inputs = {i: self._input(prompts[i]) for i in {r.prompt for r in asked}}
        family = self._policy.family
        self._wake()
        for number, request in enumerate(asked):
            how = sampling_params(
                request.sampling,
                request.count,
                request.seed,
                family.banned_ids,
                family.end_ids,
                sent_positions(prompts[request.prompt]),
            )
            place = inputs[request.prompt]
            self._engine.add_request(str(number), place, how, lora_request=adapter)
        finished = self._run(prompts)
        self._sleep()
        groups: list[list[Response]] = [[] for _ in prompts]
        for number, request in enumerate(asked):
            groups[request.prompt] += self._responses(finished[number], request.count)
        return groups

    def sync(self, weights: Weights) -> None:
        """Load the weights; drop cached prefixes and features of the old ones.

        Where vLLM takes adapters, the base is loaded once, and then the adapter alone.
        """
        self.version: int | None = None
        self._wake()
        model = self._policy.model
        if self.takes_adapter:
            if not self._has_base:
                self._load(checkpoint_weights(model, self._policy.base_weights()))
            self._has_base = True
            for adapter in checkpoint_adapter(model, weights.adapter()):
                self._engine.collective_rpc("take_adapter", args=(adapter,))
        else:
            self._load(checkpoint_weights(model, weights.whole()))
        self._engine.reset_prefix_cache()
        self._engine.reset_mm_cache()
        self._engine.reset_encoder_cache()
        self.version = weights.version

    def _load(self, weights: Buckets) -> None:
        self._engine.collective_rpc("take_weights", args=(named(weights),))

    def close(self) -> None:
        """Shut vLLM down, with the process group it opened."""
        from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

        self._engine.engine_core.shutdown()
        del self._engine
        cleanup_dist_env_and_memory()

    def _sleep(self) -> None:
        """Give the GPU memory of weights and caches to the trainer until the next call."""
        if self._may_sleep:
            self._engine.sleep(level=1)
            self._asleep = True

    def _wake(self) -> None:
        if self._asleep:
            self._engine.wake_up()
            self._asleep = False

    def _input(self, prompt: Prompt) -> Any:
        media = placed_media(prompt, self._policy.family, self._sources.whole)
        return self._inputs.make(prompt.ids.tolist(), media, prompt.sample.id)

    def _run(self, prompts: Sequence[Prompt]) -> dict[int, Any]:
        """Step until every request has ended; what vLLM made of each, by its number."""
        finished: dict[int, Any] = {}
        try:
            while self._engine.has_unfinished_requests():
                for output in self._engine.step():
                    finished[int(output.request_id)] = output
        except (RuntimeError, ValueError) as error:
            names = ", ".join(sorted({prompt.sample.id for prompt in prompts})[:3])
            raise UserError(f"vLLM failed on samples such as {names}: {error}") from error
        return finished

    def _responses(self, output: Any, count: int) -> list[Response]:
        """Responses in the order of their number; a greedy one stands for all."""
        made = [
            respond(self._policy, np.array(one.token_ids, dtype=np.int64), reported(one))
            for one in sorted(output.outputs, key=lambda one: one.index)
        ]
        return made if len(made) == count else made * count


def reported(output: Any) -> Floats:
    """Log-probs [T] of the tokens of one of vLLM's completions."""
    pairs = zip(output.logprobs, output.token_ids, strict=True)
    return np.array([at[token].logprob for at, token in pairs], dtype=np.float64)


def engine_arguments(
    settings: Any, model: ModelConfig, rollout: RolloutConfig, on_gpu: bool
) -> Mapping[str, Any]:
    """vLLM's engine arguments for a run; those of `rollout.vllm` win.

    `settings` is the model's transformers configuration.
    """
    folder, whole = model_folder(model.path), whole_configuration(settings)
    limit = settings.get_text_config().max_position_embeddings
    placed = (
        {"gpu_memory_utilization": SHARE_OF_GPU, "enable_sleep_mode": not rollout.max_staleness}
        if on_gpu
        else CPU_ARGUMENTS
    )
    return {
        "model": base_of(folder) or str(folder),
        "hf_config_path": whole and str(whole),
        "load_format": "dummy",  # the first sync loads the policy's own
        "dtype": model.dtype,
        "trust_remote_code": model.trust_remote_code,
        "max_model_len": min(
            model.max_prompt_tokens
            + rollout.max_new_tokens
            + (rollout.max_environment_tokens or 0),
            limit,
        ),
        "max_num_seqs": rollout.max_sequences,
        # With layers that carry a state it needs prompts prefilled in parts: see CPU_ARGUMENTS.
        "enable_prefix_caching": on_gpu or not _carries_state(settings),
        "mm_processor_cache_gb": 0,  # media arrive processed
        "mm_device_do_normalize": False,
        "skip_mm_profiling": not on_gpu,
        "generation_config": "vllm",
        "disable_log_stats": True,
        "logits_processors": [PROCESSOR],
        "worker_extension_cls": EXTENSION,
        "logprobs_mode": "processed_logits",
        **placed,
        **adapter_arguments(settings, model, rollout, on_gpu),
        **rollout.vllm,
    }


def _carries_state(settings: Any) -> bool:
    """Whether some of the model's layers are recurrent."""
    kinds = getattr(settings.get_text_config(), "layer_types", None) or ()
    return any(kind not in ("full_attention", "sliding_attention") for kind in kinds)


def check_length(prompt: Prompt, sampling: Sampling, max_length: int) -> None:
    """Raise UserError where a full response would not fit, which vLLM would cut silently."""
    longest = len(prompt.ids) + sampling.max_new_tokens
    if longest > max_length:
        raise UserError(
            f"sample '{prompt.sample.id}': {len(prompt.ids)} prompt tokens and "
            f"{sampling.max_new_tokens} new ones are over vLLM's {max_length}: raise "
            "rollout.vllm.max_model_len"
        )


@dataclass(frozen=True)
class Request:
    """So many responses to the prompt of that number."""

    prompt: int
    count: int
    sampling: Sampling
    seed: int


def requests(counts: Sequence[int], sampling: Sampling, seed: int) -> Iterator[Request]:
    """What to ask for, in the order of a group's responses; the greedy one is its last."""
    greedy = replace(sampling, temperature=0.0)
    for i, count in enumerate(counts):
        if count:
            yield Request(i, count, sampling, request_seed(seed, i))
        if sampling.greedy_too:
            yield Request(i, 1, greedy, 0)


def request_seed(seed: int, number: int) -> int:
    """A 62-bit seed of its own for each prompt; vLLM adds the response's number to it."""
    drawn = np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0]
    return int(drawn >> np.uint64(2))
