"""Chat-template text shared by families: user text is data, special tokens in it are escaped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmrl.types import MediaKind, Sample, Text

ZERO_WIDTH_SPACE = "\u200b"

CONTENT_TYPE: dict[MediaKind, str] = {
    "image": "image",
    "screenshot": "image",
    "video": "video",
    "audio": "audio",
}


def messages(sample: Sample, special_tokens: Sequence[str]) -> list[dict[str, Any]]:
    """A sample as chat messages, media as placeholders in place."""
    content = [
        {"type": "text", "text": escape(part.text, special_tokens)}
        if isinstance(part, Text)
        else {"type": CONTENT_TYPE[part.kind]}
        for part in sample.parts
    ]
    turns: list[dict[str, Any]] = [{"role": "user", "content": content}]
    if sample.system is not None:
        system = escape(sample.system, special_tokens)
        turns.insert(0, {"role": "system", "content": [{"type": "text", "text": system}]})
    return turns


def escape(text: str, special_tokens: Sequence[str]) -> str:
    """Break special-token strings that stand in user text, so that they tokenize as text."""
    for token in special_tokens:
        if token in text:
            text = text.replace(token, token[0] + ZERO_WIDTH_SPACE + token[1:])
    return text
