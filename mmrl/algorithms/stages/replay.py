"""Responses as JSON data, for buffers that live in an algorithm's state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from mmrl.types import Episode, Group, Response, Score, TokenSpan

TAKEN_IN = "taken_in"
"""Mark of a group that a buffer has seen: where a step is refilled, its first groups come again."""


def taken_in(group: Group) -> Group:
    """Mark a group as seen by a buffer."""
    return replace(group, extra={**group.extra, TAKEN_IN: True})


def freeze(response: Response, score: Score) -> dict[str, Any]:
    """Write a scored response as JSON data; spans of the score are left out."""
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
    )
    score = Score(values["parts"], values["metric"], values["status"], reward=values["reward"])
    return response, score


def episode_of(values: Mapping[str, Any] | None) -> Episode | None:
    """Read an episode back from what `asdict` made of it."""
    if values is None:
        return None
    turns = tuple(TokenSpan(**turn) for turn in values["turns"])
    return Episode(turns, tuple(values["said"]), values["outcome"], values["failure"])
