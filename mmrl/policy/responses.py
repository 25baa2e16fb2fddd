"""Responses that go on from prompts which have run: only their own tokens are fed.

flat tokens   [response 1][response 2]...
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
import torch
from torch import Tensor

from mmrl.policy.prompts import Prompts
from mmrl.policy.recurrent import Continuation, Mixer
from mmrl.policy.shared_prefix import Flat, SharedRow, answers_of, numbers_of, shown_by, written
from mmrl.policy.tiles import Run, Tiles


@dataclass(frozen=True, kw_only=True)
class Responses(Flat):
    """The flat form of responses alone, and the prompts that they go on from.

    `predictors` are prompts [P], and from P on flat tokens.
    """

    prompts: Prompts

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
        for run, owner in zip(self.responses, self.owner, strict=True):
            placed = Run(self.before + run.start, self.before + run.stop)
            tiles.itself(placed, window)
            tiles.behind(placed, self.prompts.runs[owner], window)
        return tiles


def go_on(prompts: Prompts, rows: Sequence[SharedRow], owners: Sequence[int]) -> Responses:
    """Lay out the responses of rows, whose prompts are those numbered `owners` among the prompts.

    A response's last token is never fed: nothing is predicted from it.
    """
    owner = np.repeat(np.asarray(owners, dtype=np.int64), [len(row.responses) for row in rows])
    answers = [answer for row in rows for answer in row.responses]
    fed = [max(len(answer) - 1, 0) for answer in answers]
    stops = np.cumsum([0, *fed])
    runs = tuple(Run(int(a), int(b)) for a, b in pairwise(stops))
    ids = np.empty(int(stops[-1]), dtype=np.int64)
    axes = len(rows[0].prompt.positions)
    positions = np.empty((axes, len(ids)), dtype=numbers_of(rows))
    answers_of(rows, runs, ids, positions)
    count, predictors = len(prompts.runs), [np.zeros(0, dtype=np.int64)]
    for own, run, answer in zip(owner, runs, answers, strict=True):
        predictors.append(np.append(own, count + run.places)[: len(answer)])
    told, targets, chosen = written(rows, np.concatenate(predictors), answers)
    shown = shown_by(rows, runs)
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
        owner=owner,
        sizes=np.array([len(answer) for answer in answers], dtype=np.int64),
        blocks=shown.blocks,
        blocks_slide_only=any(row.prompt.blocks_slide_only for row in rows),
        media=shown.media,
        written=None if chosen is None else sent(chosen),
    )
