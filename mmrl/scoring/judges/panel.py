"""The judges of a run: scored groups -> the same groups with a part for each judge."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mmrl.scoring.groups import whole_text
from mmrl.scoring.judges.backend_of_judge import AsksModel, Outage, Usage
from mmrl.scoring.judges.comparisons import Places, shown_together, values_of
from mmrl.scoring.judges.judge_config import JudgeConfig
from mmrl.scoring.judges.judge_endpoint import Endpoint
from mmrl.scoring.judges.kept_verdicts import KeptVerdicts
from mmrl.scoring.judges.question import Question, Verdict, question_of
from mmrl.types import Group, Score

if TYPE_CHECKING:
    from mmrl.backend.world import World

Value = float | Outage
"""What a judge gives an answer: from 0 to 1, or why it gives nothing."""


class Judge:
    """A judge with what it has said before and what it has cost."""

    def __init__(self, config: JudgeConfig, file: Path) -> None:
        self.config, self.usage = config, Usage()
        self._kept = KeptVerdicts(config, file)
        self._model = _model_of(config)

    def values(self, groups: Sequence[Group]) -> list[list[Value]]:
        """A value for each answer of each group; what was asked before is not asked again."""
        asked = [_questions(self.config, group) for group in groups]
        verdicts = self._verdicts([q for each in asked for q in each.values()])
        found: list[list[Value]] = []
        for group, each in zip(groups, asked, strict=True):
            said = {places: verdicts[q.key] for places, q in each.items()}
            known = {p: v for p, v in said.items() if not isinstance(v, Outage)}
            texts = _texts(group)
            values = values_of(self.config, texts, known)
            found.append([_why(said, texts, i) if v is None else v for i, v in enumerate(values)])
        return found

    def close(self) -> None:
        """Free what its model holds."""
        self._model.close()

    def metrics(self) -> dict[str, float]:
        """What was asked and spent since the last call."""
        counts, config = self.usage.counts, self.config
        spent = counts["tokens_in"] * config.price_in + counts["tokens_out"] * config.price_out
        names = ("requests", "retries", "outages", "kept", "tokens_in", "tokens_out")
        found = {name: float(counts[name]) for name in names}
        seconds = counts["milliseconds"] / 1000
        counts.clear()
        return {**found, "cost": spent / 1e6, "seconds": seconds}

    def _verdicts(self, questions: Sequence[Question]) -> dict[str, Verdict | Outage]:
        """What is said of each question, by its key."""
        asked = {question.key: question for question in questions}
        kept = {key: self._kept.find(question) for key, question in asked.items()}
        found: dict[str, Verdict | Outage] = {k: v for k, v in kept.items() if v is not None}
        missing = [question for key, question in asked.items() if key not in found]
        started = time.monotonic()
        said = self._model.ask(missing, self.usage) if missing else []
        pairs = list(zip(missing, said, strict=True))
        self._kept.keep([(q, each) for q, each in pairs if not isinstance(each, Outage)])
        self.usage.count(
            kept=len(found),
            outages=sum(isinstance(each, Outage) for each in said),
            milliseconds=round(1000 * (time.monotonic() - started)),
        )
        return found | {question.key: each for question, each in pairs}


class Ensemble:
    """Several judges as one; what one of them cannot judge has no value."""

    def __init__(self, config: JudgeConfig, file: Path) -> None:
        self.config = config
        self._members = {
            name: Judge(member, file.with_name(f"{file.stem}.{name}.jsonl"))
            for name, member in config.members.items()
        }

    def values(self, groups: Sequence[Group]) -> list[list[Value]]:
        """The members' values, combined."""
        said = [member.values(groups) for member in self._members.values()]
        return [
            [self._combined(each) for each in zip(*of_group, strict=True)]
            for of_group in zip(*said, strict=True)
        ]

    def close(self) -> None:
        """Free what the members hold."""
        for member in self._members.values():
            member.close()

    def metrics(self) -> dict[str, float]:
        """What was asked and spent since the last call, of all members."""
        found: dict[str, float] = {}
        for member in self._members.values():
            for name, value in member.metrics().items():
                found[name] = found.get(name, 0.0) + value
        return found

    def _combined(self, values: Sequence[Value]) -> Value:
        out = next((value for value in values if isinstance(value, Outage)), None)
        if out is not None:
            return out
        numbers = np.array(values, dtype=float)
        if self.config.combine == "worst":
            return float(numbers.min())
        spread = self.config.caution * numbers.std() if self.config.combine == "cautious" else 0.0
        return float(numbers.mean() - spread)


