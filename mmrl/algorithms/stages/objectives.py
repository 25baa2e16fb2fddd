"""The options of every policy objective; `mmrl.train.losses` computes them.

An objective reads advantages [M] of tokens and nothing about rewards. Where a method is defined
on rewards, pairs or labels, its credit stage puts those into the advantages, and the objective
says here how it reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from mmrl.algorithm import Aggregation, Need, Objective

NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Ratio = Literal["token", "sequence-mean", "sequence-sum", "sequence-token"]


@dataclass(frozen=True)
class Clipped(Objective):
    """PPO's clipped surrogate (arXiv 1707.06347, equation 7) and its relatives.

    `ratio`: of each token; of the sequence's mean log-ratio (GSPO, arXiv 2507.18071), also with a
    gradient for every token's own advantage (`sequence-token`); of its sum (RLOO).
    `dual` bounds the loss of negative advantages (arXiv 1912.09729, equation 5); `cap` bounds the
    unclipped ratio (two-sided clipping, INTELLECT-2, arXiv 2505.07291). `imitation` adds the mean
    negative log-likelihood of positive samples' tokens (VAPO, arXiv 2504.05118) and
    is defined for a token-mean reducer.
    """

    low: Annotated[float, Field(ge=0, le=1)] = 0.2
    high: NonNegative = 0.2
    dual: Annotated[float, Field(gt=1)] | None = None
    cap: Annotated[float, Field(gt=1)] | None = None
    ratio: Ratio = "token"
    imitation: NonNegative = 0.0


@dataclass(frozen=True)
class Likelihood(Objective):
    """Negative log-likelihood weighted by the advantage: REINFORCE, or SFT at advantage 1."""

    on_policy: ClassVar[bool] = True


@dataclass(frozen=True)
class CISPO(Objective):
    """REINFORCE weighted by the clipped, detached ratio; no token is dropped. arXiv 2506.13585.

    `low` and `high` are bounds of the ratio itself.
    """

    high: Positive = 5.0
    low: NonNegative = 0.0


@dataclass(frozen=True)
class CPGD(Objective):
    """Clipped log-likelihood plus policy drift. arXiv 2505.12504."""

    low: Annotated[float, Field(ge=0, lt=1)] = 0.2
    high: NonNegative = 0.2
    drift: NonNegative = 0.001


@dataclass(frozen=True)
class GVPO(Objective):
    """Regress centred log-ratios of a group on its centred rewards. arXiv 2504.19599.

    Advantages are the centred rewards.
    """

    beta: Positive = 0.1

    whole_groups: ClassVar[bool] = True
    reducer: ClassVar[Aggregation | None] = "group-mean"


@dataclass(frozen=True)
class DisCO(Objective):
    """Separate right from wrong answers by their scores. arXiv 2505.12366.

    Right is where the advantage is positive, wrong where it is negative. `score` is the mean
    log-prob or the mean ratio; `tau` None is DisCO-b, without the soft maximum over wrong ones.
    The KL constraint is computed per group, so that packing does not move it (a variant: the
    released code takes the whole mini-batch).
    """

    score: Literal["log-likelihood", "likelihood-ratio"] = "log-likelihood"
    tau: Positive | None = 10.0
    beta: NonNegative = 1000.0
    delta: NonNegative = 1e-4

    whole_groups: ClassVar[bool] = True
    reducer: ClassVar[Aggregation | None] = "group-mean"


@dataclass(frozen=True)
class NFT(Objective):
    """Supervised learning of right answers and, implicitly, against wrong ones. arXiv 2505.18116.

    Advantages are centred 0/1 rewards: 1 - r of a right answer, -r of a wrong one, with r the
    group's accuracy. `weight` of a prompt: (1 - r), or sqrt((1 - r) / r), or 1.
    """

    epsilon: Positive = 1.0
    negative: NonNegative = 1.0
    weight: Literal["linear", "root", "none"] = "linear"
    max_log_ratio: Positive = 10.0

    centred: ClassVar[bool] = True


@dataclass(frozen=True)
class AStarPO(Objective):
    """Regress beta x log(policy / reference) on the reward minus V*. arXiv 2505.20686.

    Advantages are the reward minus V*.
    """

    beta: Positive = 1e-3

    needs: ClassVar[frozenset[Need]] = frozenset({"reference"})
    reducer: ClassVar[Aggregation | None] = "seq-mean-token-mean"


@dataclass(frozen=True)
class REBEL(Objective):
    """Regress differences of log-ratios on reward differences, over all pairs. arXiv 2404.16767.

    Advantages are rewards, up to a constant of the group.
    """

    eta: Positive = 1.0

    whole_groups: ClassVar[bool] = True
    reducer: ClassVar[Aggregation | None] = "group-mean"


@dataclass(frozen=True)
class Preference(Objective):
    """DPO (arXiv 2305.18290) or IPO (arXiv 2310.12036) over all pairs of a group.

    Chosen is where the advantage is positive, rejected where it is negative. `average` divides
    log-probs by the length: IPO in TRL does, in OpenRLHF it does not.
    """

    loss: Literal["dpo", "ipo"] = "dpo"
    beta: Positive = 0.1
    average: bool = False

    needs: ClassVar[frozenset[Need]] = frozenset({"reference"})
    whole_groups: ClassVar[bool] = True
    reducer: ClassVar[Aggregation | None] = "group-mean"


@dataclass(frozen=True)
class SimPO(Objective):
    """DPO on mean log-probs with a margin and without a reference. arXiv 2405.14734."""

    beta: Positive = 2.0
    margin: float = 0.5

    whole_groups: ClassVar[bool] = True
    reducer: ClassVar[Aggregation | None] = "group-mean"


@dataclass(frozen=True)
class MPO(Objective):
    """Mixed preference optimisation: which is better, how good each is, and how to write it.

    arXiv 2411.10442: a DPO loss, a binary loss on each answer's implied reward against their mean
    (BCO, arXiv 2404.04656; the running mean is replaced by the group's, a variant), and the mean
    negative log-likelihood of chosen answers. Default weights are those TRL lists.
    """

    beta: Positive = 0.1
    preference: NonNegative = 0.8
    quality: NonNegative = 0.2
    generation: NonNegative = 1.0

    needs: ClassVar[frozenset[Need]] = frozenset({"reference"})
    whole_groups: ClassVar[bool] = True
    reducer: ClassVar[Aggregation | None] = "group-mean"


OBJECTIVES: Mapping[str, Objective] = {
    "clipped": Clipped(),
    "gspo": Clipped(low=3e-4, high=4e-4, ratio="sequence-mean"),
    "gspo_token": Clipped(low=3e-4, high=4e-4, ratio="sequence-token"),
    "two_sided": Clipped(cap=4.0),
    "likelihood": Likelihood(),
    "cispo": CISPO(),
    "cpgd": CPGD(),
    "gvpo": GVPO(),
    "disco": DisCO(),
    "nft": NFT(),
    "a_star_po": AStarPO(),
    "rebel": REBEL(),
    "dpo": Preference(),
    "ipo": Preference(loss="ipo"),
    "simpo": SimPO(),
    "mpo": MPO(),
}
"""Objectives by the name a config uses, with their default options."""
