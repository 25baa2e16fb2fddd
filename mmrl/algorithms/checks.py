"""Combinations of stages that make no sense, refused with the reason."""

from __future__ import annotations

from collections.abc import Iterator

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.credit import FixedGroup, GroupCredit, GroupRelative, LeaveOneOut
from mmrl.algorithms.stages.editors import AccuracyBand, DropUniform
from mmrl.algorithms.stages.refiners import DampUnlikely, EntropyBonus, KeepLargest, RandomTokens
from mmrl.algorithms.stages.schedules import Adaptive
from mmrl.algorithms.stages.shapers import ShortWhenSolved
from mmrl.errors import UserError
from mmrl.objective import KL
from mmrl.stage import Stage


def refuse(algorithm: Algorithm) -> None:
    """Raise UserError with the first reason why the stages do not go together."""
    for reason in reasons(algorithm):
        raise UserError(f"algorithm '{algorithm.name}': {reason}")


def reasons(algorithm: Algorithm) -> Iterator[str]:
    """Every reason why the stages do not go together."""
    yield from _objective(algorithm)
    if algorithm.kl is not None:
        yield from kl_reasons(algorithm, algorithm.kl)
    yield from _groups(algorithm)
    if algorithm.updates.critic_steps and "values" not in algorithm.needs:
        yield "it has no critic that could learn alone: leave updates.critic_steps out"
    if algorithm.always_on_policy and not algorithm.updates.on_policy:
        yield "it is exact only with one update per batch: leave updates as they are"


def _objective(algorithm: Algorithm) -> Iterator[str]:
    objective, reducer = algorithm.objective, algorithm.reducer
    name = type(objective).__name__
    if objective.reducer is not None and reducer.name != objective.reducer:
        yield f"the objective {name} is defined with reducer '{objective.reducer}'"
    if objective.reducer is None and reducer.name == "group-mean":
        yield f"reducer 'group-mean' is for losses of whole groups, {name} is one of tokens"
    if reducer.name == "constant" and not reducer.length:
        yield "reducer 'constant' needs a length to divide by"
    given = getattr(algorithm.credit, "gives", "")
    if objective.reads and given != objective.reads:
        yield f"the objective {name} reads {objective.reads}, which its credit does not give"
    yield from objective.reasons(reducer)
    if objective.whole_groups and any(isinstance(s, KeepLargest) for s in algorithm.refine):
        yield f"the objective {name} compares whole groups, keep_largest takes parts of them away"
    by_token = (RandomTokens, DampUnlikely, EntropyBonus)
    if objective.whole_groups and any(isinstance(s, by_token) for s in algorithm.refine):
        yield f"the objective {name} knows sequences only, a refiner works on single tokens"
    if objective.centred and algorithm.credit != GroupCredit(GroupRelative(None)):
        yield f"the objective {name} reads accuracies off centred rewards: set credit 'centred'"


def kl_reasons(algorithm: Algorithm, kl: KL) -> Iterator[str]:
    """Every reason why a KL does not go with an algorithm's other stages."""
    if kl.placement == "loss" and kl.estimator == "k1" and not kl.straight_through:
        yield "k1 in the loss has an expected gradient of 0: use k2 or k3, or placement 'reward'"
    if kl.placement != "loss" and isinstance(kl.schedule, Adaptive):
        yield "an adaptive coefficient follows the KL of the loss: use placement 'loss'"
    credit = algorithm.credit
    spends = isinstance(credit, Stage) and credit.spends_penalties
    if kl.placement == "token-reward" and not spends:
        yield "only credit of returns over tokens can spend a KL placed in token rewards"
    if kl.placement != "loss" and algorithm.objective.centred:
        name = type(algorithm.objective).__name__
        yield f"the objective {name} reads accuracies off rewards: use placement 'loss'"


def _groups(algorithm: Algorithm) -> Iterator[str]:
    dropping = [s for s in algorithm.edit if isinstance(s, AccuracyBand | DropUniform)]
    if any(isinstance(s, ShortWhenSolved) for s in algorithm.shape):
        for stage in dropping:
            if stage.drops_solved:
                yield f"short_when_solved pays solved groups, {type(stage).__name__} drops them"
    credit, plan = algorithm.credit, algorithm.plan
    if isinstance(plan, FixedGroup) and plan.size == 1 and isinstance(credit, GroupCredit):
        if dropping and not isinstance(dropping[0], DropUniform):
            yield "a group of one is always all right or all wrong: the filter would keep none"
        if isinstance(credit.advantages, LeaveOneOut):
            yield "leave-one-out needs a group of at least two"
        if isinstance(credit.advantages, GroupRelative):
            yield "in a group of one there is nothing to compare an answer with: raise group_size"