class Panel:
    """All judges of a run; each process asks about its share of the groups."""

    def __init__(self, judges: Mapping[str, JudgeConfig], run: Path, world: World) -> None:
        self._world = world
        folder = run / "judges" if world.rank == 0 else run / "judges" / str(world.rank)
        self._judges = {
            name: (Ensemble if config.kind == "ensemble" else Judge)(
                config, folder / f"{name}.jsonl"
            )
            for name, config in judges.items()
        }

    def judge(self, groups: Sequence[Group]) -> list[Group]:
        """The groups with a part for each judge; an answer that one could not judge is unscorable.

        An answer that is unscorable already stays so.
        """
        found = list(groups)
        for name, judge in self._judges.items():
            tasks = judge.config.tasks
            places = [i for i, g in enumerate(groups) if not tasks or _is_of(g, tasks)]
            own = self._world.share(places)
            values = judge.values([groups[i] for i in own])
            parts = self._world.gather(dict(zip(own, values, strict=True)))
            for part in parts:
                for i, each in part.items():
                    found[i] = _with_part(found[i], name, judge.config.weight, each)
        return found

    def metrics(self) -> dict[str, float]:
        """What the judges were asked and spent since the last call."""
        return {
            f"judge/{name}/{key}": value
            for name, judge in self._judges.items()
            for key, value in judge.metrics().items()
        }

    def close(self) -> None:
        """Free what the judges hold."""
        for judge in self._judges.values():
            judge.close()


def _model_of(config: JudgeConfig) -> AsksModel:
    if config.kind == "endpoint":
        return Endpoint(config)
    from mmrl.scoring.judges.local_judge import LocalJudge

    return LocalJudge(config)


def _is_of(group: Group, tasks: Sequence[str]) -> bool:
    """Whether a group is of one of these tasks; two sources of a task have a number behind it."""
    key = group.prompt.sample.task
    return key in tasks or key.rpartition("-")[0] in tasks


def _texts(group: Group) -> list[str]:
    return [whole_text(response) for response in group.responses]


def _questions(config: JudgeConfig, group: Group) -> dict[Places, Question]:
    """The questions about the answers of a group, by the places they show."""
    texts = _texts(group)
    return {
        places: question_of(config, group.prompt.sample, [texts[i] for i in places])
        for places in shown_together(config, texts)
    }


def _why(said: Mapping[Places, Verdict | Outage], texts: Sequence[str], place: int) -> Outage:
    """What kept a judge from a verdict on the answer at a place."""
    first = texts.index(texts[place])
    of_it = (v for places, v in said.items() if first in places and isinstance(v, Outage))
    return next(of_it, Outage("no verdict"))


def _with_part(group: Group, name: str, weight: float, values: Sequence[Value]) -> Group:
    scores = [_judged(s, name, weight, v) for s, v in zip(group.scores, values, strict=True)]
    return dataclasses.replace(group, scores=tuple(scores))


def _judged(score: Score, name: str, weight: float, value: Value) -> Score:
    if score.reward is None:
        return score
    if isinstance(value, Outage):
        reason = f"judge '{name}': {value.reason}"
        return dataclasses.replace(score, reward=None, status="unscorable", reason=reason)
    reward = score.reward + weight * value
    return dataclasses.replace(score, parts={**score.parts, name: value}, reward=reward)
