"""float32 linears on CPUs by oneDNN, on processors where torch's own are slow.

torch gives products of float32 to MKL, which runs at half its speed on AMD's processors; oneDNN, in
the same build of torch, does not. Which library it is follows from the processor alone, never from
a measurement: the same machine gives the same numbers.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

KEPT_PRODUCTS = 128
"""Shapes whose compiled products oneDNN and torch's bridge to it keep. By default it is 1,024 each:
with ragged lengths a MiB more a step, for a thousand steps, which looks like a leak."""
for _cache in ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"):
    os.environ.setdefault(_cache, str(KEPT_PRODUCTS))  # read at the first product

PACKED_ROWS = 128
"""As many rows at most are multiplied with packed weights while a model decodes: with more, packing
gains nothing. It is also what weights are packed for, whatever comes first: so the same numbers
come out after a resume."""

CPUINFO = Path("/proc/cpuinfo")


@functools.cache
def onednn_is_faster() -> bool:
    """True on AMD's processors, where this build of torch has both libraries."""
    has_both = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    return has_both and _has_operators() and "AuthenticAMD" in _processor()


def exchange(model: nn.Module) -> int:
    """Let oneDNN make the products of a model's float32 linears; returns how many it has.

    Convolutions over one patch each are linears, and much faster as such.

    Modules stay what and where they are, so adapters, copies and checkpoints do not know of it.
    Linears of a class of their own (packed ones of a quantised base) stay as they are.
    """
    exchanged = 0
    for module in model.modules():
        if type(module) is nn.Linear and _is_float32_on_cpu(module.weight):
            module.__class__ = OneDNNLinear
            exchanged += 1
        elif type(module) in PATCHES and _is_float32_on_cpu(module.get_parameter("weight")):
            module.__class__ = PATCHES[type(module)]
    return exchanged


def uses_onednn(model: nn.Module) -> bool:
    """True if oneDNN makes products of a model's linears."""
    return any(isinstance(module, OneDNNLinear) for module in model.modules())


@contextmanager
def decoding(model: nn.Module) -> Iterator[None]:
    """Keep packed weights of those linears that multiply few rows, for as long as the block takes.

    Weights must not change in it, and no gradient is taken. Linears that are given the same rows
    make one product, whose columns they share; nobody may write into rows between them.
    """
    modules = [module for module in model.modules() if isinstance(module, OneDNNLinear)]
    packed = _Packed()
    for module in modules:
        module.packed = packed
    try:
        yield
    finally:
        for module in modules:
            module.packed = None


class OneDNNLinear(nn.Linear):
    """`nn.Linear` by oneDNN: rows [..., in] -> [..., out]."""

    packed: _Packed | None = None

    def forward(self, rows: Tensor) -> Tensor:
        """Multiply as `nn.Linear` does; in another dtype, or without rows, by torch's own."""
        if not rows.numel() or not (_is_float32_on_cpu(rows) and _is_float32_on_cpu(self.weight)):
            return super().forward(rows)
        flat = rows.reshape(-1, rows.shape[-1])
        if torch.is_grad_enabled():
            out: Tensor = _Product.apply(flat, self.weight, self.bias)
        elif self.packed is None or len(flat) > PACKED_ROWS:
            out = _product(flat, self.weight, self.bias)
        else:
            out = self.packed.product(self, rows, flat)
        return out.view(*rows.shape[:-1], -1)


class _Packed:
    """Packed weights of a model that decodes.

    Which linears are given the same rows is seen in a first pass, by weights as they are; the next
    one packs theirs side by side. It begins where a linear of the first is asked again.
    """

    def __init__(self) -> None:
        self._seen: dict[OneDNNLinear, Tensor] = {}
        self._joint: dict[OneDNNLinear, _Joint] = {}

    def product(self, linear: OneDNNLinear, rows: Tensor, flat: Tensor) -> Tensor:
        """What a linear makes of rows [..., in], which are [N, in] when `flat`: [N, out]."""
        if linear in self._seen:
            self._pack()
        if linear in self._joint:
            return self._joint[linear].part(linear, rows, flat)
        self._seen[linear] = rows
        return _product(flat, linear.weight, linear.bias)

    def _pack(self) -> None:
        groups: dict[tuple[int, bool], list[OneDNNLinear]] = {}
        for linear, rows in self._seen.items():
            groups.setdefault((id(rows), linear.bias is None), []).append(linear)
        for group in groups.values():
            self._joint |= dict.fromkeys(group, _Joint(group))
        self._seen = {}


