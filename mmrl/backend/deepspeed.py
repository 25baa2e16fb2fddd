"""DeepSpeed: optimiser state, gradients and weights sharded over the processes (ZeRO-1, 2, 3).

A pass runs inside one module around the policy's model, so that DeepSpeed sees the towers, the
trunk and the chunks of the head as one forward. Losses add up over micro-batches and processes;
DeepSpeed means them, which the loss is multiplied against. Checkpoints hold whole tensors by
parameter name, spread over the processes' files: any number of processes, and the local backend,
can take them up.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import json
import logging
import math
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmrl.backend import extension_locks
from mmrl.backend.adamw import MASTER, MOMENTS, parameter_groups
from mmrl.backend.local import not_finite, schedule_factor, trained
from mmrl.backend.world import World
from mmrl.config import OptimizerConfig, RunConfig
from mmrl.errors import ConfigError, UserError
from mmrl.policy.buckets import SHARE, Bucket, Buckets, named, whole_bytes
from mmrl.policy.policy import Policy

OURS = (
    "optimizer",
    "scheduler",
    "gradient_clipping",
    "gradient_accumulation_steps",
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "bf16",
    "fp16",
    "data_types",
)
"""Settings of DeepSpeed's JSON that follow from the run's configuration."""


class Pass(nn.Module):
    """The module that DeepSpeed knows: its forward is whatever a pass calls."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, call: Callable[[], Any]) -> Any:
        """Carry the pass out."""
        return call()


