"""Tower outputs, computed once for each distinct medium of a pass."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor

from mmrl.policy.family import Family
from mmrl.types import EncodedMedium

MAX_KEPT_TOKENS = 262_144
"""Feature rows kept for a frozen tower before the oldest media are let go."""


class FeatureStore:
    """Features by content hash. Kept between passes only while the towers cannot change."""

    def __init__(self, family: Family) -> None:
        self._family = family
        self._kept: OrderedDict[str, Tensor] = OrderedDict()

    def features(self, media: Sequence[EncodedMedium]) -> list[Tensor]:
        """One [tokens, hidden] tensor a medium, in order; equal media share one tower row."""
        frozen = not any(p.requires_grad for p in self._family.tower_parameters())
        known = self._kept if frozen else {}
        missing = {m.hash: m for m in media if m.hash not in known}
        fresh: dict[str, Tensor] = {}
        if missing:
            with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
                outputs = self._family.features(list(missing.values()))
            fresh = dict(zip(missing, outputs, strict=True))
        result = [fresh[m.hash] if m.hash in fresh else known[m.hash] for m in media]
        if frozen:
            self._keep(fresh)
        return result

    def _keep(self, fresh: dict[str, Tensor]) -> None:
        self._kept.update(fresh)
        while sum(len(rows) for rows in self._kept.values()) > MAX_KEPT_TOKENS:
            self._kept.popitem(last=False)
