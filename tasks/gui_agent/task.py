"""A finished GUI trajectory: the environment's verdict, less a penalty for an unreadable end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mmrl import task as contract
from mmrl.records import media_source
from mmrl.rewards.parsed import Parsed
from mmrl.rewards.points import Point, from_source
from mmrl.task import RewardPart, mean_by
from mmrl.tasks.gui_agent.steps import ACTIONS, ENDS, Screens, Step, parse_steps, write_step
from mmrl.types import Answer, MediaRef, Record, Sample, Score, Text

_OFFLINE = ("infeasible", "replay")


@dataclass(frozen=True)
class Gold:
    """OSWorld's evaluator by name; `screens` and the `path` to the goal for a replay."""

    evaluator: str
    screens: Screens | None = None
    path: tuple[Step, ...] = ()


@dataclass(frozen=True)
class Task(contract.Task):
    """Reads OSWorld tasks (`instruction`, `evaluator`, `related_apps`) with a first `screenshot`.

    Evaluators that need the machine take their verdict from `Answer.outcome`; without it an answer
    is unscorable, not wrong.
    """

    max_steps: int = 15

    name: ClassVar[str] = "gui_agent"
    summary: ClassVar[str] = "score a finished computer-use trajectory"
    parts: ClassVar[dict[str, RewardPart]] = {
        "success": RewardPart(0.0, 1.0),
        "malformed": RewardPart(-0.5, 0.0),
    }
    metric: ClassVar[str] = "success_rate"

    def sample(self, record: Record) -> Sample:
        """Ask a task with its first screen."""
        fields = record.fields
        goal = str(fields.get("instruction") or "").strip()
        if not goal:
            raise ValueError("a task needs an instruction")
        gold = _read_gold(fields["evaluator"])
        image = MediaRef("screenshot", media_source(record, fields["screenshot"]))
        apps = list(fields.get("related_apps") or ["none"])
        ask = f"{_instruction(self.max_steps)}\n\nTask: {goal}"
        return Sample(record.id, self.name, (image, Text(ask)), gold, meta={"app": str(apps[0])})

    def score(self, gold: Any, answer: Answer) -> Score:
        """Judge the trajectory offline or take the environment's verdict.

        The end is readable if the last step is, and it says finished or fail or is the last of
        `max_steps`.
        """
        steps = parse_steps(answer.text, self.max_steps)
        nothing: Parsed[Step] = Parsed("missing", None, "no action")
        last = steps[-1] if steps else nothing
        ended = last.value is not None and (last.value.name in ENDS or len(steps) == self.max_steps)
        success = self._success(gold, steps, answer)
        parts = {"success": success, "malformed": 0.0 if ended else -0.5}
        status = last.status if ended or last.value is None else "malformed"
        if answer.truncated and not ended:
            status = "truncated"
        return Score(parts, success, status, last.reason)

    def breakdown(
        self, values: Sequence[float], metas: Sequence[Mapping[str, Any]]
    ) -> Mapping[str, float]:
        """Success rate by the first related application."""
        return mean_by("app", values, metas)

    def target(self, sample: Sample, answer: Answer) -> str | None:
        """A trajectory that succeeds, for the evaluators that work offline."""
        gold: Gold = sample.gold
        if gold.evaluator not in _OFFLINE:
            return None
        frame = answer.frames[0]
        turns = []
        for step in gold.path:
            seen = from_source(step.point, answer.space, frame) if step.point else None
            action = write_step(Step(step.name, seen, step.text))
            turns.append(f"Thought: next.\nAction: {action}")
        return "\n".join(turns)

    def _success(self, gold: Gold, steps: Sequence[Parsed[Step]], answer: Answer) -> float:
        if answer.outcome is not None:
            if not (math.isfinite(answer.outcome) and 0.0 <= answer.outcome <= 1.0):
                raise ValueError(f"the environment's outcome {answer.outcome} is not in 0-1")
            return answer.outcome
        if gold.evaluator not in _OFFLINE:
            raise ValueError(f"evaluator '{gold.evaluator}' needs the environment's verdict")
        read = [step.value for step in steps if step.value is not None]
        if not read or len(read) != len(steps):
            return 0.0
        if gold.screens is None:
            return float(read[-1].name == "fail")
        return float(gold.screens.reaches_goal(read, answer))


def _instruction(max_steps: int) -> str:
    forms = ", ".join(f"{name}({', '.join(args)})" for name, args in ACTIONS.items())
    return (
        "Operate the computer. In each step write 'Thought:' and your reasoning, then on a new "
        f"line 'Action:' and one action. Actions: {forms}. Arguments are given by name, as texts; "
        "boxes are points such as start_box='(x,y)'. End with finished(), or with fail() if the "
        f"task cannot be done. There are {max_steps} steps."
    )


def _read_gold(evaluator: Mapping[str, Any]) -> Gold:
    name = str(evaluator["func"])
    if name == "infeasible":
        return Gold(name, path=(Step("wait"), Step("fail")))
    if name != "replay":
        return Gold(name)
    expected = evaluator["expected"]
    screens = Screens(expected["screens"], str(expected["start"]), str(expected["goal"]))
    names = set(screens.links)
    targets = {link["to"] for links in screens.links.values() for link in links}
    if not {screens.start, screens.goal} | targets <= names:
        raise ValueError("a link, the start or the goal names no screen")
    return Gold(name, screens, _shortest(screens))


def _shortest(screens: Screens) -> tuple[Step, ...]:
    """A way to the goal; none raises ValueError, and so does a goal that is the start."""
    paths: dict[str, tuple[Step, ...]] = {screens.start: ()}
    queue = [screens.start]
    for screen in queue:
        for link in screens.links[screen]:
            if link["to"] not in paths:
                paths[link["to"]] = (*paths[screen], _take(link))
                queue.append(link["to"])
    if not paths.get(screens.goal):
        raise ValueError("no way leads from the start to the goal")
    return (*paths[screens.goal], Step("finished"))


def _take(link: Mapping[str, Any]) -> Step:
    if "type" in link:
        return Step("type", text=str(link["type"]))
    x1, y1, x2, y2 = map(float, link["box"])
    if not (x1 < x2 and y1 < y2):
        raise ValueError(f"empty or inverted box {link['box']}")
    return Step("click", Point((x1 + x2) / 2, (y1 + y2) / 2))
