"""Messages in any common dialect -> a question, the turns before it, and the reply to learn.

TRL's typed content, OpenAI's content parts, qwen-vl-utils' messages, ms-swift's `messages` and
LLaVA's or ShareGPT's `conversations` differ in names only: a role, and a text or a list of parts.
Media stand in the parts themselves, or in columns of the row in the order of their placeholders.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmrl.corpus.placeholders import KINDS, Hole, Kind, split

ROLES = {
    "system": "system", "developer": "system", "user": "user", "human": "user", "tool": "tool",
    "observation": "tool", "function": "tool", "assistant": "assistant", "gpt": "assistant",
    "function_call": "assistant",
    "model": "assistant", "bot": "assistant", "chatgpt": "assistant",
}  # fmt: skip
_MEDIA_KEYS: Mapping[str, Kind] = {
    "image": "image", "image_url": "image", "input_image": "image", "video": "video",
    "video_url": "video", "input_video": "video", "audio": "audio", "audio_url": "audio",
    "input_audio": "audio",
}  # fmt: skip
_VALUES = ("url", "path", "bytes", "data", "base64")
_SILENT = {"type", "text", "detail", "format", "mime_type", "resized_height", "resized_width",
           "raw_fps", *_VALUES, *_MEDIA_KEYS}  # fmt: skip
"""Keys of a part that are no settings: `detail` and `format` are hints to other services."""
SETTINGS: Mapping[Kind, Mapping[str, str]] = {
    "image": {"min_pixels": "min_pixels", "max_pixels": "max_pixels"},
    "video": {
        "fps": "fps",
        "sample_fps": "fps",
        "nframes": "frames",
        "min_frames": "min_frames",
        "max_frames": "max_frames",
        "video_start": "start",
        "video_end": "end",
        "max_pixels": "max_frame_pixels",
        "total_pixels": "max_total_pixels",
    },
    "audio": {"audio_start": "start", "audio_end": "end"},
}
"""Names of settings there and here; `resized_height` and `resized_width` become `size`."""


@dataclass(frozen=True)
class Medium:
    """A medium as the row gives it, with the settings of its part."""

    kind: Kind
    value: Any
    settings: Mapping[str, Any] = field(default_factory=dict)


Piece = str | Medium


def medium(kind: Kind, value: Any) -> Medium:
    """A column's medium; a mapping may set for it what a message's part can, and more."""
    if not isinstance(value, Mapping):
        return Medium(kind, value)
    known = {*SETTINGS[kind], "resized_height", "resized_width"}
    set_here = {k: v for k, v in value.items() if k in known and v is not None}
    return Medium(kind, value, _settings(set_here, kind))


@dataclass(frozen=True)
class Message:
    """A turn: `system`, `user`, `assistant` or `tool`, and what it says and shows, in order."""

    role: str
    pieces: tuple[Piece, ...]

    @property
    def media(self) -> list[Medium]:
        return [piece for piece in self.pieces if isinstance(piece, Medium)]


@dataclass(frozen=True)
class Conversation:
    """The user's turn to be answered, what came before it, and the reply where there is one."""

    question: Message
    history: tuple[Message, ...] = ()
    system: str | None = None
    reply: str | None = None

    @property
    def text(self) -> str:
        """The question in one text, a plain placeholder in the place of each medium."""
        return "".join(p if isinstance(p, str) else f"<{p.kind}>" for p in self.question.pieces)


def is_conversation(value: Any) -> bool:
    """Whether a value is a list of messages."""
    return (
        isinstance(value, list | tuple)
        and bool(value)
        and all(isinstance(m, Mapping) and _role_key(m) for m in value)
    )


def read(messages: Sequence[Any], columns: Mapping[Kind, Sequence[Any]]) -> Conversation:
    """Read messages; `columns` are the row's media by kind, taken in the order of placeholders.

    Media of a kind for which nothing holds a place begin the first user turn. Raises ValueError
    for an unknown role, a question that is missing, and placeholders that media do not match.
    """
    found = [_message(message) for message in messages]
    reply = None
    if found and found[-1][0] == "assistant":
        reply = _plain(found.pop()[1])
    system = None
    while found and found[0][0] == "system":
        said = _plain(found.pop(0)[1])
        system = said if system is None else f"{system}\n{said}"
    if not found or found[-1][0] != "user":
        raise ValueError("no user turn to answer in the messages")
    *history, question = _filled(found, columns)
    return Conversation(question, tuple(history), system, reply)


def reply_text(value: Any) -> str:
    """A completion as text: it is a text, one message, or a conversation that ends with it."""
    if isinstance(value, str):
        return value
    messages = value if isinstance(value, list | tuple) else [value]
    if not is_conversation(messages):
        raise ValueError(f"neither a text nor messages: {value!r:.60}")
    role, pieces = _message(messages[-1])
    if role != "assistant":
        raise ValueError(f"a completion ends with the assistant's turn, this one with {role}'s")
    return _plain(pieces)


