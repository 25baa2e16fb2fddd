"""The passes over packed samples: prompts once, then what goes on from them, part by part.

Rows carry their prompts where these cannot run apart: in families that share nothing, and where
sharded weights make all processes go the same way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from mmrl.backend.agreement import Agreement, passes
from mmrl.policy.attention import active_layout
from mmrl.policy.packing import Chunk, Row, Weighted, chunks, pack
from mmrl.policy.policy import Policy
from mmrl.policy.prompts import SendBack
from mmrl.policy.responses import Responses, go_on
from mmrl.policy.shared_prefix import SharedPrefix, lay_out
from mmrl.types import Prompt, TrainSample


@dataclass(frozen=True)
class MicroBatch:
    """Rows that go through the trunk together, under a layout that is active meanwhile.

    `rows` is empty in a pass that is only made to keep in step with other processes.
    """

    rows: tuple[Row, ...]
    layout: SharedPrefix | Responses
    prompts: list[Prompt]
    last: bool

    @property
    def members(self) -> list[Weighted]:
        """The samples in the order of the layout's responses."""
        return [member for row in self.rows for member in row.members]


@dataclass(frozen=True)
class Packing:
    """How samples are packed: trunk tokens of a micro-batch, and whether groups stay whole.

    With an `agreement` all processes make the same passes.
    """

    budget: int
    whole_groups: bool = False
    agreement: Agreement | None = None


def micro_batches(
    policy: Policy,
    samples: Sequence[Weighted],
    packing: Packing,
    everyone: Sequence[Weighted] = (),
    send: SendBack | None = None,
) -> Iterator[MicroBatch]:
    """Yield the micro-batches of samples.

    With `send`, gradients are taken of each before the next is asked for; what flows into prompts
    is sent on by it. `everyone` are the samples of all processes, where these keep in step.
    """
    if packing.agreement is not None or not policy.family.declaration.shared_prefix:
        yield from _with_prompts(policy, samples, packing, everyone)
        return
    kept = None if send is None else policy.kept
    alike = not policy.recurs
    for chunk in chunks(samples, packing.budget, packing.whole_groups, kept, alike):
        yield from _behind_prompts(policy, chunk, send)


def _behind_prompts(policy: Policy, chunk: Chunk, send: SendBack | None) -> Iterator[MicroBatch]:
    with torch.set_grad_enabled(send is not None):
        prompts = chunk.ran or policy.run_prompts(chunk.prompts)
    for batch in chunk.batches:
        owners, rows = zip(*batch, strict=True)
        shared = [row.shared() for row in rows]
        layout = go_on(prompts, shared, owners, alike=not policy.recurs)
        with active_layout(layout):
            yield MicroBatch(rows, layout, [row.prompt for row in rows], last=False)
    if send is not None:
        prompts.back(send)


def _with_prompts(
    policy: Policy, samples: Sequence[Weighted], packing: Packing, everyone: Sequence[Weighted]
) -> Iterator[MicroBatch]:
    packed = pack(samples, packing.budget, packing.whole_groups)
    for rows, last in passes(packed, packing.agreement):
        shown = rows or [idle_row(everyone)]
        layout = lay_out([row.shared() for row in shown], policy.device)
        with active_layout(layout):
            yield MicroBatch(tuple(rows or ()), layout, [row.prompt for row in shown], last)


def idle_row(samples: Sequence[Weighted]) -> Row:
    """A short row without media, for a pass that is only made to keep in step."""
    sample = min(samples, key=lambda w: len(w.sample.prompt.ids)).sample
    prompt = replace(sample.prompt, media=(), order=None)
    ids = sample.response.ids[:1]
    response = replace(sample.response, ids=ids, episode=None, observed=None)
    return Row((Weighted(replace(sample, prompt=prompt, response=response), np.zeros(1)),))


def unweighted(samples: Sequence[TrainSample]) -> list[Weighted]:
    """The samples as packing takes them, each with its place, where nothing is learnt."""
    return [Weighted(sample, np.zeros(0), place) for place, sample in enumerate(samples)]
