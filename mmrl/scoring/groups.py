"""Groups of responses -> the same groups with scores."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from mmrl.scoring.pool import OUTSIDE, ScoreJob, Scores, unscorable
from mmrl.task import Moment
from mmrl.types import Answer, Episode, Group, Response


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
    """What a verifier sees of a response, all branches of an episode as one."""
    prompt, episode = group.prompt, whole_episode(response)
    return Answer(
        whole_text(response),
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


def whole_text(response: Response) -> str:
    """All that was said in a response, in its branches too."""
    return "\n".join([response.text, *(part.text for _, part in response.branches)])


def whole_episode(response: Response) -> Episode | None:
    """The episode with what was said in its branches, one after the other; its tokens are not."""
    first = response.episode
    if first is None or not response.branches:
        return first
    others = [part.episode for _, part in response.branches if part.episode is not None]
    said = (*first.said, *(text for part in others for text in part.said))
    screens = (*first.screens, *(screen for part in others for screen in part.screens))
    return dataclasses.replace(first, said=said, screens=screens)


def _failure_of(response: Response) -> str:
    return response.episode.failure if response.episode else ""
