"""Reward functions of the user's own, called as TRL's and verl's trainers call them.

TRL: f(prompts, completions, completion_ids, trainer_state, log_metric, log_extra, **columns), lists
with an item for each answer, plain or asynchronous. verl: compute_score(data_source, solution_str,
ground_truth, extra_info) for one answer, or its plural form for many.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from mmrl.rewards.custom import RewardFunction
from mmrl.rewards.own_code import Misreturned, defined_at, said_of

Form = Literal["trl", "verl", "verl_batch"]
FOREIGN: Mapping[Form, tuple[str, ...]] = {
    "verl": ("data_source", "solution_str", "ground_truth", "extra_info"),
    "verl_batch": ("data_sources", "solution_strs", "ground_truths", "extra_infos"),
}
"""Arguments of verl's forms, in their order; a function that takes the second one has that form."""
TRL_NAMES = frozenset(
    ("prompts", "completions", "completion_ids", "trainer_state", "log_metric", "log_extra")
)
"""What TRL's form is called with beside the columns."""


@dataclass(frozen=True, slots=True)
class TrainerState:
    """What TRL calls `trainer_state`, as far as there is one here."""

    global_step: int
    max_steps: int

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"trainer_state has global_step and max_steps, and no '{name}'")


@dataclass(frozen=True)
class Call:
    """The answers of one call: texts, token ids (empty outside of training), prompts and columns.

    All are lists with an item for each answer; a prompt that is a list of messages makes its
    completion one too.
    """

    prompts: list[Any]
    texts: list[str]
    ids: list[list[int]]
    columns: Mapping[str, list[Any]]
    state: TrainerState


@dataclass
class Judged:
    """What a function says of each answer: a reward, None, or why it failed; and what it logs."""

    rewards: list[float | None]
    failures: dict[int, str] = field(default_factory=dict)
    logged: list[dict[str, Any]] = field(default_factory=list)


@functools.cache
def names_taken(function: RewardFunction) -> tuple[frozenset[str], bool]:
    """The arguments that a function takes by name, and whether it takes any others."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (ValueError, TypeError):  # written in C, without a signature
        return frozenset(), True
    by_name = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    named = frozenset(each.name for each in parameters if each.kind in by_name)
    return named, any(each.kind == inspect.Parameter.VAR_KEYWORD for each in parameters)


@functools.cache
def names_needed(function: RewardFunction) -> frozenset[str]:
    """The arguments a function cannot be called without, but for those that every call has."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (ValueError, TypeError):  # written in C, without a signature
        return frozenset()
    by_name = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    needed = {p.name for p in parameters if p.kind in by_name and p.default is p.empty}
    form = form_of(function)
    return frozenset(needed.difference(TRL_NAMES if form == "trl" else FOREIGN[form]))


def form_of(function: RewardFunction) -> Form:
    """Whose call form a function has: verl's if it takes what only verl gives."""
    named, _ = names_taken(function)
    return next((form for form, names in FOREIGN.items() if names[1] in named), "trl")


def grades_alone(function: RewardFunction) -> bool:
    """Whether a function gets one answer at a time and waits for nothing meanwhile."""
    called = function if inspect.isroutine(function) else type(function).__call__
    return form_of(function) == "verl" and not inspect.iscoroutinefunction(called)


def judge(functions: Sequence[RewardFunction], call: Call) -> list[Judged]:
    """Call every function; asynchronous ones wait together. What a whole call raises passes on."""
    started = [_start(function, call) for function in functions]
    waiting = [item for calls, _ in started for item in calls if inspect.isawaitable(item)]
    results = iter(_wait_for(waiting)) if waiting else iter(())
    return [
        finish([next(results) if inspect.isawaitable(item) else item for item in calls])
        for calls, finish in started
    ]


Started = tuple[list[Any], Callable[[list[Any]], Judged]]


def _start(function: RewardFunction, call: Call) -> Started:
    """What the function returned (awaitables are not awaited yet), and what is made of it."""
    form = form_of(function)
    if form == "trl":
        logged: list[dict[str, Any]] = [{} for _ in call.texts]
        made = [function(**_taken(function, _trl_arguments(call, logged)))]
        return made, lambda results: _many(function, results[0], len(call.texts), logged)
    rows = _verl_rows(call)
    if form == "verl_batch":
        many = dict(zip(FOREIGN[form], map(list, zip(*rows, strict=True)), strict=True))
        return [function(**_taken(function, many))], lambda results: _of_items(
            function, _counted(function, _raised(results[0]), len(call.texts))
        )
    alone = [_taken(function, dict(zip(FOREIGN[form], row, strict=True))) for row in rows]
    return [_caught(function, arguments) for arguments in alone], functools.partial(
        _of_items, function
    )


