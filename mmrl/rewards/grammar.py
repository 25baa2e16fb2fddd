r"""Answer grammars: one object writes the prompt's instruction and parses the completion.

A grammar finds the one answer region of a completion and hands its text to a payload parser
(`numbers`, `boxes`, `math` ...). Scans are `str.find` and `str.count` only, so the time is linear
in the capped length whatever the model wrote. Exactly one answer region counts: with the first or
the last of several, a policy learns to write many.

A thought is free text: answer regions inside `<think>...</think>` are drafts and do not count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from mmrl.rewards.braces import closing_brace
from mmrl.rewards.parsed import Parsed, malformed, ok
from mmrl.rewards.thoughts import CLOSE, OPEN, whole
from mmrl.types import Answer

Think = Literal["none", "optional", "required", "opened"]
"""Whether a thought precedes the answer. "opened": the chat template has already written the
opening tag, so the completion starts inside the thought."""

MAX_CHARACTERS = 65_536
MAX_REGION_CHARACTERS = 4_096


@dataclass(frozen=True, slots=True)
class Region:
    """The parsed completion: the answer's text, and whether everything around it is in order.

    `well_formed` is what a format reward pays for; `answer.status` is "ok" also where the
    surroundings are not in order but the answer itself is unmistakable.
    """

    answer: Parsed[str]
    well_formed: bool


class Grammar(Protocol):
    """What a task needs of an answer grammar."""

    def instruction(self) -> str:
        """Tell the model how to answer; parsed as a completion it must not give an answer."""
        ...

    def parse(self, answer: Answer) -> Region:
        """Find the answer region of a completion in linear time; never raises."""
        ...

    def write(self, payload: str, thought: str = "") -> str:
        """Write a well-formed completion with this answer."""
        ...


@dataclass(frozen=True, slots=True)
class TagAnswer:
    """`<answer>payload</answer>`, after a `<think>` region if asked; nothing else around them.

    `refusal` is a payload by which the model may declare that there is no answer.

    Example:
        >>> grammar = TagAnswer(think="none")
        >>> grammar.parse(Answer(grammar.write("3"))).answer.value
        '3'
        >>> grammar.parse(Answer("<answer>3</answer> <answer>4</answer>")).answer.status
        'multiple'
    """

    think: Think = "required"
    tag: str = "answer"
    refusal: str = ""
    max_characters: int = MAX_CHARACTERS
    max_region_characters: int = MAX_REGION_CHARACTERS

    def instruction(self) -> str:
        tags = f"<{self.tag}> </{self.tag}>"
        return _instruction(self.think, f"Write the final answer between {tags} tags", self.refusal)

    def parse(self, answer: Answer) -> Region:
        return _parse(self, answer)

    def write(self, payload: str, thought: str = "") -> str:
        return _with_thought(self.think, thought, f"<{self.tag}>{payload}</{self.tag}>")

    def find(self, text: str) -> tuple[Parsed[tuple[int, int]], bool]:
        """Locate the payload in the text after the thought; True if nothing surrounds it."""
        opening, closing = f"<{self.tag}>", f"</{self.tag}>"
        opened, closed = text.count(opening), text.count(closing)
        if opened == closed == 0:
            return Parsed("missing", None, f"no {opening} region"), False
        if opened > 1 or closed > 1:
            return Parsed("multiple", None, f"more than one {opening} region"), False
        start, end = text.find(opening) + len(opening), text.find(closing)
        if opened != closed or end < start:
            return malformed(f"{opening} region is not closed"), False
        outside = text[: start - len(opening)].strip() + text[end + len(closing) :].strip()
        return ok((start, end)), not outside


@dataclass(frozen=True, slots=True)
class BoxedAnswer:
    r"""`\boxed{payload}` with nested braces, anywhere after the thought; text around it is free.

    Example:
        >>> BoxedAnswer(think="none").parse(Answer(r"So it is \boxed{\frac{1}{2}}.")).answer.value
        '\\frac{1}{2}'
    """

    think: Think = "required"
    refusal: str = ""
    max_characters: int = MAX_CHARACTERS
    max_region_characters: int = MAX_REGION_CHARACTERS

    def instruction(self) -> str:
        return _instruction(self.think, r"Write the final answer in \boxed{}", self.refusal)

    def parse(self, answer: Answer) -> Region:
        return _parse(self, answer)

    def write(self, payload: str, thought: str = "") -> str:
        return _with_thought(self.think, thought, rf"\boxed{{{payload}}}")

    def find(self, text: str) -> tuple[Parsed[tuple[int, int]], bool]:
        """Locate the payload in the text after the thought; prose around it is in order."""
        opening = r"\boxed{"
        at = text.find(opening)
        if at < 0:
            return Parsed("missing", None, r"no \boxed{} region"), False
        start = at + len(opening)
        end = closing_brace(text, start)
        if end < 0:
            # One unclosed box ends the search: looking for the next would make it quadratic.
            return malformed(r"\boxed{ is not closed"), False
        if text.find(r"\boxed", start) >= 0:
            return Parsed("multiple", None, r"more than one \boxed{} region"), False
        return ok((start, end)), True


def _instruction(think: Think, answer: str, refusal: str) -> str:
    thought = {
        "none": "",
        "optional": "You may reason between <think> </think> tags first. ",
        "required": "First reason between <think> </think> tags. ",
        "opened": "First reason, and end your reasoning with </think>. ",
    }[think]
    declared = f"; if there is none, answer '{refusal}'" if refusal else ""
    return f"{thought}{answer}{declared}."


def _with_thought(think: Think, thought: str, answer: str) -> str:
    match think:
        case "none":
            return answer
        case "opened":
            return f"{thought}{CLOSE}\n{answer}"
        case "optional" if not thought:
            return answer
        case _:
            return f"{OPEN}{thought}{CLOSE}\n{answer}"


def _parse(grammar: TagAnswer | BoxedAnswer, answer: Answer) -> Region:
    if len(answer.text) > grammar.max_characters:
        return Region(malformed(f"longer than {grammar.max_characters} characters"), False)
    after, thought_in_order = _after_thought(answer, grammar.think)
    if after.value is None:
        return Region(_blame_truncation(answer, Parsed(after.status, None, after.reason)), False)
    text = after.value
    span, surroundings_in_order = grammar.find(text)
    payload = _blame_truncation(answer, span.then(lambda s: _payload(grammar, text[slice(*s)])))
    declared = payload.status in ("ok", "refusal")
    return Region(payload, thought_in_order and surroundings_in_order and declared)


def _after_thought(answer: Answer, think: Think) -> tuple[Parsed[str], bool]:
    """Split off the thought; the flag says whether it is as the grammar asks.

    A response that closes a thought it did not open began inside one, whoever opened it; it is in
    order only where the template is known to have done so.
    """
    if think == "none" and not answer.opening:
        return ok(answer.text), True
    text = whole(answer)
    opened, closed = text.count(OPEN), text.count(CLOSE)
    if answer.opening and closed == 0 and answer.text.count(OPEN) == 0:
        return ok(answer.text), False  # the template's thought was never closed
    if opened == 0 and closed == 1:
        return ok(text.partition(CLOSE)[2]), think == "opened"
    if opened == closed == 0:
        return ok(text), think == "optional"
    if opened > 1 or closed > 1:
        return Parsed("multiple", None, "more than one <think> region"), False
    before, found, rest = text.partition(OPEN)
    _, ended, after = rest.partition(CLOSE)
    if not (found and ended):
        return malformed("<think> region is not closed"), False
    return ok(f"{before}\n{after}"), not before.strip()


def _payload(grammar: TagAnswer | BoxedAnswer, text: str) -> Parsed[str]:
    text = text.strip()
    if not text:
        return Parsed("missing", None, "the answer region is empty")
    if len(text) > grammar.max_region_characters:
        return malformed(f"answer longer than {grammar.max_region_characters} characters")
    if grammar.refusal and text.lower() == grammar.refusal.lower():
        return Parsed("refusal", None, "declared that there is no answer")
    return ok(text)


def _blame_truncation(answer: Answer, found: Parsed[str]) -> Parsed[str]:
    """A region that is absent or half open because the response was cut counts as truncated."""
    if answer.truncated and found.status in ("missing", "malformed"):
        return Parsed("truncated", None, f"response was cut: {found.reason}")
    return found
