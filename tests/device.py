"""A device that is not the CPU, for machines without one: its tensors do not mix with the CPU's.

What a GPU refuses is refused here: an operation on tensors of both sides (single numbers and
indices into the device's tensors excepted), and a device tensor read as an array. The numbers are
the CPU's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_iter, tree_map

DEVICE = torch.device("cuda", 0)
MOVES = (Tensor.to, Tensor.cpu, Tensor.cuda)
# Arguments that may be on the CPU: indices, and zeros of an index's backward pass, which torch
# makes by itself where it believes these tensors to be.
FREE = {
    "aten::index": (1,),
    "aten::index_put_": (1,),
    "aten::_index_put_impl_": (1,),
    "aten::index_put": (0, 1, 2),
}
# Made of operations inside torch, tensors of its own among them.
WHOLE = (torch._C._nn.one_hot, torch._C._nn.pad_sequence)


class Placed(Tensor):
    """A tensor on the device."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> Placed:
        assert not isinstance(inner, Placed)
        made: Placed = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
        )
        made.inner = inner
        return made

    device = property(lambda self: DEVICE)  # type: ignore[assignment]
    is_cuda = property(lambda self: True)  # type: ignore[assignment]

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"Placed({self.inner})"

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = func._schema.name
        for i, argument in enumerate(args):
            if i not in FREE.get(name, ()):
                _refuse_cpu(argument, name)
        _refuse_cpu(kwargs or {}, name)
        inner_args, inner_kwargs = tree_map(_inner, (args, kwargs or {}))
        out = func(*inner_args, **inner_kwargs)
        if name.endswith("_") and not name.endswith("__"):
            return args[0]
        return tree_map(_placed, out)


def _refuse_cpu(values: Any, name: str) -> None:
    for value in tree_iter(values):
        if isinstance(value, Tensor) and not isinstance(value, Placed) and value.ndim:
            raise RuntimeError(f"{name}: expected all tensors to be on the same device")


def _inner(value: Any) -> Any:
    return value.inner if isinstance(value, Placed) else value


def _placed(value: Any) -> Any:
    return Placed(value) if isinstance(value, Tensor) and not isinstance(value, Placed) else value


class _Moves(TorchFunctionMode):
    """What makes tensors on the device, takes them there and back."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in MOVES:
            return _move(func, *args, **kwargs)
        if func is Tensor.numpy and isinstance(args[0], Placed):
            raise TypeError("can't convert a device tensor to numpy: copy it to the host first")
        if func is Tensor.tolist and isinstance(args[0], Placed):
            return args[0].inner.tolist()
        if func in WHOLE:
            _refuse_cpu(args, func.__name__)
            assert not any(x.requires_grad for x in tree_iter(args) if isinstance(x, Tensor))
            return _placed(func(*tree_map(_inner, args), **kwargs))
        if func is torch.tensor:  # it may be made of single numbers on the device
            args = tree_map(lambda v: v.item() if isinstance(v, Placed) else v, args)
        device = kwargs.get("device")
        if device is not None and torch.device(device).type == DEVICE.type:
            return tree_map(_placed, func(*args, **{**kwargs, "device": "cpu"}))
        return func(*args, **kwargs)


def _move(func: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    kwargs.pop("copy", None)
    target: torch.device | None = None
    if func is Tensor.cuda or (func is Tensor.to and args and isinstance(args[0], Placed)):
        target = DEVICE
        args = (args[0].dtype,) if args else ()
    elif func is Tensor.cpu or (args and isinstance(args[0], Tensor) and not args[1:]):
        target = torch.device("cpu")
        args = (args[0].dtype,) if args else ()
    elif args or kwargs:
        target, dtype, *_ = torch._C._nn._parse_to(*args, **kwargs)
        args = () if dtype is None else (dtype,)
    if args:
        tensor = tensor.to(*args) if isinstance(tensor, Placed) else Tensor.type(tensor, args[0])
    if target is None or (target.type == DEVICE.type) == isinstance(tensor, Placed):
        return tensor
    if isinstance(tensor, Placed):
        return tensor.detach().inner.clone()
    assert not tensor.requires_grad, "a move with a gradient is not emulated"
    return Placed(tensor.clone())


@contextmanager
def emulated() -> Iterator[None]:
    """Let `DEVICE` be there until the block ends; generators of its are the CPU's."""
    generator = torch.Generator
    torch.Generator = lambda device="cpu": generator()  # type: ignore[assignment, misc]
    try:
        with _Moves():
            yield
    finally:
        torch.Generator = generator  # type: ignore[misc]


def place(module: nn.Module) -> None:
    """Move a module's parameters and buffers to the device; what is tied stays so."""
    known: dict[int, nn.Parameter] = {}
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                made = nn.Parameter(Placed(parameter.detach()), parameter.requires_grad)
                part._parameters[name] = known.setdefault(id(parameter), made)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = Placed(buffer)
