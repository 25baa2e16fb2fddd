"""Rows that share their prompt: one prompt, then all of its responses, each seeing only itself.

    flat tokens   [prompt p][prompt q]...[response 1 of p][response 2 of p]...[response 1 of q]...;
                  a prompt's only response stands right after it
    positions     a response continues its prompt's positions, as if it were alone with it; media
                  of its own (an episode's later turns) have theirs
    sees          what came before it among prompt and own tokens; in a layer with a sliding
                  window, the last of those; within a block of either, what comes after too

The prompt, its media and its keys are computed once for the whole group. The last response token
is never fed: nothing is predicted from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmrl.policy.recurrent import Mixer, Recurrence
from mmrl.policy.tiled import Plan
from mmrl.policy.tiles import Run, Tiles, runs_of
from mmrl.types import Bools, EncodedMedium, Ints, Observed, Prompt, Response


@dataclass(frozen=True)
class SharedRow:
    """A prompt with the token ids [T] of the responses that share it.

    `observed` are the media that each response has of its own, `written` its tokens [T] that the
    model wrote; empty where there are none of the one, or no others.
    """

    prompt: Prompt
    responses: tuple[Ints, ...]
    observed: tuple[Observed | None, ...] = ()
    written: tuple[Bools, ...] = ()

    @classmethod
    def of(cls, prompt: Prompt, responses: Sequence[Response]) -> SharedRow:
        """The row of a prompt's responses, episodes among them."""
        played = any(response.episode is not None for response in responses)
        return cls(
            prompt,
            tuple(response.ids for response in responses),
            tuple(response.observed for response in responses),
            tuple(response.written for response in responses) if played else (),
        )

    @property
    def own(self) -> tuple[Observed | None, ...]:
        """What each response has of its own."""
        return self.observed or (None,) * len(self.responses)

    @property
    def num_tokens(self) -> int:
        """Tokens this row feeds through the trunk."""
        return len(self.prompt.ids) + sum(max(len(r) - 1, 0) for r in self.responses)


@dataclass(frozen=True, kw_only=True)
class Flat:
    """The flat form of some responses, with their prompts among the tokens or before them.

    `ids` [N], `positions` [axes, N], `media` in the order of their placeholders. `predictors` [W]
    says what predicts each response token that the model wrote, in row order; `targets` [W] is the
    token it predicts; `written` [W] its place among all response tokens [M], None where the model
    wrote all of them. `responses` [S] are where each stands among the flat tokens, `owner` [S] is a
    response's prompt, `sizes` [S] its length with the token that is not fed. `blocks` are the runs
    of tokens that see each other both ways, in all layers or only in those with a sliding window.
    Everything here is linear in the flat tokens.
    """

    ids: Tensor
    positions: Tensor
    predictors: Tensor
    targets: Tensor
    responses: tuple[Run, ...]
    owner: Ints
    sizes: Ints
    blocks: tuple[Run, ...] = ()
    blocks_slide_only: bool = False
    media: tuple[EncodedMedium, ...] = ()
    written: Tensor | None = None
    _plans: dict[int | None, Plan] = field(default_factory=dict, init=False)

    @property
    def before(self) -> int:
        """Tokens of prompts that ran before, whose keys stand in front of those here."""
        return 0

    def plan(self, window: int | None) -> Plan:
        """The tiles of attention in one kind of layer."""
        if window not in self._plans:
            tiles = self._tiles(window)
            if window is not None or not self.blocks_slide_only:
                for run in self.blocks:
                    tiles.both_ways(Run(self.before + run.start, self.before + run.stop))
            self._plans[window] = Plan(tiles, self.ids.device, self.before)
        return self._plans[window]

    def spread(self, values: Tensor) -> Tensor:
        """Values [W] of what the model wrote, at their places among all [M]; the others' are 0."""
        if self.written is None:
            return values
        everywhere = values.new_zeros(int(self.sizes.sum()))
        return everywhere.index_copy(0, self.written, values)

    def _tiles(self, window: int | None) -> Tiles:
        """Who sees whom before him."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class SharedPrefix(Flat):
    """The flat form of some rows, and who sees whom in it.

    `prompts` [P] are where each stands among the flat tokens, of which `predictors` are some.
    """

    prompts: tuple[Run, ...]

    def attend(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scale: float,
        window: int | None = None,
    ) -> Tensor:
        """Prompts attend to themselves; responses to their prompt and themselves."""
        return self.plan(window).attend(query, key, value, scale)

    def predicting(self, hidden: Tensor) -> Tensor:
        """Hidden states [W, H] that predict what the model wrote, of the flat tokens' [N, H]."""
        return hidden[self.predictors]

    def recur(self, layer: int, mixer: Mixer, hidden: Tensor) -> Tensor:
        """Prompts start from nothing, responses from where their prompt ended."""
        return self.recurrence.run(mixer, hidden)[0]

    @cached_property
    def recurrence(self) -> Recurrence:
        """The sequences that recurrent layers run over."""
        return Recurrence(self.prompts, self.responses, self.owner, self.ids.device)

    def _tiles(self, window: int | None) -> Tiles:
        tiles = Tiles()
        alone = np.bincount(self.owner, minlength=len(self.prompts)) == 1
        for number, prompt in enumerate(self.prompts):
            if not alone[number]:
                tiles.itself(prompt, window)
        for run, owner in zip(self.responses, self.owner, strict=True):
            prompt = self.prompts[owner]
            if alone[owner]:  # the two are one sequence
                tiles.itself(Run(prompt.start, run.stop), window)
            else:
                tiles.itself(run, window)
                tiles.behind(run, prompt, window)
        return tiles


