"""A page in a real browser, operated one action a turn; the page itself says when it is done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from mmrl import task as contract
from mmrl.frame import Mark
from mmrl.records import media_source
from mmrl.rewards.action_forms import Form, StepGrammar, grammar_of
from mmrl.rewards.actions import Action
from mmrl.rewards.boxes import Box
from mmrl.rewards.grammar import Think
from mmrl.rewards.parsed import Parsed
from mmrl.rewards.points import Point, from_source, in_box, to_source
from mmrl.task import FIRST_STATE, RewardPart, mean_by
from mmrl.types import Answer, MediaRef, Observation, Record, Sample, Score, Status, Text

PAGES = Path(__file__).parent / "pages"
TYPES = (
    "click", "double_click", "right_click", "move_to", "drag", "scroll", "type", "hotkey", "enter",
    "tab", "wait", "complete",
)  # fmt: skip
SIDE = 224
"""Points of the screen's side."""


@dataclass(frozen=True)
class Task(contract.Task):
    """Reads a `page` with its `seed`, its `goal`, the first `screenshot` and a `path` to the goal.

    An episode has at most `turns` turns, each an action in the `form` of a GUI system. Without a
    browser (`mmrl score`, self-checks) an action counts if it is the next one of the path, a click
    anywhere on what is to be clicked.
    """

    turns: int = 8
    think: Think = "none"
    form: Form = "json"

    name: ClassVar[str] = "web_page"
    summary: ClassVar[str] = "operate a page in a real browser, one action a turn"
    parts: ClassVar[dict[str, RewardPart]] = {
        "done": RewardPart(0.0, 1.0),
        "format": RewardPart(0.0, 1.0, 0.1),
    }
    metric: ClassVar[str] = "success_rate"
    world: ClassVar[str] = "mmrl.environments.browser:pages_of"

    pages: ClassVar[Path] = PAGES
    side: ClassVar[int] = SIDE

    def sample(self, record: Record) -> Sample:
        """Ask with the page's first screen; the episode begins there."""
        fields = record.fields
        path = [dict(step) for step in fields["path"]]
        if not path or len(path) > self.turns:
            raise ValueError(f"the path has {len(path)} actions, and there are {self.turns} turns")
        screen = MediaRef("screenshot", media_source(record, fields["screenshot"]))
        start = {"page": str(fields["page"]), "seed": int(fields["seed"])}
        ask = f"{fields['goal']} {self._grammar.instruction()}"
        return Sample(
            id=record.id,
            task=self.name,
            parts=(screen, Text(ask)),
            gold={"path": path},
            meta={"page": start["page"]},
            start=Observation({"start": start, "actions": []}, key=FIRST_STATE, outcome=0.0),
            turns=self.turns,
        )

    def step(self, gold: Any, state: Any, answer: Answer) -> Observation:
        """Read one action and add it to those so far, in points of the screen.

        The browser carries it out and says what is then to be seen.
        """
        action = self._grammar.parse(answer)[0].value
        if action is None:
            return Observation(state, key=_key(state), text="That is no action.", outcome=0.0)
        taken = [*state["actions"], _on_screen(action, answer)]
        done = _along(taken, gold["path"])
        over = done or action.type == "complete"
        return Observation(
            {**state, "actions": taken},
            _key({"actions": taken}),
            "",
            float(done),
            float(done),
            over,
        )

    def score(self, gold: Any, answer: Answer) -> Score:
        """Take the page's verdict; `format` is the share of turns that are actions."""
        if answer.outcome is None:
            raise ValueError("a page is scored by itself")
        read = [self._grammar.parse(replace(answer, text=turn)) for turn in answer.turns]
        formed = sum(well for _, well in read) / max(len(read), 1)
        nothing: Parsed[Action] = Parsed("missing", None, "no turn")
        last = read[-1][0] if read else nothing
        status: Status = "truncated" if answer.truncated and last.value is None else last.status
        actions = [parsed.value for parsed, _ in read]
        return Score(
            {"done": answer.outcome, "format": formed},
            answer.outcome,
            status,
            last.reason,
            marks=tuple(_landed(actions, answer)),
        )

    def breakdown(
        self, values: Sequence[float], metas: Sequence[Mapping[str, Any]]
    ) -> Mapping[str, float]:
        """Success rate by page."""
        return mean_by("page", values, metas)

    def target(self, sample: Sample, answer: Answer) -> str | None:
        """The next action of the path, as far as the episode has come along it."""
        assert sample.start is not None
        path, taken = sample.gold["path"], len(sample.start.state["actions"])
        step = path[min(taken, len(path) - 1)]
        point, to = (_said(step, names, answer) for names in (("x", "y"), ("to_x", "to_y")))
        return self._grammar.write(Action(step["type"], point, str(step.get("text", "")), to))

    @property
    def _grammar(self) -> StepGrammar:
        return grammar_of(self.form, self.think, TYPES)


def _landed(actions: Sequence[Action | None], answer: Answer) -> Iterator[Mark]:
    """Where on its screen the action of each turn landed, if it has a place."""
    for turn, (action, frame) in enumerate(zip(actions, answer.screens, strict=False)):
        if action is not None and action.point is not None and frame is not None:
            seen = to_source(action.point, answer.space, frame)
            yield Mark("point", "answer", tuple(seen), f"{turn + 1} {action.type}", turn=turn)


def _on_screen(action: Action, answer: Answer) -> dict[str, Any]:
    """The action as plain data, its place in points of the screen that it was written at."""
    found: dict[str, Any] = {"type": action.type, "text": action.text}
    for names, point in ((("x", "y"), action.point), (("to_x", "to_y"), action.to)):
        if point is not None:
            frame = answer.screens[-1]
            assert frame is not None, "a page is always seen"
            at = to_source(point, answer.space, frame)
            found |= {name: v / frame.pixel_ratio for name, v in zip(names, at, strict=True)}
    return found


def _said(step: Mapping[str, Any], names: Sequence[str], answer: Answer) -> Point | None:
    """A place of a path's step as the model says it; None where the step has none."""
    if names[0] not in step:
        return None
    frame = answer.frames[0]
    at = Point(*(step[name] * frame.pixel_ratio for name in names))
    return from_source(at, answer.space, frame)


def _along(taken: Sequence[Mapping[str, Any]], path: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the actions are the whole path and nothing else."""
    return len(taken) == len(path) and all(map(_is_next, taken, path))


def _is_next(taken: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    if taken["type"] != wanted["type"] or taken["text"] != wanted.get("text", ""):
        return False
    ends = (("box", "x", "y"), ("to_box", "to_x", "to_y"))
    return all(
        box not in wanted or (x in taken and in_box(Point(taken[x], taken[y]), Box(*wanted[box])))
        for box, x, y in ends
    )


def _key(state: Mapping[str, Any]) -> str:
    return f"after {len(state['actions'])} actions"
