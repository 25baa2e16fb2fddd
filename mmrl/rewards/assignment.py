"""The assignment of rows to columns with the largest total weight."""

from __future__ import annotations

from collections.abc import Sequence

_UNREACHED = float("inf")


def assign(weights: Sequence[Sequence[float]]) -> list[tuple[int, int]]:
    """Pair rows with columns, each at most once, for the largest sum (Hungarian method).

    Every row of a matrix with no more rows than columns gets a pair, and the other way round.
    Cubic: cap the matrix first.
    """
    if not weights or not weights[0]:
        return []
    if len(weights) > len(weights[0]):
        flipped = [list(column) for column in zip(*weights, strict=True)]
        return sorted((row, column) for column, row in assign(flipped))
    rows, columns = len(weights), len(weights[0])
    row_prices, column_prices = [0.0] * (rows + 1), [0.0] * (columns + 1)
    owner = [0] * (columns + 1)
    for row in range(1, rows + 1):
        owner[0] = row
        least, previous = [_UNREACHED] * (columns + 1), [0] * (columns + 1)
        visited = [False] * (columns + 1)
        at = 0
        while owner[at]:
            visited[at] = True
            at_row, step, following = owner[at], _UNREACHED, 0
            for column in range(1, columns + 1):
                if visited[column]:
                    continue
                cost = -weights[at_row - 1][column - 1] - row_prices[at_row] - column_prices[column]
                if cost < least[column]:
                    least[column], previous[column] = cost, at
                if least[column] < step:
                    step, following = least[column], column
            for column in range(columns + 1):
                if visited[column]:
                    row_prices[owner[column]] += step
                    column_prices[column] -= step
                else:
                    least[column] -= step
            at = following
        while at:
            owner[at], at = owner[previous[at]], previous[at]
    return sorted(
        (owner[column] - 1, column - 1) for column in range(1, columns + 1) if owner[column]
    )
