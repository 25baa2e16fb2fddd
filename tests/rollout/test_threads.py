"""Threads of a decoding step: as many as its products keep at work, for its time only."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmrl.engines.threads import decoding_threads

WIDE = nn.Sequential(nn.Linear(500, 400), nn.LayerNorm(400), nn.Linear(400, 1000))
"""300,000 weights a product on average."""


@pytest.mark.parametrize(
    "rows, cores, wanted", [(1, 4, 1), (6, 4, 1), (7, 4, 2), (20, 4, 4), (20, 1, 1)]
)
def test_a_product_has_the_threads_it_keeps_at_work(rows: int, cores: int, wanted: int) -> None:
    """By hand: 0.6 MFLOP a row, 2 MFLOP a thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(cores)
    try:
        with decoding_threads(WIDE, rows):
            assert torch.get_num_threads() == wanted
        assert torch.get_num_threads() == cores
    finally:
        torch.set_num_threads(before)