class DeepSpeedBackend:
    """AdamW under ZeRO; the reference policy is sharded like the policy where weights are."""

    def __init__(
        self,
        policy: Policy,
        reference: Policy | None,
        config: RunConfig,
        total_updates: int,
        world: World,
    ) -> None:
        _require()
        import deepspeed

        logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
        # Its own calls; a run cannot change them.
        warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
        assert config.trainer.deepspeed is not None
        if not policy.family.declaration.towers:  # passes cannot be kept alike
            raise ConfigError("the generic family does not train with trainer.backend=deepspeed")
        self._config, self._total, self._world = config.optimizer, total_updates, world
        settings = read_settings(config.trainer.deepspeed, config)
        self._stage: int = settings["zero_optimization"]["stage"]
        self._model, self._named = policy.model, trained(policy.model)
        extension_locks.remove_stale(lambda line: print(line, file=sys.stderr))
        deepspeed.init_distributed()
        if self._stage == 3:
            shard(policy.model, settings)
        # Its ZeRO-1 in bfloat16 prints the memory it takes, whatever the log level.
        with redirect_stdout(io.StringIO()):
            self._engine: Any = deepspeed.initialize(
                model=Pass(policy.model),
                optimizer=_optimizer(self._named, config.optimizer, settings),
                config=settings,
            )[0]
        self.updates = 0
        self._host_of_reference: Any = (
            None if reference is None else self._host(reference, policy, settings)
        )

    def _host(self, reference: Policy, policy: Policy, settings: Mapping[str, Any]) -> Any:
        """What carries the reference's passes out."""
        if reference.model is policy.model:
            return self._engine
        if self._stage < 3:
            return reference.run
        import deepspeed

        shard(reference.model, settings)
        return deepspeed.initialize(model=Pass(reference.model), config=dict(settings))[0]

    def carrying(self, policy: Policy) -> Policy:
        """Return the policy it was made for, or its reference, with passes that the engine runs."""
        own = policy.model is self._model and not policy.bare
        host = self._engine if own else self._host_of_reference
        return dataclasses.replace(policy, run=host, gather=_gather if self._stage == 3 else None)

    @property
    def in_step(self) -> bool:
        return True

    @property
    def skips(self) -> bool:
        return False

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Make the weights whole; hooks that would shard them again rest meanwhile."""
        if self._stage < 3:
            yield
            return
        import deepspeed

        parameters = list(self._model.parameters())
        with deepspeed.zero.GatheredParameters(parameters, modifier_rank=0):
            offload = self._engine.optimizer.parameter_offload
            for parameter in parameters:
                parameter.ds_active_sub_modules.clear()
            for hook in (*offload.forward_hooks, *offload.backward_hooks):
                hook.remove()
            offload.forward_hooks, offload.backward_hooks = [], []
            try:
                yield
            finally:
                coordinator = offload.get_param_coordinator()
                if not coordinator.is_invalid_trace():
                    coordinator._invalidate_trace()
                offload._register_deepspeed_module(offload.module)

    def backward(self, loss: Tensor, *, last: bool = True) -> None:
        self._engine.set_gradient_accumulation_boundary(last)
        self._engine.backward(loss * self._world.size, scale_wrt_gas=False)

    def send_back(self, roots: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """Add what follows of gradients, each [...] of its tensor's shape."""
        raise AssertionError("rows carry their prompts where processes keep in step")

    def step(self, place: int | None = None) -> float:
        for group in self._engine.optimizer.param_groups:
            group["lr"] = self.rate(self.updates if place is None else place)
        self._engine.step()
        norm = float(self._engine.get_global_grad_norm())
        if self._engine.optimizer.overflow or not math.isfinite(norm):
            raise not_finite()
        self.updates += 1
        return norm

    def rate(self, place: int) -> float:
        return self._config.learning_rate * schedule_factor(place, self._total, self._config)

    def state(self) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
        buckets, data = self.state_in_buckets()
        return dict(named(buckets)), data

    def state_in_buckets(self) -> tuple[Buckets, Mapping[str, Any]]:
        return self._own_tensors(), {"updates": self.updates}

    def _own_tensors(self) -> Buckets:
        """Yield what is this process's to write, each parameter's tensors in its whole shape."""
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        self._link_moments()
        most = sum(map(whole_bytes, self._named.values())) // SHARE
        tensors: Bucket = {}
        for index, (name, parameter) in enumerate(self._named.items() if self.updates else ()):
            whole = {
                f"{key}.{name}": safe_get_full_optimizer_state(parameter, key) for key in MOMENTS
            }
            if parameter.dtype != torch.float32:
                whole[f"{MASTER}.{name}"] = safe_get_full_fp32_param(parameter)
            if index % self._world.size == self._world.rank:
                shape = getattr(parameter, "ds_shape", parameter.shape)
                tensors |= {key: value.view(shape).cpu() for key, value in whole.items()}
                tensors[f"step.{name}"] = torch.tensor(float(self.updates))
            if sum(map(whole_bytes, tensors.values())) >= most:
                yield tensors
                tensors.clear()
        yield tensors

    @torch.no_grad()
    def load_state(self, tensors: Mapping[str, Tensor], data: Mapping[str, Any]) -> None:
        self.updates = int(data["updates"])
        self._start_moments()
        self._link_moments()
        self._recount_steps()
        for name, parameter in self._named.items():
            whole = self._whole(parameter)
            self._put(parameter, tensors.get(f"{MASTER}.{name}", whole), None)
            for key in MOMENTS if self.updates else ():
                # A parameter that no sample reached yet has no moments in a local checkpoint.
                value = tensors.get(f"{key}.{name}")
                self._put(parameter, torch.zeros_like(whole) if value is None else value, key)

    def _start_moments(self) -> None:
        """Give the inner optimiser the state that it otherwise makes in its first step."""
        if not self.updates:
            return
        sharded = self._engine.optimizer
        # ZeRO-3, ZeRO-1 and 2, and the optimiser that takes ZeRO-1's place in bfloat16.
        flats = next(
            getattr(sharded, name)
            for name in (
                "fp32_partitioned_groups_flat",
                "single_partition_of_fp32_groups",
                "fp32_groups_flat_partition",
            )
            if hasattr(sharded, name)
        )
        torch_own = isinstance(sharded.optimizer, torch.optim.AdamW)
        for number, flat in enumerate(flats):
            step = torch.tensor(float(self.updates)) if torch_own else self.updates
            with self._off_disk(number):
                kept = sharded.optimizer.state[flat]
                moments = {k: kept[k] if k in kept else torch.zeros_like(flat) for k in MOMENTS}
                sharded.optimizer.state[flat] = {"step": step, **moments}

    def _recount_steps(self) -> None:
        """Bring AdamW for the CPU to the steps made: it multiplies up its bias correction.

        A power in its place, which it takes where steps were skipped, rounds otherwise.
        """
        inner = self._engine.optimizer.optimizer
        if not hasattr(inner, "ds_opt_adam"):
            return
        group = inner.param_groups[0]
        factors = (0.0, *group["betas"], group["eps"], 0.0, True)
        for step in range(1, self.updates + 1):
            nothing = torch.zeros(4, 1).unbind()
            inner.ds_opt_adam.adam_update(inner.opt_id, step, *factors, *nothing)

    @contextmanager
    def _off_disk(self, number: int) -> Iterator[None]:
        """Hold a group's float32 weights and moments in memory, where they live on a disk."""
        sharded = self._engine.optimizer
        if self._stage < 3 or not sharded._swappable_optimizer_subgroup(number):
            yield
            return
        sharded._optimizer_states_and_gradient_swap_in(number)
        yield
        sharded._optimizer_states_and_gradient_swap_out(number)

    def _link_moments(self) -> None:
        """Tell parameters where their moments are; DeepSpeed does so for its first group only."""
        if self._stage < 3 and self.updates:
            self._engine.optimizer._hp_optimizer_states_linked = False
            self._engine.optimizer._lazy_init_hp_params_optimizer_state()

    def _whole(self, parameter: nn.Parameter) -> Tensor:
        if self._stage < 3:
            return parameter.detach().clone()
        import deepspeed

        with deepspeed.zero.GatheredParameters([parameter]):
            return parameter.detach().clone()

    def _put(self, parameter: Any, value: Tensor, key: str | None) -> None:
        """Write this process's part of a whole tensor: the float32 weights, or a moment."""
        flat = value.to(parameter.device, torch.float32).flatten()
        if self._stage == 3:
            size = parameter.partition_numel()
            flat = nn.functional.pad(flat, (0, size * self._world.size - len(flat)))
            part = flat.narrow(0, size * self._world.rank, size)
            self._engine.optimizer.set_local_hp_param(part, parameter, key)
        elif parameter._hp_mapping is not None:
            address = parameter._hp_mapping.lp_fragment_address
            target = parameter._hp_mapping.get_hp_fragment(key)
            target.copy_(flat.narrow(0, address.start, address.numel))


