"""Programs: right if they pass their tests, better if they need less time and memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar

from mmrl import task as contract
from mmrl.rewards.grammar import TagAnswer, Think
from mmrl.rewards.parsed import Parsed, malformed, ok
from mmrl.rewards.programs import Case, ProgramLimits, Tried, try_program
from mmrl.task import RewardPart, mean_by_each
from mmrl.types import Answer, Observation, Record, Sample, Score, Status, Text

SHOWN = 200
"""Characters of a failed test that the model is shown."""
LEAST_SECONDS, LEAST_MEGABYTES = 0.01, 1.0
"""What a clock and a kernel tell apart: less of a program counts as so much."""


@dataclass(frozen=True, slots=True)
class Gold:
    """Tests, and right programs, the best first, that an answer's time and memory stand between."""

    cases: tuple[Case, ...]
    solutions: tuple[str, ...]


@dataclass(frozen=True)
class Task(contract.Task):
    """`improve` shows the record's last program and asks for a better one.

    With `turns` above 1 an answer is run, the model is told what it passes and uses, and it writes
    another; the last one counts. `seconds` and `megabytes` bound each test.
    """

    improve: bool = False
    turns: int = 1
    think: Think = "required"
    seconds: float = 1.0
    megabytes: int = 256
    max_tests: int = 8

    name: ClassVar[str] = "code"
    summary: ClassVar[str] = "write a Python program that passes tests, measured in time and memory"
    parts: ClassVar[Mapping[str, RewardPart]] = {
        "accuracy": RewardPart(0.0, 1.0),
        "tests": RewardPart(0.0, 1.0, 0.0),
        "time": RewardPart(0.0, 1.0, 0.0),
        "memory": RewardPart(0.0, 1.0, 0.0),
        "format": RewardPart(0.0, 1.0, 0.1),
    }
    metric: ClassVar[str] = "accuracy"

    def sample(self, record: Record) -> Sample:
        """Ask for a program; raises ValueError without tests, or to improve without a program."""
        fields = record.fields
        gold = Gold(_cases(fields["tests"])[: self.max_tests], _listed(fields.get("solution")))
        if not gold.cases:
            raise ValueError("a program needs tests")
        if not all(case.wanted.strip() for case in gold.cases):
            raise ValueError("a test wants no output, which a program that does nothing passes")
        if self.improve and not gold.solutions:
            raise ValueError("there is no `solution` to improve")
        ask = f"{fields['question']}\n\n"
        if self.improve:
            ask += (
                f"This program does it:\n```python\n{gold.solutions[-1]}\n```\nWrite one that does "
                "the same in less time and with less memory. "
            )
        ask += (
            f"{self._grammar().instruction()} The answer is a Python program that reads standard "
            "input and prints to standard output, with nothing but Python's own library."
        )
        start = Observation(0, key="0") if self.turns > 1 else None
        meta = {k: str(fields[k]) for k in ("difficulty",) if fields.get(k)}
        return Sample(
            record.id, self.name, (Text(ask),), gold, meta=meta, start=start, turns=self.turns
        )

    def step(self, gold: Any, state: Any, answer: Answer) -> Observation:
        """Run the turn's program and say what it passes, what it uses, and what to do next.

        A turn earns the share of tests that its program passes.
        """
        parsed = self._program(answer)
        if parsed.value is None:
            told, earned = f"There is no program to run: {parsed.reason}.", 0.0
        else:
            tried = self._tried(parsed.value, gold)
            told, earned = self._told(tried, gold), tried.passed / tried.cases
        return Observation(state + 1, key=f"{state + 1}", text=told, reward=earned)

    def score(self, gold: Any, answer: Answer) -> Score:
        """Run the last turn's program on all tests, and the record's own for comparison."""
        said = replace(answer, text=answer.turns[-1]) if answer.turns else answer
        region = self._grammar().parse(said)
        parsed = self._program(said)
        if parsed.value is None:
            status: Status = "truncated" if answer.truncated else parsed.status
            return Score(dict.fromkeys(self.parts, 0.0), 0.0, status, parsed.reason)
        tried = self._tried(parsed.value, gold)
        spared = self._spared(tried, gold)
        parts = {
            "accuracy": float(tried.right),
            "tests": tried.passed / tried.cases,
            **spared,
            "format": float(region.well_formed),
        }
        return Score(parts, float(tried.right), evidence=spared)

    def breakdown(
        self, values: Sequence[float], metas: Sequence[Mapping[str, Any]]
    ) -> Mapping[str, float]:
        """Accuracy by difficulty; how near programs come to the best in time and in memory."""
        found = mean_by_each(("difficulty",), values, metas)
        for name in ("time", "memory"):
            found[name] = sum(meta.get(name, 0.0) for meta in metas) / len(metas)
        return found

    def target(self, sample: Sample, answer: Answer) -> str | None:
        """The record's best program; None where it has none."""
        known = sample.gold.solutions
        return self._grammar().write(known[0]) if known else None

    def _grammar(self) -> TagAnswer:
        return TagAnswer(self.think, max_region_characters=self._limits().characters)

    def _limits(self) -> ProgramLimits:
        return ProgramLimits(self.seconds, self.megabytes)

    def _program(self, answer: Answer) -> Parsed[str]:
        return self._grammar().parse(answer).answer.then(_unfenced)

    def _tried(self, program: str, gold: Gold) -> Tried:
        return try_program(program, gold.cases, self._limits())

    def _spared(self, tried: Tried, gold: Gold) -> dict[str, float]:
        """How near an answer comes to the best in time and memory; 0 of a wrong one.

        Where the record has no program to compare with, a right one is as good as any.
        """
        if not tried.right:
            return {"time": 0.0, "memory": 0.0}
        own = self._own(gold)
        seconds, megabytes = [t.seconds for t in own], [t.megabytes for t in own]
        return {
            "time": nearness(tried.seconds, seconds, LEAST_SECONDS),
            "memory": nearness(tried.megabytes, megabytes, LEAST_MEGABYTES),
        }

    def _own(self, gold: Gold) -> list[Tried]:
        """The record's best and its last program; one that is wrong raises ValueError."""
        ends = dict.fromkeys((*gold.solutions[:1], *gold.solutions[-1:]))
        own = [_known(program, gold.cases, self._limits()) for program in ends]
        if not all(tried.right for tried in own):
            raise ValueError("the record's own solution fails its tests")
        return own

    def _told(self, tried: Tried, gold: Gold) -> str:
        """What the model is told of its program."""
        told = f"The program passes {tried.passed} of {tried.cases} tests. "
        if tried.failed is not None and tried.ran is not None:
            why = {"time": "it ran out of time", "memory": "it ran out of memory"}
            said = why.get(tried.ran.ending) or tried.ran.error or tried.ran.output
            return (
                f"{told}For the input\n{tried.failed.given[:SHOWN]}\nit should print\n"
                f"{tried.failed.wanted[:SHOWN]}\nbut: {said[:SHOWN]}\nCorrect it."
            )
        told += f"It took {tried.seconds:.3f} s of CPU time and {tried.megabytes:.1f} MB"
        if gold.solutions:
            own = self._own(gold)[-1]
            told += f" (the one to beat: {own.seconds:.3f} s, {own.megabytes:.1f} MB)"
        return f"{told}. Write a faster program that needs less memory."


