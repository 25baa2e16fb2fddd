"""The held-out records of a run: evaluated before, in between and after."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmrl.backend.world import World
from mmrl.config import RunConfig
from mmrl.data.samples import Samples
from mmrl.data.sources import Say, Source
from mmrl.engines.engine import Engine, Sampling
from mmrl.evaluate.ask import evaluate
from mmrl.evaluate.summary import Evaluation
from mmrl.policy.encoder import Encodes
from mmrl.runlog.progress import now_and_then
from mmrl.scoring.pool import Scores


@dataclass
class HeldOut:
    """Answers the held-out records of every source, greedily, and writes what came of it.

    `last` is the file that was written last, or the start's; empty where nothing is held out.
    """

    config: RunConfig
    sources: Sequence[Source]
    encoder: Encodes
    engine: Engine
    scorer: Scores
    world: World
    say: Say
    last: Mapping[str, Any] = field(default_factory=dict)

    def before(self, *, first_phase: bool) -> float | None:
        """The start's metric: from the run folder if it is there, else measured.

        Later phases than the first have a start of their own, which is not measured.
        """
        file = self.config.run / "eval_before.json"
        known = self.world.once(
            lambda: json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
        )
        if known is None:
            return self.write(file.name) if first_phase else None
        self.last = known
        return float(known["metric"])

    def write(self, name: str) -> float | None:
        """Evaluate, write the file, return the first source's metric."""
        title = name.removesuffix(".json").replace("_", " ")
        for source in self.sources:
            if source.held_out:
                self.say(f"{title}: asking {len(self._asked(source))} records of {source.key}")
        results = self._evaluations()
        if not results:
            return None
        first, *others = results
        payload = {**first.to_json(), "others": [other.to_json() for other in others]}
        self.last = payload
        if self.world.first:
            (self.config.run / name).write_text(json.dumps(payload), encoding="utf-8")
        for r in results:
            self.say(
                f"{title}: {r.task} {r.metric_name} "
                f"{r.metric:.3f} [{r.low:.3f}, {r.high:.3f}] on {r.records} records"
            )
        return first.metric

    def metrics(self) -> dict[str, float]:
        """The metric of every source, for a step."""
        return {f"eval/{r.task}": r.metric for r in self._evaluations()}

    def _asked(self, source: Source) -> Samples:
        assert source.held_out is not None
        return source.held_out[: self.config.trainer.eval_limit]

    def _evaluations(self) -> list[Evaluation]:
        sampling = Sampling(self.config.rollout.max_new_tokens, temperature=0.0)
        return [
            evaluate(
                self._asked(source),
                source.task,
                self.encoder,
                self.engine,
                self.scorer,
                sampling,
                now_and_then(self.say, "held-out records", len(self._asked(source))),
            )
            for source in self.sources
            if source.held_out
        ]
