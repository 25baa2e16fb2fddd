"""Rows that share their prompt: one prompt, then all of its responses, each seeing only itself.

    flat tokens   [prompt p][response 1][response 2]...[prompt q][response 1]...
    positions     a response continues its prompt's positions, as if it were alone with it
    sees          what came before it among prompt and own tokens; in a layer with a sliding
                  window, the last of those; within a block of the prompt, what comes after too

The prompt, its media and its keys are computed once for the whole group. The last response token
is never fed: nothing is predicted from it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmrl.policy.attention import sdpa
from mmrl.types import Ints, Prompt


@dataclass(frozen=True)
class SharedRow:
    """A prompt with the token ids [T] of the responses that share it."""

    prompt: Prompt
    responses: tuple[Ints, ...]

    @property
    def num_tokens(self) -> int:
        """Tokens this row feeds through the trunk."""
        return len(self.prompt.ids) + sum(max(len(r) - 1, 0) for r in self.responses)


@dataclass(frozen=True)
class SharedPrefix:
    """The flat form of some rows, and who sees whom in it.

    `ids` [N], `positions` [axes, N]. `predictors` [M] is the flat index that predicts each
    response token, in row order; `targets` [M] the token it predicts. `prompts` [P, L] and
    `responses` [S, R] hold flat indices, padded with 0; `lengths` [P] are the prompts' own;
    `owner` [S] is a response's prompt; `mask` [S, 1, R, L + R] what a response token sees;
    `inverse` [N] where a flat token stands among the padded outputs. `blocks` [P, L] numbers the
    tokens that see each other both ways, 0 for none; no prompt has any where it is None. `sizes`
    [S] are the responses' lengths.
    """

    ids: Tensor
    positions: Tensor
    predictors: Tensor
    targets: Tensor
    prompts: Tensor
    responses: Tensor
    owner: Tensor
    mask: Tensor
    inverse: Tensor
    lengths: Tensor
    sizes: Tensor
    blocks: Tensor | None = None
    blocks_slide_only: bool = False
    _masks: dict[int | None, tuple[Tensor | None, Tensor]] = field(default_factory=dict, init=False)

    def attend(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scale: float,
        window: int | None = None,
    ) -> Tensor:
        """Prompts attend to themselves; responses to their prompt and themselves."""
        prompt_mask, response_mask = self.masks(window)
        (prompt_q, own_q), (prompt_k, own_k), (prompt_v, own_v) = (
            self._padded(x) for x in (query, key, value)
        )
        outputs = [_flat(sdpa(prompt_q, prompt_k, prompt_v, scale, prompt_mask))]
        if self.responses.numel():
            keys = torch.cat([prompt_k.index_select(0, self.owner), own_k], dim=2)
            values = torch.cat([prompt_v.index_select(0, self.owner), own_v], dim=2)
            outputs.append(_flat(sdpa(own_q, keys, values, scale, response_mask)))
        return _unpad(torch.cat(outputs), self.inverse)

    def _padded(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        """[N, H, D] -> prompts [P, H, L, D] and responses [S, H, R, D]."""
        index = torch.cat([self.prompts.flatten(), self.responses.flatten()])
        padded = _pad(flat, index, self.inverse)
        parts = padded.split([self.prompts.numel(), self.responses.numel()])
        prompts, responses = (
            part.view(*shape, *flat.shape[1:]).transpose(1, 2)
            for part, shape in zip(parts, (self.prompts.shape, self.responses.shape), strict=True)
        )
        return prompts, responses

    def masks(self, window: int | None) -> tuple[Tensor | None, Tensor]:
        """What prompts see [P, 1, L, L] (None: causal) and responses see, in one kind of layer."""
        longest = self.prompts.shape[1] + self.responses.shape[1]
        if window is not None and window >= longest and not self.blocks_slide_only:
            window = None
        if window not in self._masks:
            prompt = self._prompt_mask(window)
            response = self.mask if window is None else self.mask & self._near(window)
            self._masks[window] = prompt, response
        return self._masks[window]

    def _prompt_mask(self, window: int | None) -> Tensor | None:
        blocks = None if self.blocks_slide_only and window is None else self.blocks
        if blocks is None and window is None:
            return None
        place = torch.arange(self.prompts.shape[1], device=self.prompts.device)
        distance = place[:, None] - place
        seen = (distance >= 0).expand(len(self.prompts), -1, -1)
        if blocks is not None:
            seen = seen | ((blocks[:, :, None] == blocks[:, None]) & (blocks[:, :, None] > 0))
        if window is not None:
            seen = seen & (distance < window)
        return seen[:, None]

    def _near(self, window: int) -> Tensor:
        """[S, 1, R, L + R]: keys at most `window` tokens back, counted in prompt and response."""
        own = torch.arange(self.responses.shape[1], device=self.prompts.device)
        place = torch.arange(self.prompts.shape[1], device=self.prompts.device)
        to_own = (own[:, None] - own).expand(len(self.owner), -1, -1)
        start = self.lengths[self.owner][:, None, None]
        distance = torch.cat([start + own[:, None] - place, to_own], dim=2)
        return (distance < window)[:, None]


class _Pad(torch.autograd.Function):
    """Flat tokens [N, ...] -> padded [B, ...]: their gradient is read back, not added up.

    Every flat token stands at one place among the padded, `inverse` [N]; what flows into padding
    is meaningless and dropped.
    """

    @staticmethod
    def forward(ctx: Any, flat: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        return flat.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (inverse,) = ctx.saved_tensors
        return grad.index_select(0, inverse), None, None


class _Unpad(torch.autograd.Function):
    """Padded [B, ...] -> flat tokens [N, ...]; padding gets gradient 0."""

    @staticmethod
    def forward(ctx: Any, padded: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        ctx.size = len(padded)
        return padded.index_select(0, inverse)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (inverse,) = ctx.saved_tensors
        padded = grad.new_zeros(ctx.size, *grad.shape[1:])
        return padded.index_copy_(0, inverse, grad), None


_pad: Callable[..., Tensor] = _Pad.apply
_unpad: Callable[..., Tensor] = _Unpad.apply


def _flat(padded: Tensor) -> Tensor:
    """[B, H, T, D] -> [B * T, H, D]."""
    return padded.transpose(1, 2).flatten(0, 1)


def lay_out(rows: Sequence[SharedRow], device: torch.device) -> SharedPrefix:
    """Flatten rows; index arithmetic happens in numpy, one transfer a tensor."""
    prompt_lengths = [len(row.prompt.ids) for row in rows]
    fed = [[max(len(r) - 1, 0) for r in row.responses] for row in rows]
    prompt_starts, response_starts = _starts(prompt_lengths, fed)
    flat_fed = [length for lengths in fed for length in lengths]
    owner = np.repeat(np.arange(len(rows)), [len(row.responses) for row in rows])

    prompts = _index(prompt_starts, prompt_lengths)
    responses = _index(response_starts, flat_fed)
    arrays = {
        "ids": np.concatenate([_row_ids(row) for row in rows]),
        "positions": np.concatenate([_row_positions(row) for row in rows], axis=1),
        "predictors": _predictors(rows, prompt_starts, response_starts),
        "targets": np.concatenate([r for row in rows for r in row.responses] or [_EMPTY]),
        "prompts": prompts,
        "responses": responses,
        "owner": owner,
        "mask": _response_mask(np.array(prompt_lengths)[owner], flat_fed, prompts.shape[1]),
        "inverse": _inverse(prompts, prompt_lengths, responses, flat_fed),
        "lengths": np.array(prompt_lengths),
        "sizes": np.array([len(r) for row in rows for r in row.responses], dtype=np.int64),
    }
    if any(row.prompt.blocks is not None for row in rows):
        arrays["blocks"] = _blocks(rows, prompts.shape[1])
    tensors = {name: torch.from_numpy(a).to(device) for name, a in arrays.items()}
    slide_only = any(row.prompt.blocks_slide_only for row in rows)
    return SharedPrefix(**tensors, blocks_slide_only=slide_only)


_EMPTY = np.zeros(0, dtype=np.int64)


def _starts(prompts: Sequence[int], fed: Sequence[Sequence[int]]) -> tuple[list[int], list[int]]:
    at, prompt_starts, response_starts = 0, [], []
    for prompt, lengths in zip(prompts, fed, strict=True):
        prompt_starts.append(at)
        at += prompt
        for length in lengths:
            response_starts.append(at)
            at += length
    return prompt_starts, response_starts


def _index(starts: Sequence[int], lengths: Sequence[int]) -> Ints:
    """[B, longest] flat indices, padded with 0: padding is masked, or never read."""
    index = np.zeros((len(lengths), max(lengths, default=0)), dtype=np.int64)
    for i, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        index[i, :length] = np.arange(start, start + length)
    return index


def _blocks(rows: Sequence[SharedRow], width: int) -> Ints:
    blocks = np.zeros((len(rows), width), dtype=np.int64)
    for i, row in enumerate(rows):
        if row.prompt.blocks is not None:
            blocks[i, : len(row.prompt.blocks)] = row.prompt.blocks
    return blocks


def _row_ids(row: SharedRow) -> Ints:
    return np.concatenate([row.prompt.ids, *(r[:-1] for r in row.responses)])


def _row_positions(row: SharedRow) -> np.ndarray:
    axes = row.prompt.positions.shape[0]
    continued = [
        np.broadcast_to(
            row.prompt.next_position + np.arange(max(len(r) - 1, 0)), (axes, max(len(r) - 1, 0))
        )
        for r in row.responses
    ]
    return np.concatenate([row.prompt.positions, *continued], axis=1)


def _predictors(
    rows: Sequence[SharedRow], prompt_starts: Sequence[int], response_starts: Sequence[int]
) -> Ints:
    """A response's first token is predicted by the last prompt token, the rest by its own."""
    pieces, starts = [_EMPTY], iter(response_starts)
    for row, prompt_start in zip(rows, prompt_starts, strict=True):
        last = prompt_start + len(row.prompt.ids) - 1
        for response in row.responses:
            start = next(starts)
            own = np.arange(start, start + max(len(response) - 1, 0))
            pieces.append(np.concatenate([[last], own])[: len(response)])
    return np.concatenate(pieces).astype(np.int64)


def _response_mask(prompt_lengths: Ints, fed: Sequence[int], prompt_width: int) -> np.ndarray:
    width = max(fed, default=0)
    sees_prompt = np.arange(prompt_width)[None, :] < prompt_lengths[:, None]
    sees_itself = np.tril(np.ones((width, width), dtype=bool))
    mask = np.concatenate(
        [
            np.broadcast_to(sees_prompt[:, None, :], (len(fed), width, prompt_width)),
            np.broadcast_to(sees_itself[None], (len(fed), width, width)),
        ],
        axis=2,
    )
    return mask[:, None]


def _inverse(
    prompts: Ints, prompt_lengths: Sequence[int], responses: Ints, fed: Sequence[int]
) -> Ints:
    inverse = np.zeros(sum(prompt_lengths) + sum(fed), dtype=np.int64)
    offset = 0
    for index, lengths in ((prompts, prompt_lengths), (responses, fed)):
        places = offset + np.arange(index.size).reshape(index.shape)
        for i, length in enumerate(lengths):
            inverse[index[i, :length]] = places[i, :length]
        offset += index.size
    return inverse
