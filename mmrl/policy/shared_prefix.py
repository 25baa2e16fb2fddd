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
import numpy.typing as npt
import torch
from torch import Tensor

from mmrl.policy.recurrent import Mixer, Recurrence
from mmrl.policy.stretches import Answer, Stretch, apart
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

    def answers(self, owner: int) -> list[Answer]:
        """Its responses, behind the prompt of a number."""
        count, start = len(self.responses), self.prompt.next_position
        own, told = self.observed or (None,) * count, self.written or (None,) * count
        return [Answer(owner, start, *each) for each in zip(self.responses, own, told, strict=True)]

    @property
    def num_tokens(self) -> int:
        """Tokens this row feeds through the trunk."""
        return len(self.prompt.ids) + sum(max(len(r) - 1, 0) for r in self.responses)


@dataclass(frozen=True, kw_only=True)
class Seeing:
    """Flat tokens `ids` [N] and who sees whom among them, and before them.

    `blocks` are the runs of tokens that see each other both ways, in all layers or only in those
    with a sliding window. Everything here is linear in the flat tokens.
    """

    ids: Tensor
    blocks: tuple[Run, ...] = ()
    blocks_slide_only: bool = False
    _plans: dict[int | None, Plan] = field(default_factory=dict, init=False)

    @property
    def before(self) -> int:
        """Tokens that ran before, whose keys stand in front of those here."""
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

    def _tiles(self, window: int | None) -> Tiles:
        """Who sees whom before him."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Flat(Seeing):
    """The flat form of some responses, with their prompts among the tokens or before them.

    `positions` [axes, N], `media` in the order of their placeholders. `predictors` [W]
    says what predicts each response token that the model wrote, in row order; `targets` [W] is the
    token it predicts; `written` [W] its place among all response tokens [M], None where the model
    wrote all of them. `responses` [S] are where each stands among the flat tokens, `owner` [S] is a
    response's prompt, `sizes` [S] its length with the token that is not fed.
    """

    positions: Tensor
    predictors: Tensor
    targets: Tensor
    responses: tuple[Run, ...]
    owner: Ints
    sizes: Ints
    media: tuple[EncodedMedium, ...] = ()
    written: Tensor | None = None

    def spread(self, values: Tensor) -> Tensor:
        """Values [W] of what the model wrote, at their places among all [M]; the others' are 0."""
        if self.written is None:
            return values
        everywhere = values.new_zeros(int(self.sizes.sum()))
        return everywhere.index_copy(0, self.written, values)


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
    answers = [answer for i, row in enumerate(rows) for answer in row.answers(i)]
    stretches, _ = apart(answers)
    prompts, responses = _runs(rows)
    ids = np.empty(sum(row.num_tokens for row in rows), dtype=np.int64)
    positions = np.empty((len(rows[0].prompt.positions), len(ids)), numbers_of(rows))
    for row, run in zip(rows, prompts, strict=True):
        ids[run.start : run.stop] = row.prompt.ids
        positions[:, run.start : run.stop] = row.prompt.positions
    write(stretches, responses, ids, positions)
    places = _predictors(prompts, responses, answers)
    predictors, targets, chosen = written(places, answers)
    asked = [
        (run, row.prompt.placed, row.prompt.blocks) for row, run in zip(rows, prompts, strict=True)
    ]
    shown = shown_by(stretches, responses, asked)

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
        sizes=np.array([len(answer.ids) for answer in answers], dtype=np.int64),
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
        numbers |= {own.positions.dtype for own in row.observed if own}
    return np.result_type(*numbers)


def write(
    stretches: Sequence[Stretch], runs: Sequence[Run], ids: Ints, positions: npt.NDArray[Any]
) -> None:
    """Write the tokens of stretches into ids [N] and positions [axes, N], at their runs."""
    for stretch, run in zip(stretches, runs, strict=True):
        ids[run.start : run.stop] = stretch.answer.ids[stretch.start : stretch.stop]
        places = stretch.answer.places(stretch.start, stretch.stop)
        positions[:, run.start : run.stop] = places


def written(predictors: Ints, answers: Sequence[Answer]) -> tuple[Ints, Ints, Ints | None]:
    """Predictors and targets [W] of what the model wrote, and its places; None for all of [M]."""
    targets = np.concatenate([_EMPTY, *(answer.ids for answer in answers)])
    if all(answer.written is None for answer in answers):
        return predictors, targets, None
    flags = [np.ones(len(a.ids), dtype=bool) if a.written is None else a.written for a in answers]
    chosen = np.flatnonzero(np.concatenate(flags))
    return predictors[chosen], targets[chosen], chosen


Place = tuple[Run, Sequence[EncodedMedium], Ints | None]
"""Flat tokens, the media that they show and the numbers of their blocks."""


@dataclass(frozen=True)
class Shown:
    """The media of flat tokens in the order of their placeholders, and their blocks."""

    media: tuple[EncodedMedium, ...]
    blocks: tuple[Run, ...]


def shown_by(stretches: Sequence[Stretch], runs: Sequence[Run], asked: Sequence[Place]) -> Shown:
    """What stretches show at their runs, beside prompts that stand among the tokens too."""
    shown = [*asked]
    for stretch, run in zip(stretches, runs, strict=True):
        blocks = stretch.answer.blocks(stretch.start, stretch.stop)
        shown.append((run, stretch.media, blocks))
    shown.sort(key=lambda each: each[0].start)
    blocks_of = [
        block
        for run, _, numbers in shown
        if numbers is not None
        for block in runs_of(numbers, run.start)
    ]
    media = [medium for _, media, _ in shown for medium in media]
    return Shown(tuple(media), tuple(blocks_of))


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
    prompts: Sequence[Run], responses: Sequence[Run], answers: Sequence[Answer]
) -> Ints:
    """A response's first token is predicted by the last prompt token, the rest by its own."""
    pieces = [_EMPTY]
    for answer, run in zip(answers, responses, strict=True):
        before = np.append(prompts[answer.owner].stop - 1, run.places)
        pieces.append(before[: len(answer.ids)])
    return np.concatenate(pieces).astype(np.int64)