class _Joint:
    """Linears side by side, as one with packed weights."""

    def __init__(self, linears: Sequence[OneDNNLinear]) -> None:
        weights = [x.weight.detach() for x in linears]
        biases = [x.bias.detach() for x in linears if x.bias is not None]
        weight = torch.cat(weights) if len(weights) > 1 else weights[0]
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, PACKED_ROWS)
        self._bias = torch.cat(biases) if biases else None
        self._linears, self._sizes = linears, [len(weight) for weight in weights]
        self._rows: Tensor | None = None
        self._parts: dict[OneDNNLinear, Tensor] = {}

    def part(self, linear: OneDNNLinear, rows: Tensor, flat: Tensor) -> Tensor:
        """A linear's columns of the product; it is made when the first of them is asked for."""
        if len(self._linears) == 1:
            return _product(flat, self._weight, self._bias)
        if rows is not self._rows or linear not in self._parts:
            out = _product(flat, self._weight, self._bias)
            parts = out.split(self._sizes, dim=-1)
            self._rows, self._parts = rows, dict(zip(self._linears, parts, strict=True))
        part = self._parts.pop(linear)
        if not self._parts:
            self._rows = None
        return part


class OnePatch(nn.modules.conv._ConvNd):
    """Mixed into a convolution: where its kernel covers the whole input, that is one product."""

    def forward(self, patches: Tensor) -> Tensor:
        """Convolve [N, channels, ...]; as the class does where a kernel covers less than all."""
        whole = tuple(patches.shape[2:]) == tuple(self.kernel_size) and self.groups == 1
        plain = whole and self.padding_mode == "zeros" and not any(_numbers(self.padding))
        if not plain or not _is_float32_on_cpu(patches):
            own: Tensor = super().forward(patches)
            return own
        rows, weight = patches.flatten(1), self.weight.flatten(1)
        if torch.is_grad_enabled():
            out: Tensor = _Product.apply(rows, weight, self.bias)
        else:
            out = _product(rows, weight, self.bias)
        return out[(..., *[None] * len(self.kernel_size))]


class OnePatch2d(OnePatch, nn.Conv2d):
    """`nn.Conv2d` over patches, by oneDNN."""


class OnePatch3d(OnePatch, nn.Conv3d):
    """`nn.Conv3d` over patches, by oneDNN."""


PATCHES: dict[type[nn.Module], type[nn.Module]] = {nn.Conv2d: OnePatch2d, nn.Conv3d: OnePatch3d}


def _numbers(padding: str | tuple[int, ...]) -> tuple[int, ...]:
    """Padding in numbers: none where it is said to be so, else what is."""
    return ((0,) if padding == "valid" else (1,)) if isinstance(padding, str) else padding


class _Product(torch.autograd.Function):
    """rows [N, in], weight [out, in], bias [out] or None -> [N, out], and their gradients."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(rows, weight)
        return _product(rows, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight = ctx.saved_tensors
        wants_rows, wants_weight, wants_bias = ctx.needs_input_grad
        return (
            _product(grad, weight.t(), None) if wants_rows else None,
            _weight_gradient(grad, rows) if wants_weight else None,
            grad.sum(0) if wants_bias else None,
        )


def _weight_gradient(grad: Tensor, rows: Tensor) -> Tensor:
    """grad [N, out] by rows [N, in] -> [out, in]; the smaller of the two is copied, transposed."""
    if grad.shape[1] > rows.shape[1]:
        return _product(rows.t(), grad.t(), None).t()
    return _product(grad.t(), rows.t(), None)


def _product(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    out: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    return out


def _is_float32_on_cpu(tensor: Tensor) -> bool:
    return tensor.dtype == torch.float32 and tensor.device.type == "cpu"


def _has_operators() -> bool:
    """They are torch's own business, and may be gone in its next version."""
    names = ("_linear_pointwise", "_reorder_linear_weight")
    return all(hasattr(torch.ops.mkldnn, name) for name in names)


def _processor() -> str:
    """What Linux says of the processors; nothing where it is another system."""
    return CPUINFO.read_text(errors="replace") if CPUINFO.is_file() else ""
