"""Float32 weights of a model in bfloat16, in the two bytes that its weights lack.

A bfloat16 number is the upper half of a float32 one. The lower half is kept beside the weight as a
signed difference, so that the weight is its master's rounding and not its truncation. Weight and
difference are the master bit for bit: nothing is held twice, and no master can be left behind by
a weight that somebody else wrote.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import EllipsisType

import torch
from torch import Tensor, nn

Piece = slice | EllipsisType

PIECE_ELEMENTS = 1 << 22
"""Float32 copies are made of so many elements at a time, so that a step needs no room for more."""


class Master:
    """The float32 value of a bfloat16 weight; a weight written by others is the value, rounded."""

    def __init__(self, weight: nn.Parameter) -> None:
        self._weight = weight
        self._lower = torch.zeros_like(weight, dtype=torch.int16)
        self._version = weight._version

    @torch.no_grad()
    def read(self, piece: Piece = ...) -> Tensor:
        """A float32 copy of a piece of the weight, in the piece's shape."""
        if self._weight._version != self._version:
            self._lower.zero_()
            self._version = self._weight._version
        return join(self._weight[piece], self._lower[piece])

    @torch.no_grad()
    def write(self, value: Tensor, piece: Piece = ...) -> None:
        """Take a float32 value of the piece's shape over; the weight becomes its rounding."""
        weight, lower = split(value)
        self._weight[piece], self._lower[piece] = weight, lower
        self._version = self._weight._version

    def to_cpu(self) -> Tensor:
        """The whole value in host memory, float32 in the weight's shape."""
        found = torch.empty_like(self._weight, dtype=torch.float32, device="cpu")
        for piece in pieces(found.shape):
            found[piece] = self.read(piece)
        return found

    def load(self, value: Tensor) -> None:
        """Take a whole value of the weight's shape over, wherever it lies."""
        for piece in pieces(value.shape):
            self.write(value[piece].to(self._weight.device, torch.float32), piece)


def join(weight: Tensor, lower: Tensor) -> Tensor:
    """The float32 numbers, in the same shape, that `split` took apart."""
    bits = weight.view(torch.int16).to(torch.int32).bitwise_left_shift_(16)
    return bits.add_(lower).view(torch.float32)


def split(value: Tensor) -> tuple[Tensor, Tensor]:
    """Cut float32 of any shape into its rounding to bfloat16 and the rest, 16 bits with a sign.

    A value halfway between two is rounded to the even one. Below its magnitude that makes a rest of
    2^15, one more than fits: of one value in 131072 the last bit is lost.
    """
    weight = value.to(torch.bfloat16)
    rounded = weight.view(torch.int16).to(torch.int32).bitwise_left_shift_(16)
    rest = torch.sub(value.view(torch.int32), rounded, out=rounded)
    return weight, rest.clamp_(max=(1 << 15) - 1).to(torch.int16)


def round_at_random(value: Tensor, generator: torch.Generator) -> Tensor:
    """Round float32 of any shape to a neighbour in bfloat16, so that the mean is the value.

    Rounded to the nearest, an average that decays by a thousandth a step would never decay.
    """
    noise = torch.randint(
        1 << 16, value.shape, generator=generator, device=value.device, dtype=torch.int32
    )
    bits = noise.add_(value.view(torch.int32)).bitwise_and_(-1 << 16)
    return bits.view(torch.float32).to(torch.bfloat16)


def pieces(shape: torch.Size) -> Iterator[Piece]:
    """Cut a tensor along its first dimension into what is worked on at once."""
    if shape.numel() <= PIECE_ELEMENTS:
        yield ...
        return
    rows = max(PIECE_ELEMENTS * shape[0] // shape.numel(), 1)
    for start in range(0, shape[0], rows):
        yield slice(start, start + rows)
