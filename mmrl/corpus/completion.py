"""The completion that a supervised phase trains, out of what the record gives itself.

A record may give a whole completion in the task's form, one in another form, an answer alone, a
chain of thought beside an answer, or a chain of thought alone. The task's own target, written of
the gold, says which form is wanted; what earns as much as it does is in that form.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from mmrl.corpus.fields import answer_in
from mmrl.types import Reference, Score

Scoring = Callable[[str], Score]

_SLACK = 1e-6
_THOUGHT = re.compile(r"<think>(.*?)</think>", re.DOTALL)
_ANSWER = re.compile(r"<answer>.*?</answer>", re.DOTALL)


def completion(given: Reference, own: str | None, score: Scoring) -> str | None:
    """The record's completion where it is in order, else its thought in the task's own target.

    `own` None: the task writes no target, and what is given stands as it is. Raises ValueError
    where the given answer earns nothing and the task's own does.
    """
    thought = given.thought.strip() or thought_in(given.text)
    if own is None:
        bare = bool(given.text and given.thought.strip() and "</think>" not in given.text)
        text = f"<think>\n{thought}\n</think>\n{given.text}" if bare else given.text
        return text or None
    full = score(own)
    whole = given.text and (not given.thought.strip() or "</think>" in given.text)
    if whole and _earns(score(given.text), full):
        return given.text
    if given.text and not _answers(given.text, own, full, score):
        thought = thought or given.text.strip()  # prose whose answer cannot be told from the rest
    for text in _with_thought(own, thought):
        if _earns(score(text), full):
            return text
    return own


def thought_in(text: str) -> str:
    """The thought of a completion: in its tags, else what precedes its tagged or boxed answer."""
    found = _THOUGHT.search(text)
    if found:
        return found[1].strip()
    head, closed, _ = text.partition("</think>")
    if closed:
        return head.strip()
    before, tagged, _ = text.partition("<answer>")
    if tagged:
        return before.strip()
    return text.strip() if text.rfind(r"\boxed{") > 0 else ""


def is_thoughtless(text: str) -> bool:
    """Whether a completion has a place for a thought and nothing in it."""
    head, closed, _ = text.partition("</think>")
    return bool(closed) and not head.replace("<think>", "").strip()


def _answers(text: str, own: str, full: Score, score: Scoring) -> bool:
    """Whether the text's answer can be read; one that earns nothing raises ValueError."""
    answer = answer_in(text)
    verdict = score(_answering(own, answer))
    if verdict.status != "ok":
        return False
    if verdict.metric is not None and full.metric is not None and verdict.metric <= 0 < full.metric:
        raise ValueError(f"the record's completion answers {answer!r:.60}, which its gold does not")
    return True


def _answering(own: str, answer: str) -> str:
    """The task's own target with another answer in its tags or box."""
    if _ANSWER.search(own):
        return _ANSWER.sub(lambda _: f"<answer>{answer}</answer>", own)
    boxed = own.rfind(r"\boxed{")
    return f"{own[: boxed + 7]}{answer}}}" if boxed >= 0 else answer


def _with_thought(own: str, thought: str) -> Iterator[str]:
    """The task's own target with a thought, in every form that a grammar may take."""
    if not thought:
        return
    said = f"\n{thought.replace('<think>', '').replace('</think>', '').strip()}\n"
    if _THOUGHT.search(own):
        yield _THOUGHT.sub(lambda _: f"<think>{said}</think>", own, count=1)
    elif own.startswith("</think>"):
        yield said.lstrip() + own
    else:
        yield f"<think>{said}</think>\n{own}"


def _earns(score: Score, full: Score) -> bool:
    """Whether a completion is read and earns what the task's own target does."""
    return score.status == full.status and all(
        score.parts.get(name, 0.0) >= value - _SLACK for name, value in full.parts.items()
    )
