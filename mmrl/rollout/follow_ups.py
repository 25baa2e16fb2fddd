"""A second question about an answer, which the policy is asked before the answer is scored.

Whether a passage tells what it should, whether a summary is enough: a task that knows by what the
policy makes of the answer says so with `Task.follow_up`. The second question is a prompt of its
own, answered greedily, and its text is what the verifier finds in `Answer.followed`; nothing of it
is trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from mmrl import task as contract
from mmrl.engines.engine import Engine, Sampling
from mmrl.errors import MediaError
from mmrl.policy.encoder import Encodes
from mmrl.policy.weights import Weights
from mmrl.scoring.groups import whole_text
from mmrl.task import Task
from mmrl.types import Prompt, Response, Sample


class FollowUps:
    """An engine that asks further about what another engine has answered.

    A response without a second question, or whose second question cannot be encoded, is as it was:
    its `followed` is None.
    """

    def __init__(self, engine: Engine, tasks: Mapping[str, Task], encoder: Encodes) -> None:
        self._engine, self._tasks, self._encoder = engine, tasks, encoder

    def generate(
        self, prompts: Sequence[Prompt], counts: Sequence[int], sampling: Sampling, seed: int
    ) -> list[list[Response]]:
        """Sample counts[i] responses to prompt i, and ask about each what its task wants."""
        drawn = self._engine.generate(prompts, counts, sampling, seed)
        asked = {
            (i, j): further
            for i, (prompt, responses) in enumerate(zip(prompts, drawn, strict=True))
            for j, response in enumerate(responses)
            if (further := self._further(prompt.sample, response)) is not None
        }
        followed = dict(zip(asked, self._said(list(asked.values()), sampling, seed), strict=True))
        return [
            [replace(response, followed=followed.get((i, j))) for j, response in enumerate(group)]
            for i, group in enumerate(drawn)
        ]

    def sync(self, weights: Weights) -> None:
        """Let the engine take over the weights."""
        self._engine.sync(weights)

    def close(self) -> None:
        """Free what the engine holds."""
        self._engine.close()

    def _further(self, sample: Sample, response: Response) -> Sample | None:
        return self._tasks[sample.task].follow_up(sample, whole_text(response))

    def _said(self, asked: Sequence[Sample], sampling: Sampling, seed: int) -> list[str | None]:
        """The greedy answers to samples; None to one that cannot be encoded."""
        encoded = self._encoder.encode([(sample,) for sample in asked]) if asked else []
        shown = [p for each in encoded if not isinstance(each, MediaError) for p in each]
        how = Sampling(sampling.max_new_tokens, temperature=0.0)
        made = iter(self._engine.generate(shown, [1] * len(shown), how, seed) if shown else [])
        return [None if isinstance(each, MediaError) else next(made)[0].text for each in encoded]


def following(engine: Engine, tasks: Mapping[str, Task], encoder: Encodes) -> Engine:
    """The engine, with second questions if one of the tasks has any."""
    has = any(type(task).follow_up is not contract.Task.follow_up for task in tasks.values())
    return FollowUps(engine, tasks, encoder) if has else engine
