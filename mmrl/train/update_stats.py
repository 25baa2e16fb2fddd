"""What a step's updates did, as numbers: sums over an update's tokens, means over a step's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from mmrl.backend.world import World
from mmrl.objective import TokenBatch
from mmrl.train.correction import Activity
from mmrl.train.critic import explained_variance
from mmrl.types import TrainSample


@dataclass(frozen=True)
class UpdateStats:
    """What one step's updates did; None: there was nothing of the kind.

    `tokens` were trained, a token of two passes twice; means and shares are over them, by the
    policy as it was before each update. `loss` and `grad_norm` are means over the updates that
    were made, of which `skipped` were none. `learning_rate` is that of the last one. `clip_share`
    is what the objective's bounds took the gradient of, below and above; `bounded_share` what they
    bounded a weight of (`objective.Bounds`). `divergence` is how far any trained token is from the
    old policy after all of them, and after `fixes` more (`Updates.trust`).
    """

    tokens: int = 0
    updates: int = 0
    skipped: int = 0
    loss: float | None = None
    kl: float | None = None
    entropy: float | None = None
    grad_norm: float | None = None
    learning_rate: float | None = None
    clip_share: float | None = None
    clip_share_low: float | None = None
    clip_share_high: float | None = None
    bounded_share: float | None = None
    value_loss: float | None = None
    value_explained: float | None = None
    correction_weight: float | None = None
    correction_bounded: float | None = None
    correction_mismatch: float | None = None
    divergence: float | None = None
    fixes: int | None = None


class Tally:
    """What one update did: its loss, and sums over its trained tokens by name."""

    def __init__(self) -> None:
        self.loss, self.tokens = 0.0, 0
        self.sums: dict[str, float] = {}
        self.grad_norm = self.rate = 0.0
        self.skipped = False

    def add(self, batch: TokenBatch, loss: Tensor, **values: Tensor | None) -> None:
        """Add a micro-batch, with values [M] of its tokens; None: there are none of the name."""
        self.loss += float(loss.detach())
        self.tokens += int(batch.mask.sum())
        for name, each in values.items():
            if each is not None:
                added = float(each.detach()[batch.mask].sum())
                self.sums[name] = self.sums.get(name, 0.0) + added

    def add_up(self, world: World) -> None:
        """Add what the other processes have."""
        every = world.gather((self.loss, self.tokens, self.sums))
        self.loss, self.tokens = sum(loss for loss, _, _ in every), sum(n for _, n, _ in every)
        names = sorted(set().union(*(sums for _, _, sums in every)))
        self.sums = {n: sum(sums.get(n, 0.0) for _, _, sums in every) for n in names}


def summary(tallies: Sequence[Tally]) -> UpdateStats:
    """A step's updates: every trained token counts alike, whichever update it was in."""
    if not tallies:
        return UpdateStats()
    tokens = sum(tally.tokens for tally in tallies)
    names = set().union(*(tally.sums for tally in tallies))
    means = {n: sum(tally.sums.get(n, 0.0) for tally in tallies) / tokens for n in names}
    clips = [means[side] for side in ("low", "high") if side in means]
    made = [tally for tally in tallies if not tally.skipped]
    return UpdateStats(
        tokens=tokens,
        updates=len(tallies),
        skipped=len(tallies) - len(made),
        loss=float(np.mean([tally.loss for tally in made])) if made else None,
        kl=means.get("kl"),
        entropy=means["entropy"],
        grad_norm=float(np.mean([tally.grad_norm for tally in made])) if made else None,
        learning_rate=tallies[-1].rate,
        clip_share=sum(clips) if clips else None,
        clip_share_low=means.get("low"),
        clip_share_high=means.get("high"),
        bounded_share=means.get("weight"),
    )


def with_activity(stats: UpdateStats, activity: Activity | None) -> UpdateStats:
    """The same with what a correction did, where there is one."""
    if activity is None:
        return stats
    return replace(
        stats,
        correction_weight=activity.weight,
        correction_bounded=activity.bounded,
        correction_mismatch=activity.mismatch,
    )


def with_critic(
    stats: UpdateStats, losses: Sequence[float | None], samples: Sequence[TrainSample]
) -> UpdateStats:
    """The same with what a critic's updates came to, where it made any."""
    known = [loss for loss in losses if loss is not None]
    if not known:
        return stats
    return replace(
        stats, value_loss=float(np.mean(known)), value_explained=explained_variance(samples)
    )
