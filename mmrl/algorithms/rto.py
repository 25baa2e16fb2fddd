"""RTO: PPO paid token by token by a policy that DPO has trained. arXiv 2404.18922.

A token earns beta 1 log(DPO's policy / start) - beta 2 log(policy / start), the last one the reward
too. That is minus beta 2 log(policy / m) with log m the mean of DPO's policy and of the start by
weights beta 1 / beta 2 and 1 - beta 1 / beta 2: `reference.teachers` with these weights (which may
be negative) is m, `kl_coefficient` is beta 2. With beta 1 = beta 2 it is DPO's policy alone,
`reference.path`. Without either, the tokens are paid by the start: PPO with a KL.
"""

from __future__ import annotations

from dataclasses import replace

from mmrl.algorithm import Algorithm
from mmrl.algorithms import ppo
from mmrl.objective import KL

SUMMARY = "PPO with token rewards of a policy that DPO has trained"
PAPER = "arXiv 2404.18922"


class Params(ppo.Params):
    pass


def build(params: Params) -> Algorithm:
    """Take PPO with a KL (k1, in the rewards of tokens): what it is towards makes the method."""
    return replace(ppo.build(params), name="rto", kl=KL(0.05, "k1", "token-reward"))
