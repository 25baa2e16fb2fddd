"""Tower outputs, computed once for each distinct medium of a pass."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mmrl.policy.encoder import whole
from mmrl.policy.family import Family
from mmrl.policy.lockstep import Lockstep, blank, calls, kind_called, kind_of
from mmrl.types import EncodedMedium

MAX_KEPT_TOKENS = 262_144
"""Feature rows kept for a frozen tower before the oldest media are let go."""
MAX_KEPT_BYTES = 256 << 20
"""Of tensors of media that episodes showed, made again from what came over the wire."""


class FeatureStore:
    """Features by content hash. Kept between passes only while nothing behind them can change.

    That is where the tower is frozen, and in inference as long as what was given to `stay` lives.
    """

    def __init__(self, family: Family) -> None:
        self._family = family
        self._still: weakref.ReferenceType[object] | None = None
        self._meanwhile: OrderedDict[str, Tensor] = OrderedDict()
        self._kept: OrderedDict[str, Tensor] = OrderedDict()
        self._blanks: dict[str, EncodedMedium] = {}
        self._sources = Sources(family)

    def features(
        self, media: Sequence[EncodedMedium], lockstep: Lockstep | None = None
    ) -> tuple[list[Tensor], Tensor | None]:
        """One [tokens, hidden] tensor a medium, in order; equal media share one tower row.

        In lockstep the towers also run on blanks for the calls that other processes make; the
        second value is then a zero that depends on them.
        """
        if not media and lockstep is None:
            return [], None
        behind = (*self._family.tower_parameters(), *self._family.projector_parameters())
        frozen = not any(p.requires_grad for p in behind)
        kept = self._kept if frozen else self._held()
        known = {} if kept is None else kept
        missing = {m.hash: m for m in media if m.hash not in known}
        asked = [self._sources.whole(m) for m in missing.values()]
        own = calls(asked, self._family.declaration.apart)
        idle = [] if lockstep is None else sorted(set(lockstep.calls(sorted(own))) - own)
        if lockstep is not None:
            # Towers run in one order everywhere.
            asked = sorted([*asked, *(self._blank(call) for call in idle)], key=kind_of)
        found: dict[str, Tensor] = {}
        if asked:
            with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
                outputs = self._family.features(asked)
            found = dict(zip([m.hash for m in asked], outputs, strict=True))
        fresh = {name: rows for name, rows in found.items() if name in missing}
        spare = [rows.sum() * 0.0 for name, rows in found.items() if name not in missing]
        result = [fresh[m.hash] if m.hash in fresh else known[m.hash] for m in media]
        if kept is not None:
            _keep(kept, fresh)
        return result, torch.stack(spare).sum() if spare else None

    def stay(self, still: object | None) -> None:
        """Keep what inference makes while `still` lives, and nothing of before; None: nothing."""
        if self._still is None or self._still() is not still:
            self._meanwhile.clear()
        self._still = (
            None if still is None else weakref.ref(still, lambda _: self._meanwhile.clear())
        )

    def _held(self) -> OrderedDict[str, Tensor] | None:
        """What inference may keep features in; None where nothing says that weights stand still."""
        alive = self._still is not None and self._still() is not None
        return self._meanwhile if alive and torch.is_inference_mode_enabled() else None

    def forget(self) -> None:
        """Let go of what was computed with weights that are no more."""
        self._kept.clear()
        self._meanwhile.clear()

    def _blank(self, call: str) -> EncodedMedium:
        if call not in self._blanks:
            made = blank(self._family, kind_called(call))
            self._blanks[call] = replace(made, hash=f"blank {call}")
        return self._blanks[call]


def _keep(kept: OrderedDict[str, Tensor], fresh: Mapping[str, Tensor]) -> None:
    kept.update(fresh)
    while sum(len(rows) for rows in kept.values()) > MAX_KEPT_TOKENS:
        kept.popitem(last=False)


class Sources:
    """Media that are known by their source, with the tensors that the family makes of them.

    Those of the last are kept, as far as `limit` bytes go: a turn is asked with what was shown
    before it.
    """

    def __init__(self, family: Family, limit: int = MAX_KEPT_BYTES) -> None:
        self._family, self._limit = family, limit
        self._kept: OrderedDict[str, EncodedMedium] = OrderedDict()

    def whole(self, medium: EncodedMedium) -> EncodedMedium:
        """The medium with its tensors."""
        if medium.source is None:
            return medium
        if medium.hash not in self._kept:
            self._kept[medium.hash] = whole(medium, self._family)
        self._kept.move_to_end(medium.hash)
        found = self._kept[medium.hash]
        while len(self._kept) > 1 and sum(map(_size, self._kept.values())) > self._limit:
            self._kept.popitem(last=False)
        return found


def _size(medium: EncodedMedium) -> int:
    return sum(tensor.nbytes for tensor in medium.tensors.values())
