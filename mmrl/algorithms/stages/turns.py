"""Episodes of several turns: spans of tokens, and advantages that differ by turn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from mmrl.algorithm import Algorithm
from mmrl.errors import UserError
from mmrl.stage import NEEDS
from mmrl.types import Floats, Group, Response, Sample, TokenSpan


def turns(group: Group) -> list[tuple[TokenSpan, ...]]:
    """The turns of every episode; raises UserError where a response is none, or has branches."""
    if any(response.branches for response in group.responses):
        raise UserError(
            "the algorithm pays turn by turn, and an episode has branches, which have what it has "
            "on average: leave rollout.history_screens unset, or take grpo"
        )
    found = [r.episode.turns for r in group.responses if r.episode is not None]
    if len(found) < len(group.responses):
        raise UserError(f"the algorithm needs {NEEDS['turns']}: {_ELSE}")
    return found


def require_episodes(algorithm: Algorithm, samples: Iterable[Sample]) -> None:
    """Raise UserError where an algorithm and the samples of a run disagree about turns."""
    if not algorithm.needs & {"turns", "offsets", "steps"}:
        return
    for sample in samples:
        if "turns" in algorithm.needs and sample.start is None:
            raise UserError(
                f"algorithm '{algorithm.name}' needs {NEEDS['turns']}: sample '{sample.id}' of "
                f"task '{sample.task}' is answered in one; {_ELSE}"
            )
        if sample.start is not None and algorithm.needs & {"offsets", "steps"}:
            raise UserError(
                f"algorithm '{algorithm.name}' pays parts of one text: sample '{sample.id}' of "
                f"task '{sample.task}' is answered in several turns"
            )


_ELSE = "use a task with an environment (`Task.step`), such as maze_walk"


def by_turn(
    response: Response, spans: Sequence[TokenSpan], values: Sequence[float] | Floats
) -> Floats:
    """Spread one value a turn on the turn's tokens [T]; 0 elsewhere."""
    tokens = np.zeros(len(response.ids))
    for span, value in zip(spans, values, strict=True):
        tokens[span.start : span.end] = value
    return tokens
