"""Chat-template text shared by families: user text is data, special tokens in it are escaped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError

from mmrl.errors import UserError, one_line
from mmrl.types import MediaKind, Observation, Part, Sample, Text

ZERO_WIDTH_SPACE = "\u200b"
MARK = "\u241f"  # stands for what the model said; templates leave it alone

CONTENT_TYPE: dict[MediaKind, str] = {
    "image": "image",
    "screenshot": "image",
    "video": "video",
    "audio": "audio",
}
OTHER_KIND = "image"
"""Of a kind that another package brings: a chat template knows no more than these."""


def messages(sample: Sample, special_tokens: Sequence[str]) -> list[dict[str, Any]]:
    """A sample as chat messages, earlier turns first, media as placeholders in place.

    A question whose parts are all of earlier turns is none.
    """
    turns = _turns(sample.parts, sample.history, "user", special_tokens)
    if sample.system is not None:
        system = escape(sample.system, special_tokens)
        turns.insert(0, {"role": "system", "content": [{"type": "text", "text": system}]})
    return turns


def rendered(processor: Any, sample: Sample, special_tokens: Sequence[str]) -> str:
    """A sample as the chat template writes it, with its tools, up to where the answer begins."""
    tools = {"tools": list(sample.tools)} if sample.tools else {}
    text: str = processor.apply_chat_template(
        messages(sample, special_tokens), tokenize=False, add_generation_prompt=True, **tools
    )
    return text


def _turns(
    parts: Sequence[Part],
    history: Sequence[tuple[str, int]],
    role: str,
    special_tokens: Sequence[str],
) -> list[dict[str, Any]]:
    content = contents(parts, special_tokens)
    turns: list[dict[str, Any]] = []
    for earlier, count in history:
        turns.append({"role": earlier, "content": content[:count]})
        content = content[count:]
    return [*turns, {"role": role, "content": content}] if content or not turns else turns


def contents(parts: Sequence[Part], special_tokens: Sequence[str]) -> list[dict[str, Any]]:
    """The content of one turn, media as placeholders in place."""
    return [
        {"type": "text", "text": escape(part.text, special_tokens)}
        if isinstance(part, Text)
        else {"type": CONTENT_TYPE.get(part.kind, OTHER_KIND)}
        for part in parts
    ]


def told(observation: Observation) -> tuple[Part, ...]:
    """The parts of the turn that tells of an observation."""
    return observation.parts or (Text(observation.text),)


def turn_after(processor: Any, observation: Observation, special_tokens: Sequence[str]) -> str:
    """What a chat template puts from the end of a model's turn to the start of its next.

    The turns between tell of the observation, in its role; raises UserError where the template has
    no place for that.
    """
    said = _turns((Text("-"), Text(MARK)), (("user", 1), ("assistant", 1)), "user", ())
    shown = _turns(told(observation), observation.history, observation.role, special_tokens)
    try:
        whole: str = processor.apply_chat_template(
            [*said, *shown],
            tokenize=False,
            add_generation_prompt=True,
        )
    except TemplateError as error:
        raise UserError(
            f"the model's chat template has no place for a turn of role '{observation.role}': "
            f"{one_line(error)}"
        ) from error
    _, mark, after = whole.partition(MARK)
    if not mark:
        raise UserError("the model's chat template loses what the model said in an earlier turn")
    return after


def escape(text: str, special_tokens: Sequence[str]) -> str:
    """Break special-token strings that stand in user text, so that they tokenize as text."""
    for token in special_tokens:
        if token in text:
            text = text.replace(token, token[0] + ZERO_WIDTH_SPACE + token[1:])
    return text
