"""Fuzz every task's score() and every parser of mmrl/rewards with mutated gold answers.

    OMP_NUM_THREADS=1 python tools/fuzz.py --seconds 540 --seed 0 --log fuzz.jsonl

Each target (a parser, or a task under one choice of its parameters) gets an equal share of the
time, parsers first; `--only 'parse '` is the parsers alone. A line a target goes to the log:
answers, seconds, the slowest answer, and what was found. An answer must never raise, overrun the
deadline, leave the declared ranges, be worth more than the gold, or, where the rule is the strict
one, be paid without having been parsed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import random
import signal
import sys
import time
import typing
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

from mmrl import plugins
from mmrl.rewards import (
    boxes,
    calls,
    choices,
    detection,
    expressions,
    intervals,
    json_text,
    labels,
    math_answers,
    moves,
    native_forms,
    numbers,
    points,
    quantities,
    room_map,
    sql,
    thoughts,
    tracks,
    typed,
)
from mmrl.rewards.actions import ActionGrammar
from mmrl.rewards.actions import Form as ActionForm
from mmrl.rewards.grammar import BoxedAnswer, Grammar, TagAnswer, Think
from mmrl.rewards.math import MathPolicy
from mmrl.rewards.parsed import Parsed
from mmrl.scoring.tasks import (
    example_answer,
    find_defect,
    fixture_path,
    load_task,
    resolve_weights,
    weigh,
)
from mmrl.task import Task
from mmrl.types import Answer, Sample, Score, Text

DEADLINE_SECONDS = 10.0  # rollout.scoring_timeout_seconds
MAX_FINDINGS = 5  # kept of one kind for one target
PARAMS = {"custom": {"function": "mmrl.tasks.custom.example:exact_match"}}
PARSER = "parse "  # how the names of targets that are parsers begin
UNPAID_ANYWAY = ("format", "validity")  # parts that pay for form alone
# Tasks whose parts are paid for apart.
SEVERAL_REGIONS = ("digit_rows", "faithful_qa", "grounded_video_qa")

TAGS = (
    "<think>\n\n</think>\n\n", "[THINK]", "[/THINK]",
    "<box>", "</box>", "<loc0123>", "<|box_start|>",
    "<think>", "</think>", "<answer>", "</answer>", "<answer", "answer>", "<glue>", "</glue>",
    "<tool_call>", "</tool_call>", "<long_answer>", "</long_answer>", "<map>", "</map>",
    "\\boxed{", "\\boxed{}", "```json\n", "```sql\n", "```", "### Step 1:", "<|up|>", "<TOK_3>",
)  # fmt: skip
MARKS = ("{", "}", "[", "]", "(", ")", '"', "'", ",", ";", ":", "\\", "\n", " ", "$", "%", "-", ".")
VALUES = (
    "\\text{", "**", "\u3002", "\uff08", " km/h", "1 1/4", " (or 5)", "\u6216",
    "\\leqslant ", "_3", "1:2:3",
    "NaN", "inf", "-inf", "Infinity", "1e308", "-1e308", "1e-400", "9" * 400, "0x10", "1_000",
    "1,000", "\uff13", "\u0663", "\u00b2", "\u2460", "9**9**9**9", "9^{9^{9^9}}", "\\frac{1}{0}",
    "\\sqrt{-1}", "\\infty", "null", "None", "true", "A", "B", "(A)", "No Objects", "", "00:12",
    "\x00", "\ud800", "\u202e", "<script>alert(1)</script>", "__import__('os').system('id')",
    "DROP TABLE x", "ATTACH 'a' AS b", "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1"
    " FROM c) SELECT count(*) FROM c", "{{7*7}}", "%s%n", "../../etc/passwd",
)  # fmt: skip


@dataclasses.dataclass
class Target:
    """Something to feed answers to: texts to start from, and a check that names what is wrong."""

    name: str
    seeds: Sequence[str]
    check: Callable[[str], str]


class Overran(BaseException):
    """An answer was not done at its deadline."""


def mutate(rng: random.Random, seeds: Sequence[str]) -> str:
    """One to six edits of a gold answer that know what answers are made of."""
    text = rng.choice(seeds)
    for _ in range(rng.randint(1, 6)):
        text = rng.choice(EDITS)(rng, text, seeds)
        if len(text) > 200_000:
            return text[:200_000]
    return text


def _insert(rng: random.Random, text: str, seeds: Sequence[str]) -> str:
    at = rng.randint(0, len(text))
    return text[:at] + rng.choice(rng.choice((TAGS, MARKS, VALUES))) + text[at:]


def _delete(rng: random.Random, text: str, seeds: Sequence[str]) -> str:
    at = rng.randint(0, len(text))
    return text[:at] + text[at + rng.randint(1, 8) :]


def _cut(rng: random.Random, text: str, seeds: Sequence[str]) -> str:
    at = rng.randint(0, len(text))
    return text[:at] if rng.random() < 0.7 else text[at:]


def _splice(rng: random.Random, text: str, seeds: Sequence[str]) -> str:
    other = rng.choice(seeds)
    return text[: rng.randint(0, len(text))] + other[rng.randint(0, len(other)) :]


def _append(rng: random.Random, text: str, seeds: Sequence[str]) -> str:
    return text + rng.choice(("", "\n", " or ", ", ")) + rng.choice(seeds)


def _repeat(rng: random.Random, text: str, seeds: Sequence[str]) -> str:
    start = rng.randint(0, len(text))
    piece = text[start : start + rng.randint(1, 40)]
    times = rng.choice((2, 3, 10, 100, 2_000) if rng.random() < 0.05 else (2, 3))
    return text[:start] + piece * times + text[start:]


def _nest(rng: random.Random, text: str, seeds: Sequence[str]) -> str:
    opening, closing = rng.choice((("[", "]"), ("{", "}"), ("(", ")"), ("\\boxed{", "}")))
    depth = rng.choice((1, 2, 20, 500) if rng.random() < 0.1 else (1, 2))
    at = rng.randint(0, len(text))
    return text[:at] + opening * depth + text[at:] + closing * rng.randint(0, depth)


def _number(rng: random.Random, text: str, seeds: Sequence[str]) -> str:
    places = [i for i, c in enumerate(text) if c.isdigit()]
    if not places:
        return text
    at = rng.choice(places)
    return text[:at] + rng.choice((*VALUES, str(rng.randint(-9, 2_000)))) + text[at + 1 :]


def _letters(rng: random.Random, text: str, seeds: Sequence[str]) -> str:
    if not text:
        return text
    at = rng.randrange(len(text))
    return text[:at] + chr(rng.choice((rng.randrange(128), rng.randrange(0x3000)))) + text[at + 1 :]


EDITS = (
    _insert, _insert, _insert, _delete, _delete, _cut, _splice, _append, _repeat, _nest, _number,
    _number, _letters,
)  # fmt: skip


def task_targets() -> Iterator[Target]:
    """Every task under its defaults and under every other value of each choice it offers."""
    for name in sorted(plugins.available("task")):
        base = PARAMS.get(name, {})
        for change in ({}, *_choices(type(load_task(name, base)))):
            try:
                task = load_task(name, {**base, **change})
                samples = [task.sample(r) for r in task.records(fixture_path(name))]
            except Exception:  # a layout that the fixture is not in
                continue
            words = ",".join(f"{key}={value}" for key, value in change.items())
            yield task_target(f"{name}({words})", task, samples, strict=not change)


def _choices(cls: type[Task]) -> Iterator[dict[str, Any]]:
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        hint = hints[field.name]
        values = (True, False) if hint is bool else typing.get_args(hint)
        if hint is bool or typing.get_origin(hint) is typing.Literal:
            yield from ({field.name: value} for value in values if value != field.default)


def task_target(name: str, task: Task, samples: Sequence[Sample], strict: bool) -> Target:
    """Answers to a task's fixture; the gold's own reward is the most that any may earn."""
    weights = resolve_weights(task, {})
    blanks = [example_answer(sample) for sample in samples]
    golds = [str(task.target(s, b)) for s, b in zip(samples, blanks, strict=True)]
    prompts = ["".join(p.text for p in s.parts if isinstance(p, Text)) for s in samples]
    position = [0]

    def graded(index: int, text: str, cut: bool) -> Score:
        sample = samples[index]
        answer = dataclasses.replace(blanks[index], text=text, truncated=cut)
        if sample.start is not None:  # an episode of one turn
            verdict = task.step(sample.gold, sample.start.state, answer).outcome
            answer = dataclasses.replace(answer, outcome=verdict, turns=(text,))
        return weigh(task.score(sample.gold, answer), weights)

    # A rule that pays without bound, as some published ones do, may pay more than the gold.
    bounded = all(part.high < math.inf for part in task.parts.values())
    most = [graded(i, gold, False).reward or 0.0 for i, gold in enumerate(golds)]

    def check(text: str) -> str:
        index = position[0] = (position[0] + 1) % len(samples)
        score = graded(index, text, len(text) % 7 == 0)
        defect = find_defect(task, score)
        if defect:
            return defect
        assert score.reward is not None
        if bounded and score.reward > most[index] + 1e-9:
            return f"earns {score.reward:g}, the gold {most[index]:g} ({samples[index].id})"
        # What an episode has reached it keeps, even where it ended too long.
        whole = strict and task.name not in SEVERAL_REGIONS and samples[index].start is None
        if whole and score.status not in ("ok", "refusal"):
            for part, value in score.parts.items():
                low = max(task.parts[part].low, -1e9)
                if part not in UNPAID_ANYWAY and value > max(low, 0.0) + 1e-9:
                    return f"{part} pays {value:g} for an answer that is {score.status}"
        return ""

    return Target(name, [*golds, *golds, *golds, *prompts], check)


Parser = Callable[[str], Parsed[Any]]


def parser_targets(texts: Sequence[str]) -> Iterator[Target]:
    """Every parser of a payload, and every grammar, on the payloads of all tasks."""
    for name, parse in {
        **payload_parsers(),
        **native_parsers(),
        **record_parsers(),
        **grammars(),
    }.items():
        yield Target(f"{PARSER}{name}", texts, _parser_check(parse))


def payload_parsers() -> dict[str, Parser]:
    """Parsers that need nothing of a record but its options."""
    options = ("red", "blue", "12", "a dog")
    return {
        "boxes.parse_boxes": boxes.parse_boxes,
        "boxes.parse_box": boxes.parse_box,
        "calls.parse_call_lines": calls.parse_call_lines,
        "calls.parse_calls": calls.parse_calls,
        "calls.parse_literal": calls.parse_literal,
        "choices.parse_letter": lambda text: choices.parse_letter(text, options),
        "choices.parse_letters": lambda text: choices.parse_letters(text, options),
        "choices.parse_option_text": lambda text: choices.parse_option_text(text, options),
        "expressions.parse_expression": expressions.parse_expression,
        "intervals.parse_interval": intervals.parse_interval,
        "intervals.parse_intervals": intervals.parse_intervals,
        "json_text.parse_json": json_text.parse_json,
        "labels.parse_label": lambda text: labels.parse_label(text, options),
        "moves.parse_moves": moves.parse_moves,
        "numbers.parse_number": numbers.parse_number,
        "numbers.parse_integer": numbers.parse_integer,
        "points.parse_point": points.parse_point,
        "quantities.parse_quantity": quantities.parse_quantity,
        "room_map.parse_map": room_map.parse_map,
        "tracks.parse_track": lambda text: tracks.parse_track(text, 8),
    }


def native_parsers() -> dict[str, Parser]:
    """Boxes and points in every form that a model family writes."""
    found: dict[str, Parser] = {}
    for form in typing.get_args(native_forms.Form):
        found[f"native_forms.parse_native_box({form})"] = partial(
            native_forms.parse_native_box, form=form
        )
        found[f"native_forms.parse_native_point({form})"] = partial(
            native_forms.parse_native_point, form=form
        )
    return found


def record_parsers() -> dict[str, Parser]:
    """Parsers that read an answer as one to some gold, form or database."""
    found: dict[str, Parser] = {}
    for key in ("label", ""):
        form = detection.BoxListFormat("bbox_2d", key, "confidence", "None", "optional")
        found[f"detection.BoxListFormat({key})"] = partial(form.read, asked=("", "cat", "dog"))
    several = choices.choice_of(("red", "blue", "12"), "A, C")
    for gold in (several, math_answers.Formula("2\\sqrt{221}"), math_answers.Phrase("parallel")):
        found[f"math_answers.grade_math({type(gold).__name__})"] = partial(_read_math, gold)
    for kind, answer in (("numerical", "3"), ("regression", "10"), ("OCR", "a cat"),
                         ("free-form", "a cat"), ("yes/no", "yes")):  # fmt: skip
        typed_gold = typed.TypedGold(kind, answer)  # type: ignore[arg-type]
        found[f"typed.grade_typed({kind})"] = partial(_read_typed, typed_gold)
    table = sql.Database(script="CREATE TABLE t (a, b); INSERT INTO t VALUES (1, 'x'), (2, 'y');")
    found["sql.run_query"] = partial(sql.run_query, table)
    return found


def grammars() -> dict[str, Parser]:
    """Both grammars of a region under every rule for thoughts, and each form of an action."""
    found: dict[str, Parser] = {}
    for think in typing.get_args(Think):
        for grammar in (TagAnswer(think), BoxedAnswer(think)):
            for name, opening in (("", ""), (",opened", "<think>\n"), (",closed", thoughts.EMPTY)):
                key = f"grammar.{type(grammar).__name__}({think}{name})"
                found[key] = partial(_read_region, grammar, opening)
    for form in typing.get_args(ActionForm):
        found[f"actions.ActionGrammar({form})"] = partial(_read_action, ActionGrammar(form=form))
    return found


def _read_math(gold: math_answers.MathGold, text: str) -> Parsed[str]:
    return math_answers.grade_math(text, gold, MathPolicy())[0]


def _read_typed(gold: typed.TypedGold, text: str) -> Parsed[Any]:
    parsed, value = typed.grade_typed(text, gold)
    assert 0.0 <= value <= 1.0, f"a value of {value}"
    return parsed


def _read_region(grammar: Grammar, opening: str, text: str) -> Parsed[str]:
    return grammar.parse(Answer(text, opening=opening)).answer


def _read_action(grammar: ActionGrammar, text: str) -> Parsed[Any]:
    return grammar.parse(Answer(text))[0]


def _parser_check(parse: Parser) -> Callable[[str], str]:
    def check(text: str) -> str:
        parsed = parse(text)
        if (parsed.status == "ok") != (parsed.value is not None):
            return f"status {parsed.status} with value {parsed.value!r:.60}"
        if parsed.value is not None and not all(map(_finite, _numbers_in(parsed.value))):
            return f"a number that is not finite: {parsed.value!r:.60}"
        return ""

    return check


def _finite(number: float | Decimal) -> bool:
    return number.is_finite() if isinstance(number, Decimal) else math.isfinite(number)


def _numbers_in(value: Any, depth: int = 4) -> Iterator[float | Decimal]:
    if isinstance(value, float | Decimal):
        yield value
    elif isinstance(value, list | tuple) and depth:
        for item in value:
            yield from _numbers_in(item, depth - 1)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type) and depth:
        for field in dataclasses.fields(value):
            yield from _numbers_in(getattr(value, field.name), depth - 1)


def payloads() -> list[str]:
    """Gold answers of all fixtures, and what stands between their tags.

    Golds whose form depends on their media are left to the tasks: no media are decoded here.
    """
    found = []
    for name in sorted(plugins.available("task")):
        task = load_task(name, PARAMS.get(name, {}))
        for record in task.records(fixture_path(name)):
            target = task.sample(record).target
            if target is not None:
                inner = target.partition("<answer>")[2].partition("</answer>")[0]
                found += [target, inner or target]
    return found


def fuzz(target: Target, seconds: float, seed: int) -> dict[str, Any]:
    """Feed a target for so long; returns its line of the log."""
    rng = random.Random(f"{seed} {target.name}")
    findings: dict[str, list[str]] = {}
    counts: Counter[str] = Counter()
    slowest, slowest_text, answers = 0.0, "", 0
    started = time.monotonic()
    while time.monotonic() - started < seconds:
        for _ in range(20):
            text = mutate(rng, target.seeds)
            began = time.thread_time()
            wrong = _guarded(target.check, text)
            spent = time.thread_time() - began
            answers += 1
            if spent > slowest:
                slowest, slowest_text = spent, text[:200]
            if wrong:
                kind = wrong.split(":")[0][:60]
                counts[kind] += 1
                if counts[kind] <= MAX_FINDINGS:
                    findings.setdefault(kind, []).append(f"{wrong} | {text[:400]!r}")
    return {
        "target": target.name,
        "answers": answers,
        "seconds": round(time.monotonic() - started, 2),
        "slowest": round(slowest, 4),
        "slowest_text": slowest_text if slowest > 0.5 else "",
        "wrong": sum(counts.values()),
        "findings": findings,
    }


def _guarded(check: Callable[[str], str], text: str) -> str:
    signal.setitimer(signal.ITIMER_REAL, DEADLINE_SECONDS)
    try:
        return check(text)
    except Overran:
        return "overran its deadline"
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:300]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _overrun(signum: int, frame: Any) -> None:
    raise Overran


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=540.0, help="in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", type=Path, default=Path("fuzz.jsonl"))
    parser.add_argument("--only", default="", help="targets whose name contains this")
    parser.add_argument("--after", default="", help="targets behind the one of this name")
    args = parser.parse_args()
    signal.signal(signal.SIGALRM, _overrun)
    # Parsers take little time, and a run that is cut short should have reached them.
    targets = list(parser_targets(payloads()))
    if not args.only.startswith(PARSER):
        targets += task_targets()
    names = [target.name for target in targets]
    if args.after and args.after not in names:
        parser.error(f"no target '{args.after}'")
    targets = targets[names.index(args.after) + 1 :] if args.after else targets
    targets = [target for target in targets if args.only in target.name]
    total = wrong = 0
    with args.log.open("a", encoding="utf-8") as log:
        for target in targets:
            row = fuzz(target, args.seconds / len(targets), args.seed)
            log.write(json.dumps({"seed": args.seed, **row}) + "\n")
            log.flush()
            total, wrong = total + row["answers"], wrong + row["wrong"]
            print(f"{row['target']:56} {row['answers']:8} {row['slowest']:8.3f} {row['wrong']:6}")
    print(f"{len(targets)} targets, {total} answers, {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
