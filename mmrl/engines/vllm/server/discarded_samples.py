"""Samples that vLLM throws away leave its requests' generators as they were, on CPUs too.

A prompt may be prefilled in parts: where a pass has no room for all of it, or the encoder's cache
none for its media. After every part but the last a token is drawn for nothing, and the request's
generator is set back by its offset, which only those of GPUs have.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch


def give_back_discarded(runner: Any) -> None:
    """Let a runner on a CPU set generators back by their state; on a GPU it can by itself."""
    if runner.device.type != "cpu" or isinstance(runner._sample, _Sample):
        return
    runner._sample = _Sample(runner, runner._sample)
    runner._bookkeeping_sync = _Bookkeeping(runner, runner._bookkeeping_sync)


def _discarded(runner: Any) -> dict[int, torch.Generator]:
    """The generators of the rows whose samples will be thrown away."""
    batch = runner.input_batch
    rows = np.flatnonzero(runner.discard_request_mask.np[: batch.num_reqs]).tolist()
    return {row: batch.generators[row] for row in rows if row in batch.generators}


class _Sample:
    def __init__(self, runner: Any, own: Callable[..., Any]) -> None:
        self._runner, self._own = runner, own

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        before = [(g, g.get_state()) for g in _discarded(self._runner).values()]
        drawn = self._own(*args, **kwargs)
        for generator, state in before:
            generator.set_state(state)
        return drawn


class _Bookkeeping:
    """Keeps those generators from being set back by an offset."""

    def __init__(self, runner: Any, own: Callable[..., Any]) -> None:
        self._runner, self._own = runner, own

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        generators, held = self._runner.input_batch.generators, _discarded(self._runner)
        for row in held:
            del generators[row]
        try:
            return self._own(*args, **kwargs)
        finally:
            generators.update(held)
