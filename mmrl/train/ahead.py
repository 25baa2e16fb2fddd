"""Rollouts of the next steps while this one is trained on.

With a staleness of s, the batch of step k is always sampled by the weights after step k - 1 - s
(the first s + 1 batches by those of the start), however fast either side is: what a run does is a
function of its configuration and seed. Its samples are drawn, expanded and planned when it is
asked for, in step k - s, so samplers and plans know what was observed up to step k - 1 - s. All
that happens to the groups later (rewards, editors, credit) belongs to step k. What editors ask for
on top is drawn then and there and sampled by the newest weights; where there are editors, the next
batch is asked for after them, so that they need not wait for it.

At a checkpoint the batches under way are waited for and saved as they are.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from mmrl.algorithms.stages.observed import observed_of, observed_values
from mmrl.algorithms.stages.replay import episode_of
from mmrl.engines.background import BackgroundEngine
from mmrl.errors import DataError, TrainingError, UserError, one_line
from mmrl.rollout.rollouts import Rollouts
from mmrl.runlog.metrics import Clock
from mmrl.stage import Context
from mmrl.train.batches import Asked, Asker
from mmrl.types import Extra, Group, Response

T = TypeVar("T")


@dataclass(frozen=True)
class _Batch:
    """The groups of a step, under way or made, sampled by policy version `version`."""

    step: int
    version: int
    drawn: Sequence[Sequence[str]]
    made: Future[list[Group]]


class Ahead:
    """Takes a step's batch from a queue of at most `staleness` + 1, which it keeps filled.

    `rollouts` samples with the engine that `engine` lets work in the background.
    """

    def __init__(
        self,
        asker: Asker,
        rollouts: Rollouts,
        engine: BackgroundEngine,
        staleness: int,
    ) -> None:
        self._asker, self._rollouts, self._engine = asker, rollouts, engine
        self._staleness = staleness
        self._queue: deque[_Batch] = deque()
        self._asked = 0
        self._waited, self._ready = 0.0, 0

    def take(self, context: Context, wanted: int, refill: int, clock: Clock) -> list[Group]:
        """Take the step's batch, waiting for it if need be; refills are sampled on demand."""
        if refill:
            with clock.stage("encode"):
                asked = self._asker.ask(context, wanted, refill)
            if not asked.prompts:
                return []
            return self._wait(self._begin(asked, context.step - 1, clock), clock)
        self._ready = sum(batch.made.done() for batch in self._queue)
        editors = len(self._asker.algorithm.edit) > 0
        self._ask(context.step + self._staleness - editors, context.step - 1, clock)
        batch = self._queue.popleft()
        assert batch.step == context.step, "batches are taken in the order of their steps"
        return self._wait(batch.made, clock)

    def collected(self, context: Context, clock: Clock) -> None:
        """Ask for the next batch, if that waited for the step's editors."""
        self._ask(context.step + self._staleness, context.step - 1, clock)

    def metrics(self, step: int, groups: Sequence[Group]) -> dict[str, float]:
        """How old the step's weights were, how long either side waited, and what was ready."""
        ages = [r.staleness(step) for group in groups for r in group.responses]
        found = {
            "overlap/staleness_mean": float(np.mean(ages)) if ages else 0.0,
            "overlap/staleness_max": float(max(ages, default=0)),
            "overlap/trainer_waited": self._waited,
            "overlap/engine_waited": self._engine.worker.take_idle(),
            "overlap/ready": float(self._ready),
        }
        self._waited = 0.0
        return found

    def _hand_over(self, clock: Clock) -> None:
        """Give the engine the newest weights, for what is about to be asked.

        With a staleness of 1 the step needs all that is under way, so it costs nothing to wait,
        and the weights need not be copied; with more, the trainer may run on.
        """
        if not self._engine.outdated:
            return
        wait = self._staleness == 1
        if wait and self._queue:
            self._wait(self._queue[-1].made, clock)
        with clock.stage("sync"):
            self._engine.hand_over(wait=wait)

    def _ask(self, last: int, version: int, clock: Clock) -> None:
        """Ask for the batches up to step `last`, or to the run's last."""
        last = min(last, self._asker.config.steps)
        while self._asked < last:
            self._asked += 1
            context = self._asker.context(self._asked)
            with clock.stage("encode"):
                asked = self._asker.ask(context, context.prompts_per_step)
            made = self._begin(asked, version, clock) if asked.prompts else _done([])
            self._queue.append(_Batch(self._asked, version, asked.drawn, made))

    def _begin(self, asked: Asked, version: int, clock: Clock) -> Future[list[Group]]:
        """Let what was asked be sampled by the newest weights, which are those of so many steps."""
        self._hand_over(clock)

        def sample() -> list[Group]:
            groups = self._rollouts.sample(asked.prompts, asked.counts, asked.length, asked.seed)
            return [_dated(group, version) for group in groups]

        return self._engine.submit(sample, version)

    def _wait(self, made: Future[T], clock: Clock) -> T:
        """The result; what went wrong in the background is raised here, in one line."""
        begun = time.monotonic()
        try:
            with clock.stage("rollout"):
                return made.result()
        except UserError:
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {one_line(error)}"
            raise TrainingError(f"rolling out ahead failed: {reason}") from error
        finally:
            self._waited += time.monotonic() - begun

    def state(self) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
        """The batches of steps to come, waited for: JSON data and the tokens, [T] a response."""
        rows, tokens = [], []
        for batch in self._queue:
            groups = self._wait(batch.made, Clock())
            assert not any(g.scores or g.extra != Extra() for g in groups), "not yet scored"
            answers = [[_to_state(r) for r in group.responses] for group in groups]
            row = {"step": batch.step, "policy_version": batch.version, "drawn": batch.drawn}
            rows.append({**row, "answers": answers})
            tokens += [response for group in groups for response in group.responses]
        ids = np.concatenate([np.zeros(0, np.int64), *(r.ids for r in tokens)])
        logprobs = np.concatenate([np.zeros(0), *(r.logprobs for r in tokens)])
        return rows, {"ids": torch.from_numpy(ids), "logprobs": torch.from_numpy(logprobs)}

    def load_state(
        self, step: int, rows: Sequence[Mapping[str, Any]], tokens: Mapping[str, Tensor]
    ) -> None:
        """Go on after `step` from `state()`, shapes as there; raises UserError if not its own."""
        if len(rows) > self._staleness:
            raise older(len(rows))
        self._asked, start = step, 0
        for row in rows:
            context = self._asker.context(row["step"])
            prompts = self._asker.again(context, context.prompts_per_step, row["drawn"])
            if len(prompts) != len(row["answers"]):
                raise DataError(
                    f"the prompts of step {row['step']}, which the checkpoint holds answers to, "
                    "cannot be made again: resume needs the same records, media and algorithm"
                )
            groups = []
            for prompt, answers in zip(prompts, row["answers"], strict=True):
                ends = start + np.cumsum([0, *(answer["tokens"] for answer in answers)])
                responses = tuple(
                    _from_state(answer, tokens, first, end)
                    for answer, first, end in zip(answers, ends, ends[1:], strict=False)
                )
                start = int(ends[-1])
                groups.append(_dated(Group(prompt, responses, ()), row["policy_version"]))
            made = _done(groups)
            self._queue.append(_Batch(row["step"], row["policy_version"], row["drawn"], made))
            self._asked = row["step"]


