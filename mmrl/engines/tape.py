"""A decoding step, recorded once and done again without the model's Python.

A step of few rows is so little arithmetic that most of its time goes into saying what to do. What a
step does to tensors does not depend on what is in them: so the calls of one are written down, as
they arrive at torch, and the next steps of as many rows make the same calls. No formula of a model
is known here. What looks into tensors while it runs (`Unfit`) cannot be recorded, and is run as it
is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from mmrl.engines.decoding import Decoding
from mmrl.policy.attention import asking

LOOKS = {
    getattr(Tensor, name)
    for name in ("item", "tolist", "numpy", "__bool__", "__int__", "__float__", "__index__")
}
"""What takes numbers out of tensors, behind torch's dispatcher's back."""
DEPENDENT = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
PLAIN = (int, bool, str, type(None))
DIRECT: dict[Any, Callable[..., Any]] = {
    getattr(getattr(torch.ops.aten, name), overload): getattr(Tensor, name)
    for name, overload in (
        ("add", "Tensor"),
        ("expand", "default"),
        ("mean", "dim"),
        ("mul", "Tensor"),
        ("neg", "default"),
        ("pow", "Tensor_Scalar"),
        ("reshape", "default"),
        ("rsqrt", "default"),
        ("select", "int"),
        ("transpose", "int"),
        ("unsqueeze", "default"),
        ("view", "default"),
    )
} | {torch.ops.aten.cat.default: torch.cat}
"""Calls that are many, and cost half as much by the method of their name, with their arguments."""


class Unfit(Exception):
    """A step whose calls depend on what is in its tensors."""


Step = Callable[..., Tensor]

SETTLED = 3
"""Steps of as many rows before one is recorded: recording costs about two steps."""


class Steps:
    """Decoding steps of some rows: as they are at first, then from a recording.

    Who hooks into the model wants to see every step: then there is none.
    """

    def __init__(
        self, step: Step, decoding: Decoding, recordable: Recordable, model: nn.Module
    ) -> None:
        self._step, self._decoding, self._recordable = step, decoding, recordable
        self._hooked = hooked(model) or not torch.is_inference_mode_enabled()
        self._rows = self._made = 0
        self._again: Step | None = None

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Make a step; inputs [..., S] have as many rows each."""
        rows = inputs[0].shape[-1]
        if rows != self._rows:
            self._rows, self._made, self._again = rows, 0, None
        self._made += 1
        if self._again is not None:
            return self._checked(*inputs) if self._recordable.unchecked else self._again(*inputs)
        if self._made < SETTLED or self._recordable.refused or self._hooked:
            return self._step(*inputs)
        before = self._decoding.memories()
        try:
            out, self._again = record(self._step, inputs)
        except Unfit:
            self._recordable.refused = True
            self._decoding.remember(before)
            return self._step(*inputs)
        return out

    def _checked(self, *inputs: Tensor) -> Tensor:
        """Make a step both ways, once in a model's life."""
        assert self._again is not None
        before = self._decoding.memories()
        found = self._again(*inputs)
        self._decoding.remember(before)
        out = self._step(*inputs)
        self._recordable.unchecked = False
        if not torch.equal(found, out):
            self._recordable.refused, self._again = True, None
        return out


def hooked(model: nn.Module) -> bool:
    """Whether anybody hooks into a model's modules; the library's own only collect outputs."""
    hooks = (
        hook
        for module in model.modules()
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    )
    return not all(str(getattr(h, "__module__", "")).startswith("transformers.") for h in hooks)


@dataclass
class Recordable:
    """Whether a model's steps can be recorded: not checked yet, or refused."""

    unchecked: bool = True
    refused: bool = False


def record(step: Step, inputs: Sequence[Tensor]) -> tuple[Tensor, Step]:
    """Do a step and return what it gives, [...], with what does it again for inputs of the shapes.

    Attention and recurrence are asked anew each time. Raises Unfit.
    """
    tape = _Tape(inputs)
    with tape, _Looking(), asking(tape.ask):
        out = step(*inputs)
    return out, tape.written(out)


