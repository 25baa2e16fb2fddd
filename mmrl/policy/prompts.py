"""Prompts that run once, whatever goes on from them, and the way back through them.

What responses need of a prompt are its keys and values in every layer, what recurrent layers end
with, and the hidden state behind its last token. Where gradients are taken these are leaves: every
pass over responses leaves its part there, and `back` sends the sums through the prompts together.
So a prompt is run once for all the micro-batches of its group, tower included, both ways.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mmrl.policy.attention import active_layout
from mmrl.policy.recurrent import Memory, Mixer
from mmrl.policy.shared_prefix import SharedPrefix
from mmrl.policy.tiles import Run

SendBack = Callable[[Sequence[Tensor], Sequence[Tensor]], None]
"""Takes tensors and the gradients that flow into them, and carries these on to the weights."""


class Prompts:
    """The layout of prompts that run together; afterwards, what goes on from them.

    `keys` and `values` [N, K, D] by layer are those of all N tokens of the prompts, `memories` by
    recurrent layer what it remembers of each, `last` [P, H] the hidden state behind each.
    """

    def __init__(self, rows: SharedPrefix) -> None:
        """The prompts of rows without responses."""
        assert not rows.responses, "responses go on from prompts"
        self.rows = rows
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}
        self.memories: dict[int, Memory] = {}
        self._ends: list[End] = []
        self._last: Tensor | None = None

    @property
    def runs(self) -> tuple[Run, ...]:
        """Where each prompt stands among the tokens of all."""
        return self.rows.prompts

    @property
    def num_tokens(self) -> int:
        """Tokens of all the prompts."""
        return len(self.rows.ids)

    @property
    def last(self) -> Tensor:
        """Hidden states [P, H] behind each prompt's last token."""
        assert self._last is not None, "prompts are run before anything goes on from them"
        return self._last

    def attend(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scale: float,
        window: int | None = None,
    ) -> Tensor:
        """Attend as rows do, and keep keys and values."""
        if layer not in self.keys:  # once: recomputation under checkpointing comes here again
            self.keys[layer], self.values[layer] = self._leaf(key), self._leaf(value)
        return self.rows.attend(layer, query, key, value, scale, window)

    def recur(self, layer: int, mixer: Mixer, hidden: Tensor) -> Tensor:
        """Recur as rows do, and keep what the prompts end with."""
        out, memory = self.rows.recurrence.run(mixer, hidden)
        if layer not in self.memories:
            self.memories[layer] = memory.mapped(self._leaf)
        return out

    def end(self, hidden: Tensor) -> None:
        """Take note of the hidden states [N, H] that the prompts' pass ends with."""
        places = [run.stop - 1 for run in self.runs]
        self._last = self._leaf(hidden[places])

    def back(self, send: SendBack) -> None:
        """Send what has flowed into the leaves on through the prompts; they are used up."""
        reached = [end for end in self._ends if end.gradient is not None]
        self._ends = []
        if reached:
            with active_layout(self):
                send([end.root for end in reached], [end.sum for end in reached])

    def _leaf(self, root: Tensor) -> Tensor:
        if not root.requires_grad:
            return root.detach()
        self._ends.append(End(root))
        return self._ends[-1].leaf


class End:
    """A tensor of the prompts' pass, the leaf that others read for it, and what flows into that.

    In 16 bits the parts of several passes are added up in float32.
    """

    def __init__(self, root: Tensor) -> None:
        self.root, self.leaf = root, root.detach().requires_grad_()
        self._sum: Tensor | None = None
        if root.dtype in (torch.float16, torch.bfloat16):
            self.leaf.register_post_accumulate_grad_hook(self._collect)

    @property
    def gradient(self) -> Tensor | None:
        """What has flowed into the leaf, [...] as it is; None where nothing has."""
        return self.leaf.grad if self._sum is None else self._sum

    @property
    def sum(self) -> Tensor:
        """What has flowed into the leaf, [...] as it is and in its own dtype."""
        found = self.gradient
        assert found is not None
        return found.to(self.root.dtype)

    def _collect(self, leaf: Tensor) -> None:
        assert leaf.grad is not None
        if self._sum is None:
            self._sum = leaf.grad.float()
        else:
            self._sum += leaf.grad
        leaf.grad = None
