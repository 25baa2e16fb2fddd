"""Tasks by name: build one from its parameters, weigh its scores, show what it asks."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import json
import math
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from mmrl import plugins
from mmrl.environments import tooled
from mmrl.errors import ConfigError, DataError, MediaError
from mmrl.frame import Frame
from mmrl.rewards.custom import load_callable
from mmrl.rewards.own_code import Misreturned, defined_at, own_code, said_of
from mmrl.runlog.journal import plain
from mmrl.scoring.observations import carried_out, observation_of
from mmrl.task import Moment, RewardPart, Task
from mmrl.types import Answer, MediaRef, Observation, Record, Role, Sample, Score, Status, Text

_RANGE_SLACK = 1e-9


@dataclasses.dataclass(frozen=True, slots=True)
class Together:
    """Answers that a task scores in one call; `task` is its key among those of a scorer."""

    task: str
    golds: tuple[Any, ...]
    answers: tuple[Answer, ...]
    moment: Moment

    def scores(self, task: Task) -> list[Score]:
        """What the task says of each."""
        scores = task.score_together(self.golds, self.answers, self.moment)
        if len(scores) != len(self.answers):
            raise ValueError(f"{len(scores)} scores for {len(self.answers)} answers")
        return scores


def task_class(name: str) -> type[Task]:
    """The dataclass `Task` of the module that a task name stands for, or that `file.py:name` is."""
    if ":" not in name:
        return typing.cast(type[Task], plugins.load("task", name).Task)
    found = load_callable(name, "task")
    if not isinstance(found, type) or not dataclasses.is_dataclass(found):
        raise ConfigError(f"task '{name}' is no task: put @task (mmrl.rewards.exact) above it")
    return typing.cast(type[Task], found)


def load_task(name: str, params: Mapping[str, Any] | None = None) -> Task:
    """Build a task from its parameters.

    Every task takes `tools`, with which its questions are answered in at most `tool_turns` turns;
    the tool `search` looks into `tool_corpus`.

    Args:
        name: a task's name, or `file.py:name`.
        params: its parameters; what is not given has the task's own default.

    Raises:
        ConfigError: an unknown name or parameter, with its nearest; one that is missing, or of the
            wrong type.

    Example:
        >>> load_task("counting", {"think": "none"}).metric
        'accuracy'
    """
    cls = task_class(name)
    values = dict(params or {})
    if tools := _check(name, "tools", tuple[str, ...], values.pop("tools", ())):
        turns = _check(name, "tool_turns", int, values.pop("tool_turns", tooled.TURNS))
        corpus = _check(name, "tool_corpus", str, values.pop("tool_corpus", ""))
        cls = tooled.with_tools(cls, tools, turns, corpus)
    known = {field.name: field for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    for unknown in values.keys() - known.keys():
        near = difflib.get_close_matches(unknown, known, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known) or 'none'}"
        raise ConfigError(f"task '{name}' has no parameter '{unknown}': {hint}")
    for field in known.values():
        if field.name not in values and _is_required(field):
            raise ConfigError(f"task '{name}' needs the parameter '{field.name}'")
    hints = typing.get_type_hints(cls)
    checked = {key: _check(name, key, hints[key], value) for key, value in values.items()}
    try:
        return cls(**checked)
    except ValueError as error:
        raise ConfigError(f"task '{name}': {error}") from None


def resolve_weights(task: Task, overrides: Mapping[str, float]) -> dict[str, float]:
    """Weight of every reward part; an override of a part the task lacks raises ConfigError."""
    for part, weight in overrides.items():
        if part not in task.parts:
            known = ", ".join(task.parts)
            raise ConfigError(f"task '{task.name}' has no reward part '{part}'; known: {known}")
        if not math.isfinite(weight):
            raise ConfigError(f"weight of reward part '{part}' must be finite, got {weight}")
    return {name: overrides.get(name, part.weight) for name, part in task.parts.items()}


def weigh(score: Score, weights: Mapping[str, float]) -> Score:
    """Fill in the reward: the weighted sum of the parts that apply."""
    known = ((score.parts[name], weight) for name, weight in weights.items() if name in score.parts)
    reward = math.fsum(weight * value for value, weight in known)
    return dataclasses.replace(score, reward=reward)


def find_defect(task: Task, score: Score) -> str:
    """Say how a score breaks the task's own declaration; "" if it does not."""
    if score.status not in typing.get_args(Status):
        return f"status '{score.status}'"
    required = {name for name, part in task.parts.items() if not part.optional}
    if not required <= score.parts.keys() <= task.parts.keys():
        return f"parts {sorted(score.parts)} instead of {sorted(task.parts)}"
    for name, value in score.parts.items():
        part = task.parts[name]
        if not math.isfinite(value):
            return f"part '{name}' is {value}"
        if not part.low - _RANGE_SLACK <= value <= part.high + _RANGE_SLACK:
            return f"part '{name}' is {value}, outside [{part.low}, {part.high}]"
    if score.metric is not None and not math.isfinite(score.metric):
        return f"metric is {score.metric}"
    return ""


