"""A stand-in for a learned mask decoder: tokens that name the cells of a quadtree."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmrl.types import Bools

LEVELS = 6
CODEBOOK = sum(4**level for level in range(LEVELS))


def decode_quadtree(tokens: Sequence[int], side: int) -> Bools:
    """The union of the tokens' cells on a square of `side` pixels.

    Token 0 is the whole square, 1 to 4 its quadrants row by row, 5 to 20 the sixteenths, and so on.
    """
    mask = np.zeros((side, side), dtype=bool)
    for token in tokens:
        level, first = 0, 0
        while token >= first + 4**level:
            first += 4**level
            level += 1
        row, column = divmod(token - first, 2**level)
        edges = [round(i * side / 2**level) for i in (row, row + 1, column, column + 1)]
        mask[edges[0] : edges[1], edges[2] : edges[3]] = True
    return mask


def encode_quadtree(mask: Bools) -> list[int]:
    """The fewest tokens whose cells cover a square mask exactly, to the depth of the codebook."""
    tokens: list[int] = []
    pending = [(0, 0, 0)]
    while pending:
        level, row, column = pending.pop()
        token = sum(4**i for i in range(level)) + row * 2**level + column
        cell = decode_quadtree([token], mask.shape[0])
        if mask[cell].all():
            tokens.append(token)
        elif mask[cell].any() and level + 1 < LEVELS:
            pending += [(level + 1, 2 * row + i, 2 * column + j) for i in (0, 1) for j in (0, 1)]
    return sorted(tokens)