def lay_out(rows: Sequence[SharedRow], device: torch.device) -> SharedPrefix:
    """Flatten rows; index arithmetic happens in numpy, one transfer a tensor."""
    owner = np.repeat(np.arange(len(rows)), [len(row.responses) for row in rows])
    answers = [r for row in rows for r in row.responses]
    prompts, responses = _runs(rows)
    ids = np.empty(sum(row.num_tokens for row in rows), dtype=np.int64)
    positions = np.empty((len(rows[0].prompt.positions), len(ids)), numbers_of(rows))
    for row, run in zip(rows, prompts, strict=True):
        ids[run.start : run.stop] = row.prompt.ids
        positions[:, run.start : run.stop] = row.prompt.positions
    answers_of(rows, responses, ids, positions)
    places = _predictors(prompts, responses, owner, answers)
    predictors, targets, chosen = written(rows, places, answers)
    shown = shown_by(rows, responses, prompts)

    def sent(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(device)

    return SharedPrefix(
        ids=sent(ids),
        positions=sent(positions),
        predictors=sent(predictors),
        targets=sent(targets),
        prompts=prompts,
        responses=responses,
        owner=owner,
        sizes=np.array([len(r) for r in answers], dtype=np.int64),
        blocks=shown.blocks,
        blocks_slide_only=any(row.prompt.blocks_slide_only for row in rows),
        media=shown.media,
        written=None if chosen is None else sent(chosen),
    )


_EMPTY = np.zeros(0, dtype=np.int64)


def numbers_of(rows: Sequence[SharedRow]) -> np.dtype[Any]:
    """What positions are written in: integers, unless a family spaces frames by fractions."""
    numbers: set[Any] = set()
    for row in rows:
        numbers |= {row.prompt.positions.dtype, np.dtype(type(row.prompt.next_position))}
        numbers |= {own.positions.dtype for own in row.own if own}
    return np.result_type(*numbers)


def answers_of(rows: Sequence[SharedRow], runs: Sequence[Run], ids: Ints, positions: Any) -> None:
    """Write the responses' tokens into ids [N] and positions [axes, N], at their runs."""
    places = iter(runs)
    for row in rows:
        for answer, own in zip(row.responses, row.own, strict=True):
            run = next(places)
            ids[run.start : run.stop] = answer[:-1]
            after = row.prompt.next_position + np.arange(run.size)
            positions[:, run.start : run.stop] = own.positions[:, : run.size] if own else after


def written(
    rows: Sequence[SharedRow], predictors: Ints, answers: Sequence[Ints]
) -> tuple[Ints, Ints, Ints | None]:
    """Predictors and targets [W] of what the model wrote, and its places; None for all of [M]."""
    targets = np.concatenate([_EMPTY, *answers])
    if not any(row.written for row in rows):
        return predictors, targets, None
    flags = [
        flag
        for row in rows
        for flag in row.written or [np.ones(len(r), dtype=bool) for r in row.responses]
    ]
    chosen = np.flatnonzero(np.concatenate(flags))
    return predictors[chosen], targets[chosen], chosen


@dataclass(frozen=True)
class Shown:
    """The media of flat tokens in the order of their placeholders, and their blocks."""

    media: tuple[EncodedMedium, ...]
    blocks: tuple[Run, ...]


def shown_by(
    rows: Sequence[SharedRow], responses: Sequence[Run], prompts: Sequence[Run] = ()
) -> Shown:
    """What responses show at their runs, and prompts where they stand among the tokens too."""
    own_runs = zip(responses, [own for row in rows for own in row.own], strict=True)
    shown = [
        (run, row.prompt.placed, row.prompt.blocks) for row, run in zip(rows, prompts, strict=False)
    ]
    shown += [(run, own.media, own.blocks) for run, own in own_runs if own]
    shown.sort(key=lambda each: each[0].start)
    blocks = [
        block
        for run, _, numbers in shown
        if numbers is not None
        for block in runs_of(numbers[: run.size], run.start)
    ]
    media = [medium for _, media, _ in shown for medium in media]
    return Shown(tuple(media), tuple(blocks))


def _runs(rows: Sequence[SharedRow]) -> tuple[tuple[Run, ...], tuple[Run, ...]]:
    """Where prompts and responses stand, both in row order."""
    fed = [[max(len(r) - 1, 0) for r in row.responses] for row in rows]
    at = 0
    prompts: list[Run] = []
    responses: list[list[Run]] = [[] for _ in rows]
    for row, sizes, own in zip(rows, fed, responses, strict=True):
        prompts.append(Run(at, at + len(row.prompt.ids)))
        at = prompts[-1].stop
        if len(sizes) == 1:
            own.append(Run(at, at + sizes[0]))
            at = own[-1].stop
    for sizes, own in zip(fed, responses, strict=True):
        for size in sizes if not own else ():
            own.append(Run(at, at + size))
            at += size
    return tuple(prompts), tuple(run for own in responses for run in own)


def _predictors(
    prompts: Sequence[Run], responses: Sequence[Run], owner: Ints, answers: Sequence[Ints]
) -> Ints:
    """A response's first token is predicted by the last prompt token, the rest by its own."""
    pieces = [_EMPTY]
    for own, run, answer in zip(owner, responses, answers, strict=True):
        before = np.append(prompts[own].stop - 1, run.places)
        pieces.append(before[: len(answer)])
    return np.concatenate(pieces).astype(np.int64)
