"""The LM head and what the model does to its output: soft caps, scales, casts, cut vocabularies.

The model's own forward is watched: every pass notes what is done to the head's output on the way
to its logits, and the same is done to the output for chosen hidden states. No formula of any model
is written down here, and a forward that cannot be followed so is refused when it is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.weak import WeakIdKeyDictionary

from mmrl.errors import UserError, one_line

REFUSED = (
    "what it does to its logits after the LM head cannot be done again a chunk at a time: train "
    "another model, or give this one a forward whose logits are made from its head's output"
)


@dataclass(frozen=True)
class Place:
    """Stands for a value of the tape among the arguments of a call."""

    number: int


@dataclass
class Tape:
    """Calls that lead from the head's output, which is value 0, to the model's logits."""

    calls: list[tuple[Callable[..., Any], Any, Any, list[Place]]] = field(default_factory=list)
    values: int = 1
    logits: int = 0
    vocabulary: int = 0

    def run(self, output: Tensor) -> Tensor:
        """Do to [1, M, V] what the model's forward did to its own head's output."""
        known: dict[int, Any] = {0: output}

        def actual(value: Any) -> Any:
            return known[value.number] if isinstance(value, Place) else value

        for function, args, kwargs, places in self.calls:
            made = function(*tree_map(actual, args), **tree_map(actual, kwargs))
            leaves = [leaf for leaf in tree_flatten(made)[0] if isinstance(leaf, Tensor)]
            known |= {p.number: leaf for p, leaf in zip(places, leaves, strict=True)}
        logits: Tensor = known[self.logits]
        return logits


class Follower(TorchFunctionMode):
    """While it is entered, notes what is done to the head's output and to what comes of it.

    Any kind of tensor is followed: none is wrapped, each is known for as long as it lives.
    """

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.tape = Tape(values=0)
        self._places: MutableMapping[Tensor, Place] = WeakIdKeyDictionary()
        self._follow(output)

    def place(self, value: object) -> Place | None:
        """Where a value stands on the tape; None for one that does not come of the output."""
        return self._places.get(value) if isinstance(value, Tensor) else None

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        # Looked up first: a call may change its arguments in place and hand them back.
        before = tree_map(lambda x: self.place(x) or x, (args, kwargs))
        made = func(*args, **kwargs)
        if any(isinstance(x, Place) for x in tree_flatten(before)[0]):
            leaves = tree_flatten(made)[0]
            if made is None or any(isinstance(leaf, Tensor) for leaf in leaves):
                places = [self._follow(leaf) for leaf in leaves if isinstance(leaf, Tensor)]
                self.tape.calls.append((func, *before, places))
        return made

    def hand_on(self, places: Sequence[Place | None], values: Sequence[object]) -> None:
        """Let values stand where those stood that became them behind the follower's back."""
        for place, value in zip(places, values, strict=True):
            if place is not None and isinstance(value, Tensor):
                self._places[value] = place

    def _follow(self, value: Tensor) -> Place:
        """The value's place, a new one unless it has one already."""
        if value not in self._places:
            self._places[value] = Place(self.tape.values)
            self.tape.values += 1
        return self._places[value]


