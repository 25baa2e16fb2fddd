"""Chat-template text shared by families: user text is data, special tokens in it are escaped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmrl.types import MediaKind, Sample, Text

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
    """A sample as chat messages, earlier turns first, media as placeholders in place."""
    content = [
        {"type": "text", "text": escape(part.text, special_tokens)}
        if isinstance(part, Text)
        else {"type": CONTENT_TYPE.get(part.kind, OTHER_KIND)}
        for part in sample.parts
    ]
    turns: list[dict[str, Any]] = []
    for role, count in sample.history:
        turns.append({"role": role, "content": content[:count]})
        content = content[count:]
    turns.append({"role": "user", "content": content})
    if sample.system is not None:
        system = escape(sample.system, special_tokens)
        turns.insert(0, {"role": "system", "content": [{"type": "text", "text": system}]})
    return turns


def turn_after(processor: Any, text: str, special_tokens: Sequence[str]) -> str:
    """What a chat template puts from the end of a model's turn to the start of its next.

    The user turn between says `text`.
    """
    said = [("user", "-"), ("assistant", MARK), ("user", escape(text, special_tokens))]
    whole: str = processor.apply_chat_template(
        [{"role": role, "content": [{"type": "text", "text": words}]} for role, words in said],
        tokenize=False,
        add_generation_prompt=True,
    )
    return whole.partition(MARK)[2]


def escape(text: str, special_tokens: Sequence[str]) -> str:
    """Break special-token strings that stand in user text, so that they tokenize as text."""
    for token in special_tokens:
        if token in text:
            text = text.replace(token, token[0] + ZERO_WIDTH_SPACE + token[1:])
    return text
