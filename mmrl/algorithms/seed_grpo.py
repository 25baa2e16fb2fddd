"""SEED-GRPO: smaller advantages where the answers to a prompt disagree (a variant).

arXiv 2505.12346. The damping function and its alpha are not published; the reading is
f(alpha SE / log G) with a linear, exponential or focal f.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.answer_kinds import clusters
from mmrl.algorithms.stages.credit import FixedGroup, GroupCredit, centre
from mmrl.objectives.clipped_ratio import Clipped
from mmrl.stage import Context, Need, Stage
from mmrl.types import Floats, Group
from mmrl.validation import Section

SUMMARY = "damps advantages by the semantic entropy of the answers (variant)"
PAPER = "arXiv 2505.12346"

Damping = Literal["linear", "exponential", "focal"]
Entropy = Literal["count", "likelihood", "monte-carlo"]


class Params(Section):
    group_size: int = Field(8, gt=1)
    alpha: float = Field(0.5, ge=0, le=1)
    damping: Damping = "linear"
    entropy: Entropy = "count"


@dataclass(frozen=True)
class DampUncertain(Stage):
    """Centred rewards [G] times the damping of the group's semantic entropy."""

    alpha: float
    damping: Damping
    entropy: Entropy

    needs: ClassVar[frozenset[Need]] = frozenset({"answers"})

    def __call__(self, group: Group, context: Context) -> Floats:
        means = [
            float(r.logprobs[r.written].mean()) if len(r.ids) else 0.0 for r in group.responses
        ]
        entropy = semantic_entropy(clusters(group), means, self.entropy)
        factor = damping(self.alpha, entropy, len(group.responses), self.damping)
        return np.asarray(factor * centre(group.rewards))


def cluster_shares(labels: Sequence[int], mean_logprobs: Sequence[float]) -> Floats:
    """Probability of each cluster from length-normalised likelihoods [clusters]."""
    weights = np.exp(np.asarray(mean_logprobs))
    return np.asarray(np.bincount(labels, weights=weights) / weights.sum())


def semantic_entropy(labels: Sequence[int], mean_logprobs: Sequence[float], kind: Entropy) -> float:
    """Entropy over clusters of answers in nats, from counts or from likelihoods.

    `monte-carlo` is the mean of -log p over the clusters.
    """
    if kind == "count":
        shares = np.bincount(labels) / len(labels)
    else:
        shares = cluster_shares(labels, mean_logprobs)
    if kind == "monte-carlo":
        return float(-np.log(shares).mean())
    return float(-(shares * np.log(shares)).sum())


def damping(alpha: float, entropy: float, group_size: int, kind: Damping) -> float:
    """Factor of the advantages: 1 where all answers agree."""
    x = alpha * entropy / np.log(group_size) if group_size > 1 else 0.0
    match kind:
        case "linear":
            return float(1 - x)
        case "exponential":
            return float(np.exp(-x))
        case "focal":
            return float((1 - x) ** 2)


def build(params: Params) -> Algorithm:
    """Fill credit."""
    return Algorithm(
        name="seed_grpo",
        plan=FixedGroup(params.group_size),
        credit=GroupCredit(DampUncertain(params.alpha, params.damping, params.entropy)),
        objective=Clipped(),
    )