def nearness(used: float, own: Sequence[float], least: float) -> float:
    """From 0, as much as the worst of `own` or more, to 1, as little as the best, by logarithm.

    Less than `least` counts as so much; the worst as twice the best, if it is nearer to it. 1 where
    there is nothing to compare with.

    >>> nearness(2.0, [1.0, 4.0], 0.01), nearness(0.5, [1.0], 0.01), nearness(3.0, [1.0], 0.01)
    (0.5, 1.0, 0.0)
    """
    if not own:
        return 1.0
    best = max(min(own), least)
    worst = max(max(own), 2 * best)
    place = math.log(worst / max(used, least)) / math.log(worst / best)
    return min(1.0, max(0.0, place))


@lru_cache(maxsize=1024)
def _known(program: str, cases: tuple[Case, ...], limits: ProgramLimits) -> Tried:
    return try_program(program, cases, limits)


def _listed(given: Any) -> tuple[str, ...]:
    """Programs of a record: one, or several."""
    programs = given if isinstance(given, list | tuple) else [given]
    return tuple(str(program) for program in programs if program)


def _cases(tests: Any) -> tuple[Case, ...]:
    """Tests as a list of inputs and outputs, or as lists of both side by side."""
    if isinstance(tests, Mapping):
        pairs = list(zip(tests["inputs"], tests["outputs"], strict=True))
    else:
        pairs = [(test["input"], test["output"]) for test in tests]
    return tuple(Case(str(given), str(wanted)) for given, wanted in pairs)


def _unfenced(text: str) -> Parsed[str]:
    """The program in a region, with or without a fence around it."""
    text = text.strip()
    if text.startswith("```"):
        first, _, rest = text.partition("\n")
        inner, closed, after = rest.rpartition("```")
        if not closed or after.strip() or first[3:].strip() not in ("", "python", "py", "python3"):
            return malformed("not one fenced Python program")
        text = inner
    return ok(text) if text.strip() else malformed("an empty program")
