"""Passages that share words with a query, the rarer the words the better."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mmrl.rewards.text import words


class Index:
    """Passages by their words, to be asked often."""

    def __init__(self, passages: Sequence[str]) -> None:
        self.passages = tuple(passages)
        self._places: dict[str, list[int]] = {}
        for place, passage in enumerate(self.passages):
            for word in set(words(passage)):
                self._places.setdefault(word, []).append(place)

    def rank(self, query: str) -> list[int]:
        """Places of the passages that share words with a query, the best first.

        A shared word counts the more, the fewer passages have it (its idf); ties go by place.
        """
        scores: dict[int, float] = {}
        for word in sorted(set(words(query))):
            places = self._places.get(word, ())
            for place in places:
                weight = math.log(1 + len(self.passages) / len(places))
                scores[place] = scores.get(place, 0.0) + weight
        return sorted(scores, key=lambda place: (-scores[place], place))


def rank(query: str, passages: Sequence[str]) -> list[int]:
    """Rank passages that are asked once; see `Index.rank`.

    Args:
        query: what is looked for.
        passages: where, in order.

    Example:
        >>> rank("red fox", ["a dog", "a fox", "a red fox"])
        [2, 1]
    """
    return Index(passages).rank(query)
