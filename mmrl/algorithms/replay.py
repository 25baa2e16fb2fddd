"""Responses as JSON data, for buffers that live in an algorithm's state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mmrl.types import Response, Score


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
    }


def thaw(values: Mapping[str, Any], *, on_policy: bool = False) -> tuple[Response, Score]:
    """Read a scored response back; `on_policy` forgets what the policy of its time gave it."""
    logprobs = np.array(values["logprobs"], dtype=float)
    response = Response(
        ids=np.array(values["ids"], dtype=np.int64),
        logprobs=np.full_like(logprobs, np.nan) if on_policy else logprobs,
        text=values["text"],
        finish=values["finish"],
    )
    score = Score(values["parts"], values["metric"], values["status"], reward=values["reward"])
    return response, score
