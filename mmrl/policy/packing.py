"""Train samples -> micro-batches of rows that share their prompt.

A micro-batch holds at most `budget` trunk tokens with its prompts, which bounds its memory:
attention holds no more than they do, however long or short the responses (`policy/tiled.py`).
Samples of one prompt stay together as long as they fit; a group too long for one micro-batch is
split. What the samples add up to does not depend on the packing. Where an objective compares the
members of a group, its rows share a micro-batch, even one over the budget.

`chunks` are for prompts that run apart from their responses: once, however many parts these have.
There what responses begin with alike counts once, as it is fed, and such responses stand together.
`pack` is for rows that carry their prompts, each part with the prompt again.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch

from mmrl.policy.kept import Kept
from mmrl.policy.prompts import Prompts
from mmrl.policy.shared_prefix import SharedRow
from mmrl.policy.stretches import Beginnings, Unit
from mmrl.policy.stretches import units as units_of
from mmrl.types import Floats, Prompt, TrainSample


@dataclass(frozen=True)
class Weighted:
    """A train sample with the reducer's weight for each of its tokens [T].

    `place` is the sample's own among those that are packed, for whoever needs it back.
    """

    sample: TrainSample
    weights: Floats
    place: int = 0


@dataclass(frozen=True)
class Row:
    """Samples of one prompt that go through the model together."""

    members: tuple[Weighted, ...]

    @property
    def prompt(self) -> Prompt:
        """The prompt that they share."""
        return self.members[0].sample.prompt

    def shared(self) -> SharedRow:
        """The row as the policy takes it."""
        return SharedRow.of(self.prompt, [m.sample.response for m in self.members])


def default_budget(device: torch.device) -> int:
    """Trunk tokens of one forward where nothing is configured.

    A GPU wants large products. A core is busy with a thousand tokens; more only take memory, and
    with less for each, two cores are a third slower.
    """
    return 1024 * torch.get_num_threads() if device.type == "cpu" else 16384


def pack(samples: Sequence[Weighted], budget: int, whole_groups: bool = False) -> list[list[Row]]:
    """Pack into micro-batches, first fit over units in decreasing length; deterministic.

    A unit is a row, or all rows of a rollout group where `whole_groups` is set.
    """
    groups = _by_prompt(samples, whole_groups)
    asked = [(members, len(members[0].sample.prompt.ids)) for members in groups]
    rows = [row for members, prompt in asked for row in _split(members, budget, prompt, False)]
    units = _by_group(rows) if whole_groups else [[row] for row in rows]
    sizes = [sum(row.shared().num_tokens for row in unit) for unit in units]
    return [[row for i in sorted(batch) for row in units[i]] for batch in first_fit(sizes, budget)]


@dataclass(frozen=True)
class Chunk:
    """Prompts that run together, once, and the micro-batches of rows that go on from them.

    A row is listed with the number of its prompt. `ran` are prompts that have run already.
    """

    prompts: tuple[Prompt, ...]
    batches: tuple[tuple[tuple[int, Row], ...], ...]
    ran: Prompts | None = None


def chunks(
    samples: Sequence[Weighted],
    budget: int,
    whole_groups: bool = False,
    kept: Kept | None = None,
    alike: bool = True,
) -> list[Chunk]:
    """Pack as `pack` does, but for groups over the budget: each is a chunk by itself.

    Prompts that were `kept` come first, with micro-batches of nothing but responses. With `alike`,
    what responses of a row begin with alike is fed once.
    """
    groups = _by_prompt(samples, whole_groups)
    # In one order, whether prompts were kept or not: what is added up is the same, bit for bit.
    rows = [Row(tuple(_side_by_side(members) if alike else members)) for members in groups]
    if kept is None or whole_groups:
        return _fresh(rows, budget, whole_groups, alike)
    found: dict[int, list[tuple[int, Row]]] = {}
    ran: dict[int, Prompts] = {}
    fresh = []
    for row in rows:
        place = kept.find(content_of(row.prompt))
        if place is None:
            fresh.append(row)
            continue
        ran[id(place[0])] = place[0]
        found.setdefault(id(place[0]), []).append((place[1], row))
    first = [_behind(ran[key], numbered, budget, alike) for key, numbered in found.items()]
    return [*first, *_fresh(fresh, budget, whole_groups, alike)]


def _behind(ran: Prompts, numbered: Sequence[tuple[int, Row]], budget: int, alike: bool) -> Chunk:
    """The micro-batches of rows behind prompts that have run."""
    parts_of = [(n, part) for n, row in numbered for part in _split(row.members, budget, 0, alike)]
    sizes = [_fed(part, alike) for _, part in parts_of]
    batches = [tuple(parts_of[i] for i in sorted(batch)) for batch in first_fit(sizes, budget)]
    return Chunk((), tuple(batches), ran)


def _fresh(rows: Sequence[Row], budget: int, whole_groups: bool, alike: bool) -> list[Chunk]:
    units = _by_group(rows) if whole_groups else [[row] for row in rows]
    sizes = [sum(len(row.prompt.ids) + _fed(row, alike) for row in unit) for unit in units]
    long = [i for i, size in enumerate(sizes) if size > budget and not whole_groups]
    found = []
    for i in long:
        ((row,),) = [units[i]]
        split = _split(row.members, budget, len(row.prompt.ids), alike)
        found.append(Chunk((row.prompt,), tuple(((0, part),) for part in split)))
    short = [i for i in range(len(units)) if i not in set(long)]
    for batch in first_fit([sizes[i] for i in short], budget):
        together = [row for i in sorted(batch) for row in units[short[i]]]
        found.append(Chunk(tuple(row.prompt for row in together), (tuple(enumerate(together)),)))
    return found


def first_fit(sizes: Sequence[int], budget: int) -> list[list[int]]:
    """Put numbers of units, the largest unit first, into the first batch with room for its size."""
    batches: list[list[int]] = []
    loads: list[int] = []
    for size, i in sorted(((size, i) for i, size in enumerate(sizes)), reverse=True):
        place = next((b for b, load in enumerate(loads) if load + size <= budget), None)
        if place is None:
            batches.append([i])
            loads.append(size)
        else:
            batches[place].append(i)
            loads[place] += size
    return batches


def parts(prompt: int, sizes: Sequence[int], budget: int) -> list[list[int]]:
    """Split the sizes of a prompt's answers, in order, so that each part fits with its prompt.

    One that does not fit even alone is a part by itself.
    """
    found: list[list[int]] = []
    load = 0
    for size in sizes:
        if not found or load + size > budget:
            found.append([])
            load = prompt
        found[-1].append(size)
        load += size
    return found


def _by_group(rows: Sequence[Row]) -> list[list[Row]]:
    """Put the rows of one rollout group together, in first-seen order."""
    groups: dict[int, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.members[0].sample.group, []).append(row)
    return list(groups.values())


def _by_prompt(samples: Sequence[Weighted], whole_groups: bool) -> list[list[Weighted]]:
    """Put the samples of equal prompts together, in first-seen order.

    Where groups stay whole, prompts of different groups are different. Responses without tokens
    have no row.
    """
    groups: dict[Hashable, list[Weighted]] = {}
    for weighted in samples:
        if len(weighted.sample.response.ids):
            group = weighted.sample.group if whole_groups else None
            key = group, content_of(weighted.sample.prompt)
            groups.setdefault(key, []).append(weighted)
    return list(groups.values())


def content_of(prompt: Prompt) -> Hashable:
    """All that the trunk sees of a prompt, and where: equal for prompts that may share a row."""
    media = tuple((medium.kind, medium.hash) for medium in prompt.placed)
    blocks = None if prompt.blocks is None else prompt.blocks.tobytes()
    at = prompt.positions.tobytes(), prompt.next_position, blocks, prompt.blocks_slide_only
    return prompt.home, prompt.ids.tobytes(), media, at


def _split(members: Sequence[Weighted], budget: int, prompt: int, alike: bool) -> list[Row]:
    """Rows that fit with so many tokens of their prompt."""
    beginnings = Beginnings()
    found: list[list[Weighted]] = []
    load = budget
    for member, units in _made_of(members, alike):
        _, size = beginnings.add(units)
        if not found or load + size > budget:
            beginnings = Beginnings()
            load = prompt
            size = beginnings.add(units)[1]
            found.append([])
        load += size
        found[-1].append(member)
    return [Row(tuple(part)) for part in found]


def _side_by_side(members: Sequence[Weighted]) -> list[Weighted]:
    """The members with those side by side that begin alike."""
    beginnings = Beginnings()
    made = [(beginnings.add(units)[0], member) for member, units in _made_of(members, True)]
    return [member for _, member in sorted(made, key=lambda each: each[0])]


def _fed(row: Row, alike: bool) -> int:
    """Tokens of a row's responses that go through the trunk."""
    beginnings = Beginnings()
    return sum(beginnings.add(units)[1] for _, units in _made_of(row.members, alike))


def _made_of(members: Sequence[Weighted], alike: bool) -> list[tuple[Weighted, list[Unit]]]:
    """What the responses of one prompt are made of; all of each where nothing is shared."""
    answers = Row(tuple(members)).shared().answers(0)
    return [
        (member, units_of(answer) if alike else [Unit(0, answer.fed, (), place)])
        for place, (member, answer) in enumerate(zip(members, answers, strict=True))
    ]
