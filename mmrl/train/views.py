"""What the policy, and a reference, make of answers besides sampling them: under other prompts too.

Each is measured before a step's updates and travels with its group, as a record of
`mmrl.algorithms.stages.policy_view`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mmrl.algorithms.stages.credit import pair
from mmrl.algorithms.stages.policy_view import Aided, Collision, Implied, Mismatched
from mmrl.errors import TrainingError
from mmrl.policy.appending import continued
from mmrl.types import Floats, Group, Prompt, TrainSample

Score = Callable[[Sequence[TrainSample]], Sequence[Floats]]
"""Log-probs [T] of every sample's response."""


def with_own(groups: Sequence[Group], records: Sequence[object]) -> list[Group]:
    """Let every group carry a record of its own."""
    return [
        replace(g, extra=replace(g.extra, own=(*g.extra.own, record)))
        for g, record in zip(groups, records, strict=True)
    ]


def with_collision(groups: Sequence[Group], values: Sequence[Floats]) -> list[Group]:
    """Let every group carry log sum p^2 of its answers' tokens [T]."""
    left = iter(values)
    return with_own(groups, [Collision([next(left) for _ in g.responses]) for g in groups])


def with_views(
    groups: Sequence[Group],
    needs: Collection[str],
    policy: Score,
    reference: Score | None,
    tokenizer: Any,
    aid: str,
) -> list[Group]:
    """Measure what is needed of `implied`, `mismatched`, `aided`, each over all groups at once."""
    found = list(groups)
    if "implied" in needs:
        assert reference is not None, "what is implied is compared with a reference"
        totals = _totals(found, policy, reference)
        found = with_own(found, [Implied(values) for values in totals])
    if "mismatched" in needs:
        assert reference is not None, "a mismatch is compared with a reference"
        found = with_own(found, _mismatched(found, policy, reference))
    if "aided" in needs:
        tail = np.array(tokenizer(aid, add_special_tokens=False)["input_ids"], dtype=np.int64)
        prompts = [continued(group.prompt, tail) for group in found]
        totals = _totals(found, policy, None, prompts)
        found = with_own(found, [Aided(values) for values in totals])
    return found


def _mismatched(groups: Sequence[Group], policy: Score, reference: Score) -> list[Mismatched]:
    """The first answer of the group that follows, under each group's prompt; the last's are the
    first's.
    """
    following = [*groups[1:], *groups[:1]]
    moved = [
        replace(other, responses=other.responses[:1], scores=other.scores[:1])
        for other in following
    ]
    totals = _totals(moved, policy, reference, [group.prompt for group in groups])
    return [Mismatched(float(values[0]) if len(values) else 0.0) for values in totals]


def _totals(
    groups: Sequence[Group],
    policy: Score,
    reference: Score | None,
    prompts: Sequence[Prompt] | None = None,
) -> list[Floats]:
    """Log-prob, or log-ratio to the reference, of every answer [G], under these prompts."""
    shown = prompts or [group.prompt for group in groups]
    if prompts and any(r.observed is not None for group in groups for r in group.responses):
        raise TrainingError("answers that were shown media in later turns stay under their prompt")
    samples = [
        sample
        for index, (group, prompt) in enumerate(zip(groups, shown, strict=True))
        for sample in pair(group, np.zeros(len(group.responses)), index, prompt)
    ]
    values = policy(samples)
    if reference is not None:
        other = reference(samples)
        values = [own - ref for own, ref in zip(values, other, strict=True)]
    sums = iter([float(v[s.response.written].sum()) for v, s in zip(values, samples, strict=True)])
    return [np.array([next(sums) for _ in group.responses]) for group in groups]
