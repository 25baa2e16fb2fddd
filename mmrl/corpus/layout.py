"""The name of a row's layout, for people: which of the common ones its shape is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmrl.corpus.cells import as_value
from mmrl.corpus.fields import Fields


def layout_of(fields: Fields) -> str:
    """Name the layout of a row by where its question and its media stand."""
    column = fields.messages_column
    if column is None:
        question = fields.question_column
        if question is None:
            return "a task's own columns"
        return f"columns, the question in `{question}`{_media(fields)}"
    messages = as_value(fields.own[column])
    if "value" in messages[0]:
        return f"LLaVA / ShareGPT `{column}`{_media(fields)}"
    parts = [part for message in messages for part in _parts(message)]
    if any(key in part for part in parts for key in ("image_url", "input_audio", "video_url")):
        return f"OpenAI content parts in `{column}`"
    if any(part.get(key) for part in parts for key in ("image", "video", "audio")):
        return f"qwen-vl-utils messages in `{column}`"
    if "reward_model" in fields:
        return f"verl: messages in `{column}`, gold in `reward_model`{_media(fields)}"
    if parts:
        return f"TRL: typed content in `{column}`{_media(fields)}"
    return f"messages in `{column}`, as of ms-swift or TRL{_media(fields)}"


def _parts(message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    content = message.get("content")
    items = content if isinstance(content, list | tuple) else []
    return [item for item in items if isinstance(item, Mapping)]


def _media(fields: Fields) -> str:
    columns = [f"`{name}`" for names in fields.media_columns.values() for name in names]
    return f", media in {', '.join(columns)}" if columns else ""
