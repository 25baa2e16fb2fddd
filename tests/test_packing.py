"""Packing: what shares a micro-batch, what is split, what must never be."""

from __future__ import annotations

import numpy as np

from mmrl.algorithm import Context
from mmrl.algorithms.credit import GroupCredit, GroupRelative, pair
from mmrl.algorithms.variants import AcrossVariants
from mmrl.packing import Row, Weighted, pack
from mmrl.types import TrainSample
from tests.algorithms.cases import context, group


def weighted(samples: list[TrainSample]) -> list[Weighted]:
    return [Weighted(sample, np.ones(len(sample.mask))) for sample in samples]


def members(batch: list[Row]) -> list[TrainSample]:
    return [member.sample for row in batch for member in row.members]


def credit(*lengths: list[int], run: Context | None = None) -> list[TrainSample]:
    groups = [group([1.0, *[0.0] * (len(n) - 1)], n, sample=str(i)) for i, n in enumerate(lengths)]
    return GroupCredit(GroupRelative())(groups, run or context())


def test_every_sample_is_packed_once_whatever_the_budget() -> None:
    samples = credit([5, 3, 9], [2, 2, 2], [7, 1, 1])
    for budget in (1, 8, 12, 1000):
        for whole in (False, True):
            batches = pack(weighted(samples), budget, whole)
            found = [id(s) for batch in batches for s in members(batch)]
            assert sorted(found) == sorted(map(id, samples))


def test_a_budget_splits_groups_unless_they_must_stay_whole() -> None:
    samples = credit([9, 9, 9], [9, 9, 9])
    split = pack(weighted(samples), 10)
    assert max(sum(row.shared().num_tokens for row in batch) for batch in split) <= 10
    whole = pack(weighted(samples), 10, whole_groups=True)
    assert [{s.group for s in members(batch)} for batch in whole] in ([{0}, {1}], [{1}, {0}])
    assert all(len(members(batch)) == 3 for batch in whole)


def test_variants_of_a_question_stay_whole_over_several_prompts() -> None:
    groups = [group([1.0, 0.0], [4, 4], variant=v) for v in "ab"]
    samples = AcrossVariants()(groups, context())
    (batch,) = pack(weighted(samples), 12, whole_groups=True)
    assert len(members(batch)) == 8
    assert sorted(len(row.members) for row in batch) == [4, 4]


def test_responses_without_tokens_have_no_row() -> None:
    made = group([1.0, 0.0], [0, 2])
    batches = pack(weighted(pair(made, np.zeros(2), 0)), 100)
    assert [len(s.mask) for batch in batches for s in members(batch)] == [2]
