"""Packing: what shares a micro-batch, what is split, what must never be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from mmrl.algorithms.stages.credit import GroupCredit, GroupRelative, pair
from mmrl.algorithms.stages.variants import AcrossVariants
from mmrl.policy.kept import Kept
from mmrl.policy.packing import Chunk, Row, Weighted, chunks, content_of, pack
from mmrl.policy.prompts import Prompts
from mmrl.policy.shared_prefix import SharedRow, lay_out
from mmrl.stage import Context
from mmrl.types import Episode, TokenSpan, TrainSample
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
            found = [len(s.mask) + 100 * s.group for batch in batches for s in members(batch)]
            assert sorted(found) == sorted(len(s.mask) + 100 * s.group for s in samples)


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


def test_the_same_sample_twice_is_two_members() -> None:
    (sample, _) = credit([5, 3])
    (batch,) = pack(weighted([sample, sample]), 100)
    assert [len(row.members) for row in batch] == [2]
    apart = pack(weighted([sample, sample]), 5)
    assert sum(len(members(batch)) for batch in apart) == 2


def test_equal_prompts_share_a_row_and_others_do_not() -> None:
    """What tells prompts apart is what the trunk sees of them, not which object they are."""
    sample = credit([5, 3])[0]
    ids = np.arange(4)
    prompt = replace(sample.prompt, ids=ids, positions=ids[None], next_position=4)
    sample = replace(sample, prompt=prompt)
    other = replace(prompt, ids=np.append(prompt.ids[:-1], prompt.ids[-1] + 1))
    moved = replace(prompt, positions=prompt.positions + 1)
    elsewhere = replace(prompt, home=1)
    blocked = replace(prompt, blocks=np.ones(len(prompt.ids), dtype=np.int64))
    equal = replace(prompt, ids=prompt.ids.copy())
    (batch,) = pack(weighted([sample, replace(sample, prompt=equal, group=7)]), 100)
    assert [len(row.members) for row in batch] == [2]
    for unlike in (other, moved, elsewhere, blocked):
        (batch,) = pack(weighted([sample, replace(sample, prompt=unlike)]), 100)
        assert [len(row.members) for row in batch] == [1, 1]


def test_groups_that_stay_whole_share_no_row() -> None:
    sample = credit([5, 3])[0]
    batches = pack(weighted([sample, replace(sample, group=1)]), 5, whole_groups=True)
    assert [[s.group for s in members(batch)] for batch in batches] in ([[0], [1]], [[1], [0]])


def test_a_long_tail_has_the_micro_batches_that_its_tokens_need() -> None:
    ids = np.arange(100)
    tail = [
        replace(s, prompt=replace(s.prompt, ids=ids + s.group, positions=ids[None]))
        for s in credit([2000, *[40] * 7], *[[40] * 8] * 15)
    ]
    batches = pack(weighted(tail), 4096)
    loads = [sum(row.shared().num_tokens for row in batch) for batch in batches]
    assert max(loads) <= 4096
    assert len(batches) == -(-sum(loads) // 4096)
    for batch in batches:
        plan = lay_out([row.shared() for row in batch], torch.device("cpu")).plan(None)
        tokens = sum(part.real.count for part in plan.first)
        assert sum(part.padded for part in plan.first) <= 1.3 * tokens


def apart(*lengths: list[int]) -> list[TrainSample]:
    """Groups whose prompts are not the same, nor any two responses of one."""
    made = credit(*lengths)
    one = replace(made[0].prompt, positions=np.zeros((1, 1), dtype=np.int64), next_position=1)
    prompts = [replace(one, ids=np.array([g])) for g in range(len(lengths))]
    return [
        replace(
            sample,
            prompt=prompts[sample.group],
            response=replace(sample.response, ids=sample.response.ids + 100 * place),
        )
        for place, sample in enumerate(made)
    ]


def counted(chunk: Chunk) -> list[tuple[int, int]]:
    """Group and length of each sample of a chunk."""
    return [
        (m.sample.group, len(m.sample.mask))
        for batch in chunk.batches
        for _, row in batch
        for m in row.members
    ]


def test_chunks_hold_every_sample_once_and_no_more_than_the_budget() -> None:
    samples = apart([5, 3, 9, 9], [2, 2, 2], [7, 1, 1])
    every = sorted((s.group, len(s.mask)) for s in samples)
    for budget in (1, 8, 12, 1000):
        for whole in (False, True):
            found = chunks(weighted(samples), budget, whole)
            assert sorted(each for chunk in found for each in counted(chunk)) == every
            for chunk in found:
                prompts = sum(len(prompt.ids) for prompt in chunk.prompts)
                for batch in chunk.batches:
                    members = [m.sample for _, row in batch for m in row.members]
                    assert all(row.prompt is chunk.prompts[n] for n, row in batch)
                    tokens = sum(len(s.response.ids) - 1 for s in members)
                    assert whole or prompts + tokens <= budget or len(members) == 1


def test_no_prompt_is_in_two_chunks() -> None:
    """However a group is split, its prompt runs once."""
    found = chunks(weighted(apart([9] * 8, [9] * 8)), 30)
    assert [len(chunk.prompts) for chunk in found] == [1, 1]
    assert all(len(chunk.batches) > 2 for chunk in found)


def test_kept_prompts_come_first_with_nothing_but_responses() -> None:
    samples = apart([9] * 8, [5] * 3)
    ran = Prompts(lay_out([SharedRow(samples[-1].prompt, ())], torch.device("cpu")))
    kept = Kept(room=100)
    kept.add([content_of(samples[-1].prompt)], ran)
    first, *others = chunks(weighted(samples), 13, kept=kept)
    assert first.ran is ran and not first.prompts
    assert counted(first) == [(1, 5)] * 3 and len(first.batches) == 1, "3 x 4 tokens fit in 13"
    assert all(chunk.ran is None for chunk in others)
    assert [g for chunk in others for g, _ in counted(chunk)] == [0] * 8


def in_turns(sample: TrainSample, *turns: int) -> TrainSample:
    """The sample as an episode of turns of 4 tokens of an id each, 2 tokens shown between."""
    ids, spans = [], []
    for turn in turns:
        ids += [90, 91] if ids else []
        spans.append(TokenSpan(len(ids), len(ids) + 4))
        ids += [turn] * 4
    response = replace(
        sample.response,
        ids=np.array(ids),
        logprobs=np.zeros(len(ids)),
        episode=Episode(tuple(spans), ("",) * len(turns)),
    )
    return replace(sample, response=response, mask=response.written)


def test_answers_that_begin_alike_share_a_micro_batch_and_count_once() -> None:
    """Fed: 4 + 2 + 3 tokens, of the last turn one less; behind a prompt of one."""
    one, *others = apart([1] * 4)
    samples = [in_turns(one, *turns) for turns in ((1, 2), (5, 6), (1, 3), (5, 7))]
    assert len(others) == 3
    (chunk,) = chunks(weighted(samples), 1 + 4 + 2 + 3 + 3)
    first = [[m.sample.response.ids[0] for _, r in b for m in r.members] for b in chunk.batches]
    assert first == [[1, 1], [5, 5]]
    (chunk,) = chunks(weighted(samples), 1 + 4 + 2 + 3 + 3 - 1)
    assert len(chunk.batches) == 4
    (chunk,) = chunks(weighted(samples), 13, alike=False)
    assert len(chunk.batches) == 4, "recurrent layers go on from prompts alone"
    (whole,) = chunks(weighted(samples), 1 + 2 * (4 + 2 + 3 + 3))
    assert len(whole.batches) == 1
    (chunk,) = chunks(weighted(samples), 2 * (4 + 2 + 3 + 3))
    assert len(chunk.batches) == 2