class HeadTap:
    """Takes the hidden states in front of a model's LM head, and spares it the work.

    Works for every family: the outer model is called as usual, its head gets zero rows. Calling
    the tap with hidden states gives the model's logits for them, as the last pass made logits. The
    head runs with its hooks, so sharding still gathers; what the hooks of modules around it do to
    their outputs is not the model's.
    """

    def __init__(self, model: nn.Module) -> None:
        self._head = lm_head(model)
        self._around = [m for m in model.modules() if self._head in _inside(m) and m is not model]
        self._left: list[Place | None] = []
        self._tape: Tape | None = None
        self._follower: Follower | None = None
        self._following = ExitStack()  # left when the model is done with its logits
        self._taken: Tensor | None = None
        self._shown: Tensor | None = None
        self._showing = False

    def __call__(self, hidden: Tensor) -> Tensor:
        """The model's logits [M, V] for hidden states [M, H]."""
        return self.finish(self.output(hidden))

    def output(self, hidden: Tensor) -> Tensor:
        """Run the LM head alone: hidden [M, H] -> [M, rows of the head]."""
        output: Tensor = self._head(hidden)
        return output

    def finish(self, output: Tensor) -> Tensor:
        """Make logits [M, V] of the head's output, as the model's last forward did."""
        assert self._tape is not None, "logits need a forward that says how they are made"
        return self._tape.run(output[None])[0] if self._tape.calls else output

    @property
    def vocabulary(self) -> int | None:
        """Ids that the model's logits are of; None before its first forward."""
        return None if self._tape is None else self._tape.vocabulary

    def take(self, model: nn.Module, **inputs: Any) -> Tensor:
        """Hidden states [B, N, H] in front of the head, of one forward of the model."""
        self._taken = None
        # In front of other hooks where values come in and go out, so that what they do to
        # the way back is not taken for the model's; behind them where values are followed.
        hooks = [
            self._head.register_forward_pre_hook(self._divert, prepend=True),
            self._head.register_forward_hook(self._begin),
            model.register_forward_hook(self._end, prepend=True),
            *(m.register_forward_hook(self._pause, prepend=True) for m in self._around),
            *(m.register_forward_hook(self._go_on) for m in self._around),
        ]
        try:
            model(**inputs)
        finally:
            self._leave()
            for hook in hooks:
                hook.remove()
        assert self._taken is not None
        return self._taken

    def check(self, model: nn.Module, forward: Callable[[], object]) -> None:
        """Raise UserError unless the tap's logits are those of the model, in one `forward`.

        It runs twice: as in training, and with the head at work on every token.
        """
        name = type(model).__name__
        try:
            forward()
            self._showing = True
            forward()
            assert self._taken is not None and self._shown is not None
            # Some tokens in another order: training picks from many, and each must be by itself.
            own = self._shown.flatten(0, -2)[::2].flip(0)
            found = self(self._taken.flatten(0, -2)[::2].flip(0))
        except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError) as error:
            raise UserError(f"{name}: a first forward fails: {one_line(error)}") from error
        finally:
            self._showing, self._shown = False, None
        if not same(found, own):
            raise UserError(f"{name}: {REFUSED}")

    def _divert(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        self._taken = args[0]
        return None if self._showing else (args[0][:, :0], *args[1:])

    def _begin(self, module: nn.Module, args: Any, output: Tensor) -> None:
        if not self._showing:
            self._follower = self._following.enter_context(Follower(output))

    def _pause(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._follower is not None:
            self._following.close()
            self._left = [self._follower.place(leaf) for leaf in tree_flatten(output)[0]]

    def _go_on(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._follower is not None:
            self._follower.hand_on(self._left, tree_flatten(output)[0])
            self._following.enter_context(self._follower)

    def _end(self, module: nn.Module, args: Any, output: Any) -> None:
        logits = getattr(output, "logits", None)
        if self._showing:
            self._shown = logits
            return
        follower = self._leave()
        place = follower.place(logits) if follower is not None else None
        if follower is None or place is None or logits is None:
            raise UserError(f"{type(module).__name__}: {REFUSED}")
        self._tape = follower.tape
        self._tape.logits, self._tape.vocabulary = place.number, logits.shape[-1]

    def _leave(self) -> Follower | None:
        """Stop following; what was followed by."""
        follower, self._follower = self._follower, None
        self._following.close()
        return follower


def _inside(module: nn.Module) -> Iterator[nn.Module]:
    """The modules inside one, without itself."""
    return (inner for inner in module.modules() if inner is not module)


def same(found: Tensor, own: Tensor) -> bool:
    """Whether logits of any shape agree but for the rounding of another order of sums."""
    if found.shape != own.shape or found.dtype != own.dtype:
        return False
    tolerance = max(4 * torch.finfo(own.dtype).eps, 1e-4)
    found, own = found.float(), own.float()
    size = float(own.nan_to_num(0.0, 0.0, 0.0).abs().median())
    return torch.allclose(found, own, tolerance, tolerance * size, equal_nan=True)


def lm_head(model: nn.Module) -> nn.Module:
    """The module that makes logits of hidden states: the model's, or that of a model inside."""
    for module in model.modules():
        named = getattr(module, "get_output_embeddings", None)
        head = None if named is None else named()
        if isinstance(head, nn.Module):
            return head
    raise UserError(f"{type(model).__name__} names no LM head (get_output_embeddings)")
