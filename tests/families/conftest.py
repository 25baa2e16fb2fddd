"""Both sides of a comparison multiply by the same library."""

from __future__ import annotations

import pytest

from mmrl.policy import linears


@pytest.fixture(autouse=True)
def one_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reference models here are plain; `tests/policy/test_linears.py` compares the libraries."""
    monkeypatch.setattr(linears, "onednn_is_faster", lambda: False)