def shard(model: nn.Module, settings: Mapping[str, Any]) -> None:
    """Take this process's part of every weight, of any shape, to its device, one after the other.

    DeepSpeed would take the model there whole. What it was loaded from stays a file's memory,
    which nobody holds, as long as nobody writes to it: so weights are copied first.
    """
    import deepspeed

    sharding = deepspeed.zero.Init(config_dict_or_path=dict(settings))
    half = settings["bf16"]["enabled"]
    for parameter in model.parameters():
        dtype = torch.bfloat16 if half and parameter.is_floating_point() else parameter.dtype
        parameter.data = parameter.data.to(dtype, copy=True)
        sharding._convert_to_zero_parameters([parameter])
    for buffer in model.buffers():
        buffer.data = buffer.data.to(sharding.local_device)


@contextmanager
def _gather(parameters: Sequence[nn.Parameter], *, written: bool = False) -> Iterator[None]:
    """Make some parameters, of any shapes, whole on every process, to be read or to be written.

    What the first process writes into them stays.
    """
    import deepspeed

    with deepspeed.zero.GatheredParameters(parameters, modifier_rank=0 if written else None):
        for parameter in parameters:
            getattr(parameter, "ds_active_sub_modules").clear()  # noqa: B009
        yield


def shards_weights(config: RunConfig) -> bool:
    """Whether a run's processes have a part of the weights each."""
    if config.trainer.backend == "local" or config.trainer.deepspeed is None:
        return False
    settings = read_settings(config.trainer.deepspeed, config)
    return bool(settings["zero_optimization"]["stage"] == 3)


def read_settings(path: Path, config: RunConfig) -> dict[str, Any]:
    """DeepSpeed's JSON with what follows from the run put in; a mistake raises ConfigError."""
    if not path.is_file():
        raise ConfigError(f"trainer.deepspeed: no file {path}")
    try:
        settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path}: not JSON ({error})") from None
    taken = sorted(set(settings) & set(OURS))
    if taken:
        raise ConfigError(f"{path}: take '{taken[0]}' out, it follows from the run's configuration")
    stage = settings.get("zero_optimization", {}).get("stage")
    if stage not in (1, 2, 3):
        raise ConfigError(f"{path}: zero_optimization.stage must be 1, 2 or 3, it is {stage}")
    half = config.model.dtype == "bfloat16"
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": config.optimizer.max_grad_norm,
        "bf16": {"enabled": half, "check_grad_overflow": True},
        # Gradients of micro-batches are added up in the model's type otherwise.
        "data_types": {"grad_accum_dtype": "fp32"},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 1 << 40,
        **settings,
    }


def _optimizer(
    named: Mapping[str, nn.Parameter], config: OptimizerConfig, settings: Mapping[str, Any]
) -> Any:
    """AdamW; DeepSpeed's own where the optimiser's state is in host memory or on a disk."""
    groups = parameter_groups(named.values(), config)
    if "offload_optimizer" in settings["zero_optimization"]:
        from deepspeed.ops.adam import DeepSpeedCPUAdam

        return DeepSpeedCPUAdam(groups, lr=config.learning_rate, betas=config.betas)
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas)


def _require() -> None:
    if importlib.util.find_spec("deepspeed") is None:
        raise UserError(
            "trainer.backend=deepspeed needs deepspeed: pip install 'mmrl[deepspeed]', or set "
            "trainer.backend=local"
        )
