"""What a response answered, and which kind of response it is, read off its text."""

from __future__ import annotations

from collections.abc import Mapping

from mmrl.rewards.grammar import BoxedAnswer, TagAnswer
from mmrl.types import Answer, Group

_GRAMMARS = (TagAnswer(think="optional"), BoxedAnswer(think="optional"))


def answers(group: Group) -> list[str | None]:
    """The final answer of every response, folded for comparison; None where there is none."""
    given = group.extra.answers
    if given is None:
        given = [final_answer(r.text) for r in group.responses]
    return [None if answer is None else folded(answer) for answer in given]


def final_answer(text: str) -> str | None:
    """What a text gives as its answer, in either grammar; None where it gives none.

    >>> final_answer("<think>two and two</think><answer>4</answer>")
    '4'
    """
    parsed = (grammar.parse(Answer(text)).answer for grammar in _GRAMMARS)
    return next((p.value for p in parsed if p.status == "ok"), None)


def folded(answer: str) -> str:
    """An answer as it is compared: without regard to case and spacing."""
    return " ".join(answer.split()).casefold()


def clusters(group: Group) -> list[int]:
    """A label for every response; equal answers share one, a missing answer is its own cluster."""
    labels: dict[object, int] = {}
    keys = [i if a is None else a for i, a in enumerate(answers(group))]
    return [labels.setdefault(key, len(labels)) for key in keys]


def kinds(group: Group, markers: Mapping[str, str]) -> list[str | None]:
    """The kind of every response: whose marker stands first in its text; None without any."""

    def kind(text: str) -> str | None:
        found = {name: text.find(marker) for name, marker in markers.items()}
        present = {place: name for name, place in found.items() if place >= 0}
        return present[min(present)] if present else None

    return [kind(response.text) for response in group.responses]
