"""Media that a server has been sent, so that the next turns of an episode need not send them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping

from torch import Tensor

from mmrl.engines.vllm.media import PlacedMedium

MAX_BYTES = 4 << 30
"""Of tensors in the host's memory; a client sends again what has been let go."""


class KeptMedia(Mapping[str, Mapping[str, Tensor]]):
    """Tensors of media by their hash: those last asked with, of at most `limit` bytes."""

    def __init__(self, limit: int = MAX_BYTES) -> None:
        self._limit, self._bytes = limit, 0
        self._kept: OrderedDict[str, Mapping[str, Tensor]] = OrderedDict()

    def keep(self, media: Iterable[PlacedMedium]) -> None:
        """Take in what a request came with, and let the oldest go where that is too much."""
        for medium in media:
            if medium.hash not in self._kept:
                self._kept[medium.hash] = medium.tensors
                self._bytes += _size(medium.tensors)
            self._kept.move_to_end(medium.hash)
        while self._bytes > self._limit:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= _size(oldest)

    def clear(self) -> None:
        """Let everything go: other weights may be another run's, with media of its own making."""
        self._kept.clear()
        self._bytes = 0

    def __getitem__(self, name: str) -> Mapping[str, Tensor]:
        return self._kept[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)


def _size(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())