def observation_defect(observation: Observation) -> str:
    """Say what an environment may not give; "" if it is in order."""
    if not isinstance(observation.text, str) or not isinstance(observation.key, str):
        return "a text or a key that is no string: what is shown besides goes into `parts`"
    if observation.role not in typing.get_args(Role):
        return f"the role {observation.role!r:.40}"
    if any(isinstance(p, Text) and not isinstance(p.text, str) for p in observation.parts):
        return "a part whose text is no string"
    for name in ("reward", "outcome"):
        value = getattr(observation, name)
        if value is not None and not (isinstance(value, int | float) and math.isfinite(value)):
            return f"the {name} {value!r:.40}"
    if observation.outcome is not None and not 0 <= observation.outcome <= 1:
        return f"the outcome {observation.outcome}, outside [0, 1]"
    return ""


def fixture_path(name: str) -> Path:
    """The records that ship with a task; a task without any raises ConfigError."""
    module = None if ":" in name else plugins.load("task", name)
    path = Path(str(module.__file__)).with_name("fixture.jsonl") if module else None
    if path is None or not path.is_file():
        raise ConfigError(f"task '{name}' ships no fixture; pass --data")
    return path


def example_answer(sample: Sample, text: str = "") -> Answer:
    """An answer to a sample as if the model saw its media unchanged."""
    media = [part for part in sample.parts if not isinstance(part, Text)]
    frames = [plugins.load("modality", ref.kind).decode(ref).frame for ref in media]
    seen = [dataclasses.replace(frame, processed_size=frame.source_size) for frame in frames]
    return Answer(text, frames=tuple(seen))


def play(
    task: Task,
    sample: Sample,
    say: Callable[[Sample], str | None],
    step: Callable[[Any, Answer], Observation] | None = None,
) -> Answer:
    """Answer a sample by what `say` writes: once, or in every observation of an episode.

    `say` gets the sample as it stands, its `start` where the episode is; None says nothing. `step`
    carries a turn out, given the state and the answer so far; by default the task alone does.
    """
    step = step or (lambda state, turn: _turn(task, sample.gold, state, turn))
    answer = example_answer(sample)
    if sample.start is None:
        return dataclasses.replace(answer, text=say(sample) or "")
    shown = tuple(part for part in sample.parts if isinstance(part, MediaRef))
    said: tuple[str, ...] = ()
    screens: tuple[Frame | None, ...] = answer.frames[-1:] or (None,)
    here = sample
    while here.start is not None and not here.start.done and len(said) < sample.turns:
        said = (*said, say(here) or "")
        seen = screens[: len(said)]
        turn = dataclasses.replace(answer, text=said[-1], turns=said, screens=seen, shown=shown)
        observation = step(here.start.state, turn)
        here = dataclasses.replace(here, start=observation)
        try:
            seen_now = example_answer(dataclasses.replace(sample, parts=observation.parts)).frames
        except MediaError as error:
            shows = f"task '{task.name}': what `step` showed in turn {len(said)}"
            raise MediaError(f"{shows}: {error}") from None
        screens = (*screens, *(seen_now[-1:] or screens[-1:]))
    outcome = here.start.outcome if here.start else None
    screens = screens[: len(said)]
    return dataclasses.replace(
        answer, text="\n".join(said), turns=said, outcome=outcome, screens=screens
    )


def _turn(task: Task, gold: Any, state: Any, answer: Answer) -> Observation:
    """What the task's own `step` says of a turn, as a run would get it from a worker."""
    observation = observation_of(json.loads(carried_out(task, gold, state, answer)))
    if defect := observation_defect(observation):
        raise Misreturned(f"{defined_at(type(task).step)}`step` gave {defect}")
    return observation


def listing(*, as_json: bool = False) -> str:
    """All tasks: a line each, or JSON with their reward parts, metric and parameters."""
    classes = {name: task_class(name) for name in sorted(plugins.available("task"))}
    if not as_json:
        return "\n".join(f"{name:24} {cls.summary}" for name, cls in classes.items())
    return json.dumps(plain([row(name) for name in classes]), indent=1)


def row(name: str) -> dict[str, Any]:
    """What a task declares, as data."""
    cls = task_class(name)
    return {
        "name": name,
        "summary": cls.summary,
        "metric": cls.metric if isinstance(cls.metric, str) else None,
        "better": cls.better,
        "parts": {part: dataclasses.asdict(p) for part, p in _declared(cls).items()},
        "params": [field.name for field in dataclasses.fields(cls)],  # type: ignore[arg-type]
        "official": dict(cls.official),
    }


def _declared(cls: type[Task]) -> Mapping[str, RewardPart]:
    """The reward parts; none where they hang on the parameters, as those of `custom`."""
    return {} if isinstance(cls.parts, property) else cls.parts