class _Looking(TorchFunctionMode):
    """Refuses what takes numbers out of tensors."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in LOOKS:
            raise Unfit(func.__name__)
        return func(*args, **(kwargs or {}))


@dataclass
class _Line:
    """A call that every step makes: what names its result, and which results it takes."""

    name: str
    call: str
    used: list[str]


class _Tape(TorchDispatchMode):
    """Writes calls down as lines of a function; tensors that are no result of one are constants.

    What follows from constants alone is one too, a call that was made before is not made again, and
    one that gives what it is given is left out. What is shared so must not be written to.
    """

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._inputs = [f"a{i}" for i in range(len(inputs))]
        self._names = {id(x): name for x, name in zip(inputs, self._inputs, strict=True)}
        self._held: list[Any] = list(inputs)  # an id is a tensor's for as long as it lives
        self._constants: dict[int, str] = {}
        self._known: dict[str, Any] = {}
        self._lines: list[_Line] = []
        self._made: dict[str, Any] = {}
        self._shared: set[int] = set()
        self._paused = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if self._paused:
            return func(*args, **kwargs)
        if DEPENDENT & set(func.tags) and not _by_numbers(func, args):
            raise Unfit(str(func))
        call, used = self._call(func, args, kwargs)
        if func._schema.is_mutable:
            self._writes(func, args, kwargs)
        elif call in self._made:
            self._share(self._made[call])
            return self._made[call]
        made = func(*args, **kwargs)
        pure = not func._schema.is_mutable and torch.Tag.nondeterministic_seeded not in func.tags
        if pure:
            self._made[call] = made
        if pure and not used and any(isinstance(x, Tensor) for x in tree_flatten(args)[0]):
            self._held.append(made)
        elif not (pure and any(made is each for each in args)):
            self._note(call, used, made)
        return made

    def ask(self, layout: Callable[..., Tensor], *args: Any) -> Tensor:
        """Let a layout do its part, which is one call: it knows how far decoding has come."""
        call, used = self._call(layout, args, {})
        self._paused = True
        try:
            made = layout(*args)
        finally:
            self._paused = False
        self._note(call, used, made)
        return made

    def written(self, out: Tensor) -> Step:
        """The function that makes the calls again; values are let go of after their last use."""
        if id(out) not in self._names:
            raise Unfit("nothing of a step is recorded")
        result = self._names[id(out)]
        last = {name: i for i, line in enumerate(self._lines) for name in line.used}
        text = [f"def again({', '.join(self._inputs)}):"]
        for i, line in enumerate(self._lines):
            text.append(f"    {line.name} = {line.call}")
            gone = {u for u in (*line.used, line.name) if last.get(u, i) == i}
            gone -= {result, *self._inputs}
            if gone:
                text.append(f"    del {', '.join(sorted(gone))}")
        text.append(f"    return {result}")
        space = dict(self._known)
        exec("\n".join(text), space)  # as torch.fx makes functions of its graphs
        again: Step = space["again"]
        return again

    def _writes(self, func: Any, args: Any, kwargs: Any) -> None:
        """Raise Unfit where what is written to is shared, or would be there in the next step."""
        for place, argument in enumerate(func._schema.arguments):
            if argument.alias_info is None or not argument.alias_info.is_write:
                continue
            value = args[place] if place < len(args) else kwargs.get(argument.name)
            for each in tree_flatten(value)[0]:
                if isinstance(each, Tensor) and _storage(each) in self._shared:
                    raise Unfit(str(func))
        self._made.clear()

    def _share(self, made: Any) -> None:
        for each in tree_flatten(made)[0]:
            if isinstance(each, Tensor):
                self._shared.add(_storage(each))

    def _call(self, func: Any, args: Any, kwargs: Any) -> tuple[str, list[str]]:
        used: list[str] = []
        shown = [self._shown(value, used) for value in args]
        shown += [f"{key}={self._shown(value, used)}" for key, value in kwargs.items()]
        name = self._constant(DIRECT.get(func) or getattr(func, "_op", func))
        return f"{name}({', '.join(shown)})", used

    def _note(self, call: str, used: list[str], made: Any) -> None:
        name = f"v{len(self._lines)}"
        self._lines.append(_Line(name, call, used))
        if isinstance(made, Tensor):
            self._hold(made, name)
            return
        for place, each in enumerate(tree_flatten(made)[0]):
            if isinstance(each, Tensor):
                part = f"v{len(self._lines)}"
                self._lines.append(_Line(part, f"{name}[{place}]", [name]))
                self._hold(each, part)

    def _hold(self, tensor: Tensor, name: str) -> None:
        self._names[id(tensor)] = name
        self._held.append(tensor)

    def _shown(self, value: Any, used: list[str]) -> str:
        """A value in the text of a call."""
        if isinstance(value, Tensor):
            if id(value) in self._names:
                used.append(self._names[id(value)])
                return used[-1]
            self._share(value)
        if isinstance(value, list | tuple):
            inside = "".join(f"{self._shown(each, used)}, " for each in value)
            return f"[{inside}]" if isinstance(value, list) else f"({inside})"
        if type(value) in PLAIN or (isinstance(value, float) and math.isfinite(value)):
            return repr(value)
        return self._constant(value)

    def _constant(self, value: Any) -> str:
        name = self._constants.setdefault(id(value), f"c{len(self._known)}")
        self._known[name] = value
        return name


def _storage(tensor: Tensor) -> int:
    """What tensors that share memory have in common; a packed weight shares none."""
    return id(tensor) if tensor.is_mkldnn else tensor.untyped_storage()._cdata


def _by_numbers(func: Any, args: tuple[Any, ...]) -> bool:
    """Whether it only picks by numbers, which always gives as many."""
    if func is not torch.ops.aten.index.Tensor:
        return False
    return all(index is None or index.dtype in (torch.int32, torch.int64) for index in args[1])