def _trl_arguments(call: Call, logged: list[dict[str, Any]]) -> dict[str, Any]:
    """All that TRL passes; what is logged is put with the answers."""

    def log_metric(name: str, value: float) -> None:
        for row in logged:
            row[name] = float(value)

    def log_extra(column: str, values: Sequence[Any]) -> None:
        if len(values) != len(logged):
            raise ValueError(f"log_extra('{column}') has {len(values)} values for {len(logged)}")
        for row, value in zip(logged, values, strict=True):
            row[column] = value

    spoken = [
        [{"role": "assistant", "content": text}] if isinstance(prompt, list) else text
        for prompt, text in zip(call.prompts, call.texts, strict=True)
    ]
    return {
        **call.columns,
        "prompts": call.prompts,
        "completions": spoken,
        "completion_ids": call.ids,
        "trainer_state": call.state,
        "log_metric": log_metric,
        "log_extra": log_extra,
    }


def _verl_rows(call: Call) -> list[tuple[Any, str, Any, Any]]:
    """What verl says of each answer, in the order of its arguments."""
    none = [None] * len(call.texts)
    source, gold, extra = (
        call.columns.get(name, none) for name in ("data_source", "ground_truth", "extra_info")
    )
    return list(zip(source, call.texts, gold, extra, strict=True))


def _taken(function: RewardFunction, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the arguments that a function takes."""
    named, others = names_taken(function)
    return {name: value for name, value in arguments.items() if others or name in named}


def _caught(function: RewardFunction, arguments: Mapping[str, Any]) -> Any:
    try:
        return function(**arguments)
    except Exception as error:  # a user's own function: of this answer alone
        return error


_runner: list[asyncio.Runner] = []
"""The event loop of this process: clients that a function keeps live in it."""


def _wait_for(awaitables: Sequence[Awaitable[Any]]) -> list[Any]:
    """The results in order, each of which may be an exception."""

    async def gathered() -> list[Any]:
        return await asyncio.gather(*awaitables, return_exceptions=True)

    if not _runner:
        _runner.append(asyncio.Runner())
    return _runner[0].run(gathered())


def _raised(result: Any) -> Any:
    if isinstance(result, BaseException):
        raise result
    return result


def _counted(function: RewardFunction, values: Any, count: int) -> list[Any]:
    if isinstance(values, str | bytes | Mapping) or not hasattr(values, "__len__"):
        raise Misreturned(
            f"{defined_at(function)}reward function returned {_kind(values)}: return a list, with "
            "one number or None for each completion"
        )
    if len(values) != count:
        raise ValueError(f"reward function returned {len(values)} rewards for {count} completions")
    return list(values)


def _number(function: RewardFunction, value: Any) -> float | None:
    """A reward, or None; what only reads like a number is none, as a typing error would be."""
    try:
        if not isinstance(value, str | bytes):
            return None if value is None else float(value)
    except (TypeError, ValueError):
        pass
    raise Misreturned(
        f"{defined_at(function)}reward function returned {_kind(value)} for an answer: return a "
        "number or None"
    )


def _kind(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def _many(
    function: RewardFunction, result: Any, count: int, logged: list[dict[str, Any]]
) -> Judged:
    """What a call for all answers returned; raises unless it is one reward for each."""
    values = _counted(function, _raised(result), count)
    return Judged([_number(function, value) for value in values], logged=logged)


def _of_items(function: RewardFunction, results: list[Any]) -> Judged:
    """What single calls returned: a number, or a mapping with `score` and more to log."""
    judged = Judged([None] * len(results), logged=[{} for _ in results])
    for i, result in enumerate(results):
        if isinstance(result, BaseException):
            judged.failures[i] = said_of(result)[:500]
        elif isinstance(result, Mapping):
            judged.rewards[i] = _number(function, result["score"])
            judged.logged[i] = {str(k): v for k, v in result.items() if k != "score"}
        else:
            judged.rewards[i] = _number(function, result)
    return judged
