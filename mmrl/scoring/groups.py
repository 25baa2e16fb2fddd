"""Groups of responses -> the same groups with scores."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from mmrl.scoring.pool import OUTSIDE, ScoreJob, Scores, unscorable
from mmrl.task import Moment
from mmrl.types import Answer, Group, Response


def score_groups(scorer: Scores, groups: Sequence[Group], moment: Moment = OUTSIDE) -> list[Group]:
    """Score every response of every group with the task of its sample.

    An episode whose environment failed is unscorable, whatever the verifier would say.
    """
    jobs = [
        ScoreJob(group.prompt.sample.task, group.prompt.sample.gold, answer_of(group, response), i)
        for i, group in enumerate(groups)
        for response in group.responses
        if not _failure_of(response)
    ]
    scores = iter(scorer.score(jobs, moment))
    return [
        dataclasses.replace(
            group,
            scores=tuple(
                unscorable(failure) if (failure := _failure_of(response)) else next(scores)
                for response in group.responses
            ),
        )
        for group in groups
    ]


def answer_of(group: Group, response: Response) -> Answer:
    """What a verifier sees of a response."""
    prompt, episode = group.prompt, response.episode
    return Answer(
        response.text,
        response.truncated,
        prompt.frames,
        prompt.space,
        outcome=episode.outcome if episode else None,
        turns=episode.said if episode else (),
        opening=prompt.opening,
        screens=episode.screens if episode else (),
        ids=tuple(response.ids.tolist()),
        followed=response.followed,
    )


def _failure_of(response: Response) -> str:
    return response.episode.failure if response.episode else ""
