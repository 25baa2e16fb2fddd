"""Responses that go on from prompts which have run: only their own tokens are fed.

flat tokens   [response 1][response 2]...; turns that several begin with alike stand once
              (`stretches`)
positions     each continues its prompt's; media of its own (an episode's later turns) have
              theirs
sees          its prompt, and what came before it among its own tokens; in a layer with a
              sliding window, the last of those; within a block of its own, what comes after too
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mmrl.policy.prompts import Prompts
from mmrl.policy.recurrent import Continuation, Mixer
from mmrl.policy.shared_prefix import Flat, SharedRow, numbers_of, shown_by, write, written
from mmrl.policy.stretches import Answer, apart, together
from mmrl.policy.tiles import Run, Tiles


@dataclass(frozen=True, kw_only=True)
class Responses(Flat):
    """The flat form of responses alone, and the prompts that they go on from.

    `responses` and `owner` are of the stretches that they consist of, `behind` the numbers of those
    between the prompt and each. `predictors` are prompts [P], and from P on flat tokens.
    """

    prompts: Prompts
    behind: tuple[tuple[int, ...], ...]

    def attend(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scale: float,
        window: int | None = None,
    ) -> Tensor:
        """Responses attend to their prompt and themselves."""
        keys = torch.cat([self.prompts.keys[layer], key])
        values = torch.cat([self.prompts.values[layer], value])
        return self.plan(window).attend(query, keys, values, scale)

    def recur(self, layer: int, mixer: Mixer, hidden: Tensor) -> Tensor:
        """Responses start from where their prompt ended."""
        assert not any(self.behind), "what a layer remembers goes on from prompts alone"
        return self._recurrence.run(mixer, hidden, self.prompts.memories[layer])

    @cached_property
    def _recurrence(self) -> Continuation:
        return Continuation(self.responses, self.owner, self.ids.device)

    def predicting(self, hidden: Tensor) -> Tensor:
        """Hidden states [W, H] that predict what the model wrote, of the flat tokens' [N, H]."""
        return torch.cat([self.prompts.last, hidden])[self.predictors]

    @property
    def before(self) -> int:
        """Tokens of the prompts."""
        return self.prompts.num_tokens

    def _tiles(self, window: int | None) -> Tiles:
        tiles = Tiles()
        placed = [Run(self.before + run.start, self.before + run.stop) for run in self.responses]
        for run, owner, behind in zip(placed, self.owner, self.behind, strict=True):
            tiles.itself(run, window)
            gap = 0
            for number in reversed(behind):
                tiles.behind(run, placed[number], window, gap)
                gap += placed[number].size
            tiles.behind(run, self.prompts.runs[owner], window, gap)
        return tiles


def go_on(
    prompts: Prompts, rows: Sequence[SharedRow], owners: Sequence[int], *, alike: bool = True
) -> Responses:
    """Lay out the responses of rows, whose prompts are those numbered `owners` among the prompts.

    A response's last token is never fed: nothing is predicted from it. With `alike`, what responses
    begin with alike stands once.
    """
    answers = [a for row, owner in zip(rows, owners, strict=True) for a in row.answers(owner)]
    stretches, paths = together(answers) if alike else apart(answers)
    stops = np.cumsum([0, *(stretch.size for stretch in stretches)])
    runs = tuple(Run(int(a), int(b)) for a, b in pairwise(stops))
    ids = np.empty(int(stops[-1]), dtype=np.int64)
    axes = len(rows[0].prompt.positions)
    positions = np.empty((axes, len(ids)), dtype=numbers_of(rows))
    write(stretches, runs, ids, positions)
    places = _predictors(len(prompts.runs), answers, [[runs[i] for i in path] for path in paths])
    told, targets, chosen = written(places, answers)
    shown = shown_by(stretches, runs, ())
    device = prompts.rows.ids.device

    def sent(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(device)

    return Responses(
        prompts=prompts,
        ids=sent(ids),
        positions=sent(positions),
        predictors=sent(told),
        targets=sent(targets),
        responses=runs,
        behind=tuple(stretch.behind for stretch in stretches),
        owner=np.array([stretch.answer.owner for stretch in stretches], dtype=np.int64),
        sizes=np.array([len(answer.ids) for answer in answers], dtype=np.int64),
        blocks=shown.blocks,
        blocks_slide_only=any(row.prompt.blocks_slide_only for row in rows),
        media=shown.media,
        written=None if chosen is None else sent(chosen),
    )


def _predictors(
    count: int, answers: Sequence[Answer], runs_of: Sequence[Sequence[Run]]
) -> npt.NDArray[np.int64]:
    """What predicts each token [M]: the first its prompt, the others what stands before them."""
    pieces = [np.zeros(0, dtype=np.int64)]
    for answer, runs in zip(answers, runs_of, strict=True):
        before = [np.array([answer.owner]), *(count + run.places for run in runs)]
        pieces.append(np.concatenate(before)[: len(answer.ids)])
    return np.concatenate(pieces).astype(np.int64)
