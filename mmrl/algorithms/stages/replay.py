"""Responses as JSON data, for buffers that live in an algorithm's state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from mmrl.algorithms.stages.observed import observed_of, observed_values
from mmrl.errors import UserError
from mmrl.frame import Frame
from mmrl.types import Episode, Extra, Group, Response, Score, TokenSpan


@dataclass(frozen=True)
class TakenIn:
    """Mark of a group that a buffer has seen: where a step is refilled, its first come again."""


def taken_in(group: Group) -> Group:
    """Mark a group as seen by a buffer."""
    return replace(group, extra=replace(group.extra, own=(*group.extra.own, TakenIn())))


def is_taken_in(group: Group) -> bool:
    """True of a group that a buffer has seen."""
    return group.extra.of(TakenIn) is not None


def put_first(group: Group, response: Response, score: Score) -> Group:
    """Let a stored response take the place of a group's first.

    What was measured of the group's responses no longer holds: the learner measures what it needs
    again. The KL of the stored one is not known and costs nothing.
    """
    penalties = group.extra.penalties
    if penalties is not None:
        penalties = [np.zeros(len(response.ids)), *penalties[1:]]
    return replace(
        group,
        responses=(response, *group.responses[1:]),
        scores=(score, *group.scores[1:]),
        extra=Extra(penalties=penalties, greedy=group.extra.greedy, own=group.extra.own),
    )


def freeze(response: Response, score: Score) -> dict[str, Any]:
    """Write a scored response as JSON data; spans of the score are left out.

    Raises UserError for an episode in branches, of which it would keep the first alone.
    """
    if response.branches:
        raise UserError(
            "an episode whose history was cut is not kept for later steps: leave "
            "rollout.history_screens out, or take an algorithm that keeps none"
        )
    return {
        "ids": response.ids.tolist(),
        "logprobs": response.logprobs.tolist(),
        "text": response.text,
        "finish": response.finish,
        "parts": dict(score.parts),
        "metric": score.metric,
        "status": score.status,
        "reward": score.reward,
        "episode": None if response.episode is None else asdict(response.episode),
        "observed": observed_values(response.observed),
    }


def thaw(values: Mapping[str, Any], *, on_policy: bool = False) -> tuple[Response, Score]:
    """Read a scored response back; `on_policy` forgets what the policy of its time gave it."""
    logprobs = np.array(values["logprobs"], dtype=float)
    response = Response(
        ids=np.array(values["ids"], dtype=np.int64),
        logprobs=np.full_like(logprobs, np.nan) if on_policy else logprobs,
        text=values["text"],
        finish=values["finish"],
        episode=episode_of(values.get("episode")),
        observed=observed_of(values.get("observed")),
    )
    score = Score(values["parts"], values["metric"], values["status"], reward=values["reward"])
    return response, score


def episode_of(values: Mapping[str, Any] | None) -> Episode | None:
    """Read an episode back from what `asdict` made of it."""
    if values is None:
        return None
    turns = tuple(TokenSpan(**turn) for turn in values["turns"])
    screens = tuple(s if s is None else Frame.read(s) for s in values.get("screens", ()))
    return Episode(turns, tuple(values["said"]), values["outcome"], values["failure"], screens)
