"""Refiners: train samples -> reweighted, masked or fewer train samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Annotated

import numpy as np
from pydantic import Field

from mmrl import plugins
from mmrl.algorithms.stages.lengths import OfLongest
from mmrl.stage import Context, Refine, Stage
from mmrl.types import Bools, Floats, TrainSample

Share = Annotated[float, Field(ge=0, le=1)]


def by_group(samples: Iterable[TrainSample]) -> list[list[TrainSample]]:
    """Put the train samples of one rollout group together; they stand side by side."""
    return [list(members) for _, members in groupby(samples, key=lambda s: s.group)]


@dataclass(frozen=True)
class MaskTruncated(Stage):
    """Keep truncated responses out of the loss. DAPO's overlong filtering, arXiv 2503.14476."""

    def __call__(self, samples: list[TrainSample], context: Context) -> list[TrainSample]:
        return [
            replace(s, mask=np.zeros_like(s.mask)) if s.response.truncated else s for s in samples
        ]


@dataclass(frozen=True)
class KeepLargest(Stage):
    """Keep the share of each group with the largest absolute advantages, at least one.

    CPPO, arXiv 2503.22342: `pruned` is its P. Earlier responses win ties.
    """

    pruned: Annotated[float, Field(ge=0, lt=1)] = 0.5

    def __call__(self, samples: list[TrainSample], context: Context) -> list[TrainSample]:
        return [s for members in by_group(samples) for s in self._keep(members)]

    def _keep(self, members: list[TrainSample]) -> list[TrainSample]:
        sizes = [abs(s.advantages).mean() if len(s.advantages) else 0.0 for s in members]
        return [members[i] for i in self.kept(np.array(sizes))]

    def kept(self, sizes: Floats) -> list[int]:
        """Indices of what stays, in order; `sizes` are absolute advantages [G]."""
        # Rounded first: 8 x (1 - 0.9) is 0.7999..., 10 x (1 - 0.9) is 0.9999...
        count = max(1, int(round(len(sizes) * (1 - self.pruned), 9)))
        return sorted(int(i) for i in np.argsort(-sizes, kind="stable")[:count])


@dataclass(frozen=True)
class RandomTokens(Stage):
    """Train on the first tokens and on a random share of the others, up to a number in all.

    S-GRPO, arXiv 2504.20834 (a variant: its constants are not published). The mask is drawn once,
    so that every pass over the batch sees the same tokens.
    """

    first: Annotated[int, Field(ge=0), OfLongest(1024)] = 32
    share: Share = 0.5
    most: Annotated[int, Field(gt=0), OfLongest(1024)] = 256

    def __call__(self, samples: list[TrainSample], context: Context) -> list[TrainSample]:
        return [replace(s, mask=self._among(s.mask, context)) for s in samples]

    def _among(self, mask: Bools, context: Context) -> Bools:
        """Choose among the tokens of a mask [T]."""
        chosen = np.zeros_like(mask)
        chosen[mask] = self.chosen(context.rng.random(len(mask))[mask])
        return chosen

    def chosen(self, draws: Floats) -> Bools:
        """Select tokens by one uniform draw each [T]."""
        wanted = (np.arange(len(draws)) < self.first) | (draws < self.share)
        return wanted & (np.cumsum(wanted) <= self.most)


@dataclass(frozen=True)
class DampUnlikely(Stage):
    """Scale a token's advantage by alpha x its sampling probability + 1 - alpha.

    Advantage reweighting (AR), arXiv 2505.12929. Where the probability is not known, the advantage
    stays.
    """

    alpha: Share = 0.3

    def __call__(self, samples: list[TrainSample], context: Context) -> list[TrainSample]:
        return [
            replace(s, advantages=s.advantages * self.factor(s.response.logprobs)) for s in samples
        ]

    def factor(self, logprobs: Floats) -> Floats:
        """Return the factor of each token [T]."""
        probabilities = np.where(np.isnan(logprobs), 1.0, np.exp(logprobs))
        return np.asarray(self.alpha * probabilities + 1 - self.alpha)


@dataclass(frozen=True)
class EntropyBonus(Stage):
    """Add `coefficient` x -log p to the advantage of every token that was sampled.

    The gradient of a distribution's entropy is the expectation of -log p times that of log p over
    what is drawn from it (the score's own expectation is 0), so the estimate is unbiased and asks
    for nothing but the sampled log-probs. Tokens that no policy sampled keep their advantages.
    """

    coefficient: Annotated[float, Field(ge=0)] = 0.001

    def __call__(self, samples: list[TrainSample], context: Context) -> list[TrainSample]:
        return [
            replace(s, advantages=s.advantages + self.bonus(s.response.logprobs))
            if s.sampled
            else s
            for s in samples
        ]

    def bonus(self, logprobs: Floats) -> Floats:
        """Return what is added to the advantage of each token [T]."""
        return -self.coefficient * np.nan_to_num(logprobs)


REFINERS: Mapping[str, Refine] = plugins.Named(
    "mmrl.refiners",
    {
        "mask_truncated": MaskTruncated(),
        "keep_largest": KeepLargest(),
        "random_tokens": RandomTokens(),
        "damp_unlikely": DampUnlikely(),
        "entropy_bonus": EntropyBonus(),
    },
)
"""Refiners by the name a config uses."""
