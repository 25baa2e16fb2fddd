"""Parts of a question or an observation as JSON, encoded media in base64."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmrl.types import MediaRef, MediaSource, Part, Text


def part_values(part: Part) -> dict[str, Any]:
    """Plain data that `part_of` reads back; raises TypeError at what is no part."""
    if isinstance(part, Text):
        return {"text": part.text}
    if not isinstance(part, MediaRef):
        raise TypeError(f"a part is a Text or a MediaRef, not {type(part).__name__}")
    several = isinstance(part.source, tuple)
    sources = part.source if isinstance(part.source, tuple) else (part.source,)
    return {
        "kind": part.kind,
        "sources": [_source_values(source) for source in sources],
        "several": several,
        "options": dict(part.options),
    }


def part_of(values: Mapping[str, Any]) -> Part:
    """The part of what `part_values` made."""
    if "text" in values:
        return Text(values["text"])
    sources = tuple(_source(source) for source in values["sources"])
    return MediaRef(values["kind"], sources if values["several"] else sources[0], values["options"])


def _source_values(source: MediaSource) -> dict[str, str]:
    match source:
        case bytes():
            return {"base64": base64.b64encode(source).decode("ascii")}
        case Path():
            return {"path": str(source)}
        case _:
            return {"url": source}


def _source(values: Mapping[str, str]) -> MediaSource:
    ((kind, text),) = values.items()
    if kind == "base64":
        return base64.b64decode(text, validate=True)
    return Path(text) if kind == "path" else text