def older(batches: int) -> TrainingError:
    """What to say where a checkpoint holds more batches than the run may have in its queue."""
    return TrainingError(
        f"the checkpoint holds answers for {batches} steps ahead: resume with "
        f"rollout.max_staleness={batches}"
    )


def _done(groups: list[Group]) -> Future[list[Group]]:
    made: Future[list[Group]] = Future()
    made.set_result(groups)
    return made


def _dated(group: Group, version: int) -> Group:
    dated = (replace(response, policy_version=version) for response in group.responses)
    return replace(group, responses=tuple(dated))


def _to_state(response: Response) -> dict[str, Any]:
    row = {"text": response.text, "finish": response.finish, "tokens": len(response.ids)}
    row |= {"followed": response.followed} if response.followed is not None else {}
    if response.episode is None:
        return row
    observed = observed_values(response.observed)
    return {**row, "episode": asdict(response.episode), "observed": observed}


def _from_state(
    answer: Mapping[str, Any], tokens: Mapping[str, Tensor], first: int, end: int
) -> Response:
    ids, logprobs = (tokens[name][first:end].numpy().copy() for name in ("ids", "logprobs"))
    episode = episode_of(answer.get("episode"))
    observed = observed_of(answer.get("observed"))
    return Response(
        ids,
        logprobs,
        answer["text"],
        answer["finish"],
        episode=episode,
        observed=observed,
        followed=answer.get("followed"),
    )
