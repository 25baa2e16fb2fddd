"""Many answers to a record -> one: by how many agree, or by what a verifier makes of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from mmrl.algorithms.stages.answer_kinds import final_answer, folded
from mmrl.evaluate.summary import Scored, summarise
from mmrl.evaluate.ways import WaysConfig
from mmrl.task import Task

Choose = Callable[[Scored], Sequence[int]]
"""Which of a record's answers is taken, by their places: the first of these."""


@dataclass(frozen=True)
class Reading:
    """A number that some of the answers give, its 95 % interval, and the tokens of a record."""

    metric: float
    low: float
    high: float
    tokens: float


def readings(rows: Sequence[Scored], task: Task, ways: WaysConfig, each: int) -> dict[str, Reading]:
    """What the answers say by way of asking, by consensus and by votes; {} where there is one.

    `each` is how many answers a record has in each way.
    """
    found: dict[str, Reading] = {}
    names = ways.names
    for number, name in enumerate(names):
        places = range(number * each, (number + 1) * each)
        found[name] = _reading(rows, task, partial(_always, places), each)
    if ways.consensus is not None:
        found["consensus"] = _by_consensus(rows, task, ways, each)
    if not names and each > 1:
        found["vote"] = _reading(rows, task, lambda row: [winner(_said(row), [1.0] * each)], 1)
    if not names and any(row.verdicts for row in rows):
        weighed: Mapping[str, Choose] = {
            "weighted vote": lambda row: [winner(_said(row), row.verdicts)],
            "best": lambda row: [max(range(each), key=lambda i: row.verdicts[i])],
        }
        found |= {name: _reading(rows, task, choose, 1) for name, choose in weighed.items()}
    return found


def winner(answers: Sequence[str | None], weights: Sequence[float]) -> int:
    """The place of the first answer of those whose weights are the most together.

    Answers that cannot be read vote for nobody; where none can, it is the first. Equal sums: the
    answer that was given first.

    >>> winner(["4", "5", None, "5"], [0.9, 0.4, 1.0, 0.4])
    0
    """
    totals: dict[str, float] = {}
    for answer, weight in zip(answers, weights, strict=True):
        if answer is not None:
            totals[answer] = totals.get(answer, 0.0) + weight
    return answers.index(max(totals, key=lambda a: totals[a])) if totals else 0


def _by_consensus(rows: Sequence[Scored], task: Task, ways: WaysConfig, each: int) -> Reading:
    """The first lead's answer where all but one agree, else that one's; each answer's own.

    What was asked counts: the leads that are compared, and the last where they differ.
    """
    names = list(ways.leads)
    last = names.index(ways.consensus or "")
    short = [number for number in range(len(names)) if number != last]

    def places(row: Scored, sample: int) -> list[int]:
        asked = [number * each + sample for number in short]
        said = {answer for i, answer in enumerate(_said(row)) if i in asked}
        agree = len(said) == 1 and None not in said
        return asked if agree else [last * each + sample, *asked]

    def chosen(row: Scored) -> list[int]:
        return [places(row, sample)[0] for sample in range(each)]

    taken = _reading(rows, task, chosen, each)
    spent = [
        sum(row.lengths[i] for i in places(row, sample))
        for row in rows
        if not row.unreadable
        for sample in range(each)
    ]
    tokens = sum(spent) / len(spent) if spent else 0.0
    return Reading(taken.metric, taken.low, taken.high, tokens)


def _always(places: Sequence[int], row: Scored) -> Sequence[int]:
    return places


def _said(row: Scored) -> list[str | None]:
    answers = [final_answer(text) for text in row.texts]
    return [None if answer is None else folded(answer) for answer in answers]


def _reading(rows: Sequence[Scored], task: Task, choose: Choose, count: int) -> Reading:
    """The number of `count` of a record's answers."""
    kept = [row if row.unreadable else row.only(choose(row)) for row in rows]
    found = summarise(kept, task, count)
    lengths = [length for row in kept for length in row.lengths]
    tokens = sum(lengths) / len(lengths) if lengths else 0.0
    return Reading(found.metric, found.low, found.high, tokens)