def _role_key(message: Mapping[str, Any]) -> str | None:
    if "content" in message and ("role" in message or "from" in message):
        return "role" if "role" in message else "from"
    return "from" if "from" in message and "value" in message else None


def _message(message: Mapping[str, Any]) -> tuple[str, list[str | Medium | Hole]]:
    key = _role_key(message)
    if key is None:
        raise ValueError(f"no message: {message!r:.60}")
    said = message[key]
    role = ROLES.get(str(said).lower())
    if role is None:
        raise ValueError(f"unknown role {said!r}; known: {', '.join(ROLES)}")
    if message.get("tool_calls"):
        raise ValueError("tool_calls in a message: write them into its content")
    content = message.get("content", message.get("value"))
    if isinstance(content, Mapping):
        content = [content]
    if content is None or isinstance(content, str):
        return role, list(split(content or ""))
    return role, [piece for item in content for piece in _pieces(item)]


def _pieces(item: Any) -> Iterator[str | Medium | Hole]:
    if isinstance(item, str):
        yield from split(item)
        return
    filled = {key: value for key, value in item.items() if value is not None}
    named = str(filled.get("type", ""))
    key = next((k for k in _MEDIA_KEYS if filled.get(k)), None)
    kind = _MEDIA_KEYS.get(named) or (_MEDIA_KEYS[key] if key else None)
    if kind is None:
        text = filled.get("text", filled.get("content"))
        if not isinstance(text, str):
            raise ValueError(f"neither text nor a medium: {filled!r:.80}")
        yield from split(text)
        return
    key = key or next((k for k in _VALUES if filled.get(k)), None)
    if key is None:
        yield Hole(kind)
    else:
        value = {key: filled[key]} if key in ("data", "base64") else filled[key]
        yield Medium(kind, value, _settings(filled, kind))


def _settings(item: Mapping[str, Any], kind: Kind) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for name in item.keys() - _SILENT:
        if name not in SETTINGS[kind]:
            raise ValueError(f"{kind} setting '{name}' has no counterpart")
        settings[SETTINGS[kind][name]] = item[name]
    if "resized_height" in item and "resized_width" in item:
        settings["size"] = (item["resized_width"], item["resized_height"])
    return settings


def _filled(
    turns: Sequence[tuple[str, Sequence[str | Medium | Hole]]],
    columns: Mapping[Kind, Sequence[Any]],
) -> list[Message]:
    """The turns with the columns' media in their places."""
    holes = [piece for _, pieces in turns for piece in pieces if isinstance(piece, Hole)]
    places = {kind: Places(kind, columns.get(kind, ()), holes) for kind in KINDS}
    messages = [
        Message(
            role,
            tuple(_put(p, places) if isinstance(p, Hole) else p for p in pieces),
        )
        for role, pieces in turns
    ]
    leading = [medium(kind, value) for kind in KINDS for value in places[kind].left()]
    if leading:
        first = next(i for i, m in enumerate(messages) if m.role == "user")
        messages[first] = Message("user", (*leading, *messages[first].pieces))
    return messages


def _put(hole: Hole, places: Mapping[Kind, Places]) -> Medium:
    if hole.path is not None:
        return Medium(hole.kind, hole.path)
    return medium(hole.kind, places[hole.kind].fill(hole))


class Places:
    """Which of a kind's media stand at which of its placeholders.

    A plain placeholder takes the next medium; a numbered one that with its number, from 1, or from
    0 where some placeholder has the number 0, as often as it stands there.
    """

    def __init__(self, kind: Kind, values: Sequence[Any], holes: Sequence[Hole]) -> None:
        own = [hole for hole in holes if hole.kind == kind and hole.path is None]
        self._kind, self._values = kind, values
        self._plain = sum(hole.number is None for hole in own)
        numbers = [hole.number for hole in own if hole.number is not None]
        self._base = 0 if 0 in numbers else 1
        self._numbered = {number - self._base for number in numbers}
        self._next = 0
        if self._plain and self._plain != len(values):
            raise ValueError(f"{self._plain} <{kind}> placeholders for {len(values)} {kind}s")

    def fill(self, hole: Hole) -> Any:
        """The medium at a placeholder; a number that no medium has raises ValueError."""
        if hole.number is None:
            self._next += 1
            return self._values[self._next - 1]
        index = hole.number - self._base
        if not 0 <= index < len(self._values):
            raise ValueError(f"{hole.text} in the text, the record has {len(self._values)}")
        return self._values[index]

    def left(self) -> list[Any]:
        """Media that no placeholder names, in order."""
        if self._plain:
            return []
        return [value for i, value in enumerate(self._values) if i not in self._numbered]


def _plain(pieces: Sequence[str | Medium | Hole]) -> str:
    if any(isinstance(piece, Medium) for piece in pieces):
        raise ValueError("media are taken in turns that are asked, not in a reply or the system's")
    return "".join(p if isinstance(p, str) else p.text for p in pieces if not isinstance(p, Medium))