def asked(task: Task, record: Record) -> Sample:
    """The sample of a record; one that cannot be asked raises DataError with its id and reason."""
    try:
        return task.ask(record)
    except (ValueError, KeyError, TypeError) as error:
        reason = str(error) if type(error) is ValueError else said_of(error)
        raise DataError(
            f"record '{record.id}' cannot be asked: {reason}; all that cannot: "
            f"mmrl data inspect PATH --task {task.name}"
        ) from None


def describe(
    name: str,
    params: Mapping[str, Any] | None = None,
    data: Path | None = None,
    columns: Mapping[str, str | None] | None = None,
    roots: Sequence[Path] = (),
) -> str:
    """Show a task: parameters, reward parts, and its first record asked and scored."""
    with own_code(f"task '{name}'", all_of_it=is_own(name)):
        task = load_task(name, params)
        lines = [f"{name}: {task.summary}", f"metric: {task.metric}, {task.better} is better", ""]
        lines += _parameters(task)
        lines += ["reward parts:"]
        lines += [
            f"  {part}: {p.low:g} to {p.high:g}, weight {p.weight:g}"
            for part, p in task.parts.items()
        ]
        sample = asked(task, next(iter(task.records(data or fixture_path(name), columns, roots))))
        prompt = [p.text if isinstance(p, Text) else f"[{p.kind}]" for p in sample.parts]
        system = [f"system: {sample.system}"] if sample.system else []
        lines += ["", "prompt:", *system, *prompt, "", f"gold: {sample.gold!r}", ""]
        return "\n".join([*lines, *_scored_examples(task, sample)])


def is_own(name: str) -> bool:
    """True if a task, or what scores it, is the user's own code."""
    return ":" in name or name == "custom"


UNPLAYED = "its world is not played here: `mmrl play CONFIG --oracle` plays a record rightly"


def is_unplayed(task: Task, answer: Answer) -> bool:
    """True if a right answer lacks the verdict that only the task's live world gives."""
    lacking = answer.outcome is None or answer.outcome < 1
    return bool(task.world and answer.turns) and lacking


def _parameters(task: Task) -> list[str]:
    """Each with its value, its other choices, and what the task says of it as a whole."""
    fields = dataclasses.fields(task)  # type: ignore[arg-type]
    if not fields:
        return []
    hints = typing.get_type_hints(type(task))
    lines = ["parameters:"]
    for field in fields:
        value, hint = getattr(task, field.name), hints[field.name]
        choices = typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()
        others = [str(choice) for choice in choices if choice != value]
        lines.append(
            f"  {field.name} = {value!r}" + (f"  (or {', '.join(others)})" if others else "")
        )
    said = inspect.getdoc(type(task)) or ""
    if said.startswith(f"{type(task).__name__}("):  # what `dataclass` writes where nothing is said
        said = ""
    return [*lines, *(f"  {line}".rstrip() for line in said.splitlines()), ""]


def _scored_examples(task: Task, sample: Sample) -> list[str]:
    blank = example_answer(sample)
    weights = resolve_weights(task, {})
    sayings: dict[str, Callable[[Sample], str | None]] = {
        "good": lambda here: task.completion(here, blank),
        "empty": lambda here: "",
        "junk": lambda here: "I do not know.",
    }
    lines, failures = [], []
    for label, say in sayings.items():
        if say(sample) is None:
            continue
        answer = play(task, sample, say)
        if label == "good" and is_unplayed(task, answer):
            return [UNPLAYED]
        score = task.score(sample.gold, answer)
        if not isinstance(score, Score):
            kind = type(score).__name__
            raise Misreturned(f"{defined_at(type(task).score)}`score` returned a {kind}, no Score")
        if score.status == "unscorable":
            failures.append(score.reason)
        elif defect := find_defect(task, score):
            raise Misreturned(f"scoring {answer.text!r:.60} returned {defect}")
        score = weigh(score, weights)
        parts = ", ".join(f"{part} {value:g}" for part, value in score.parts.items())
        why = f"{score.status}: {score.reason}" if score.status == "unscorable" else score.status
        lines.append(f"{label}: reward {score.reward:g} ({parts}; {why}) for {answer.text!r}")
    if failures and len(failures) == len(lines):
        raise ConfigError(f"task '{task.name}' scores no answer to its first record: {failures[0]}")
    return lines


def _is_required(field: dataclasses.Field[Any]) -> bool:
    missing = dataclasses.MISSING
    return field.default is missing and field.default_factory is missing


def _check(task: str, key: str, hint: Any, value: Any) -> Any:
    try:
        return TypeAdapter(hint).validate_python(value)
    except ValidationError as error:
        message = error.errors()[0]["msg"].lower()
        raise ConfigError(
            f"task '{task}', parameter '{key}': {message} (got {value!r:.80})"
        ) from None
