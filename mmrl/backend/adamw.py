"""AdamW in float32, whatever weights and moments are held in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from mmrl.backend.masters import Master, pieces, round_at_random
from mmrl.config import OptimizerConfig

MASTER = "master"
"""Key of the float32 values of weights that a model holds in 16 bits."""

MOMENTS = ("exp_avg", "exp_avg_sq")


class AdamW(torch.optim.AdamW):
    """torch's fused AdamW, which reads and writes bfloat16 weights and moments in pieces.

    Weights in bfloat16 have masters. `optimizer.moments=bfloat16` rounds moments at random. In a
    model of `half` precision the float32 value of every parameter is part of its tensors: adapters
    that are float32 here are bfloat16 where DeepSpeed takes them up.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        config: OptimizerConfig,
        half: bool,
        factors: Mapping[nn.Parameter, float] | None = None,
    ) -> None:
        groups = parameter_groups(parameters, config, factors)
        super().__init__(groups, lr=config.learning_rate, betas=config.betas, fused=True)
        self._half = half
        held = [p for group in self.param_groups for p in group["params"]]
        self.masters = {p: Master(p) for p in held if p.dtype == torch.bfloat16}
        self._rounded = config.moments == "bfloat16"

    def move(self, gradients: MutableMapping[nn.Parameter, Tensor], rate: float, draw: int) -> None:
        """Make a step with every parameter's gradient, of its shape, and let go of it.

        `rate` is the learning rate; `draw` seeds the rounding.
        """
        noise: torch.Generator | None = None
        for group in self.param_groups:
            group["lr"] = rate * group["factor"]
            for parameter in group["params"]:
                gradient = gradients.pop(parameter)
                if not self._rounded and parameter not in self.masters:
                    parameter.grad = gradient  # `step` moves it
                    continue
                parameter.grad = None
                if self._rounded and noise is None:
                    noise = torch.Generator(parameter.device).manual_seed(draw)
                self._move(parameter, gradient, group, noise)
        self.step()
        self.zero_grad()

    @torch.no_grad()
    def _move(
        self,
        parameter: nn.Parameter,
        gradient: Tensor,
        group: dict[str, Any],
        noise: torch.Generator | None,
    ) -> None:
        state = self.state[parameter]
        if not state:
            kept = self._kept(parameter)
            state["step"] = torch.zeros((), device=parameter.device)
            state |= {key: torch.zeros_like(parameter, dtype=kept) for key in MOMENTS}
        master = self.masters.get(parameter)
        for piece in pieces(parameter.shape):
            value = master.read(piece) if master else parameter[piece]
            # A copy where they are held in less.
            moments = {key: state[key][piece].to(gradient.dtype) for key in MOMENTS}
            adamw(
                [value],
                [gradient[piece]],
                [moments["exp_avg"]],
                [moments["exp_avg_sq"]],
                [],
                [state["step"].clone()],
                fused=True,
                amsgrad=False,
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                lr=group["lr"],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                maximize=False,
            )
            if master:
                master.write(value, piece)
            if noise is not None:
                for key in MOMENTS:
                    state[key][piece] = round_at_random(moments[key].float(), noise)
        state["step"] += 1

    def tensors(self, parameter: nn.Parameter) -> Iterator[tuple[str, Tensor]]:
        """Name and value of everything that a step of the parameter depends on, but the weight.

        Each has the parameter's shape; the count of steps is a scalar.
        """
        yield from self.state.get(parameter, {}).items()
        if parameter in self.masters:
            yield MASTER, self.masters[parameter].to_cpu()
        elif self._half:
            yield MASTER, parameter.detach()

    @torch.no_grad()
    def load(self, parameter: nn.Parameter, tensors: dict[str, Tensor]) -> None:
        """Take over `tensors`, shapes as there; the weight becomes its master's rounding.

        All of it lies where the parameter does, the count of steps too, as torch's kernel asks.
        """
        value = tensors.pop(MASTER, None)
        if parameter in self.masters:
            self.masters[parameter].load(parameter if value is None else value)
        elif value is not None:
            parameter.copy_(value)
        kept = {key: torch.float32 if key == "step" else self._kept(parameter) for key in tensors}
        self.state[parameter] = {
            key: value.to(parameter.device, kept[key], copy=True) for key, value in tensors.items()
        }

    def _kept(self, parameter: nn.Parameter) -> torch.dtype:
        """What the parameter's moments are held in."""
        if self._rounded:
            return torch.bfloat16
        return torch.float32 if parameter in self.masters else parameter.dtype


def parameter_groups(
    parameters: Iterable[nn.Parameter],
    config: OptimizerConfig,
    factors: Mapping[nn.Parameter, float] | None = None,
) -> list[dict[str, Any]]:
    """The optimiser's groups: matrices decay, vectors (biases, norms) do not.

    `factors` are those of the learning rate, where it is not 1.
    """
    known, given = list(parameters), factors or {}
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for matrices in (True, False):
        for p in known:
            if (p.ndim > 1) is matrices:
                groups.setdefault((matrices, given.get(p, 1.0)), []).append(p)
    return [
        {"params": held, "weight_decay": config.weight_decay * decays, "factor": factor}
        for (decays, factor), held in groups.items()
    ]
