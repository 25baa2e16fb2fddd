"""Agreement of two lists of numbers, for corpus-level metrics."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmrl.types import Floats


def pearson(a: Sequence[float], b: Sequence[float]) -> float:
    """Linear correlation (PLCC); 0 where either list is constant or has fewer than two values."""
    x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if len(x) < 2 or (x == x[0]).all() or (y == y[0]).all():
        return 0.0
    x, y = x - x.mean(), y - y.mean()
    return float(np.clip((x @ y) / np.sqrt((x @ x) * (y @ y)), -1.0, 1.0))


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """Rank correlation (SRCC), ties sharing their mean rank; 0 where `pearson` is."""
    return pearson(_ranks(a).tolist(), _ranks(b).tolist())


def _ranks(values: Sequence[float]) -> Floats:
    array = np.asarray(values, dtype=float)
    _, inverse, counts = np.unique(array, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]
