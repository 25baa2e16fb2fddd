"""Chat messages of OpenAI's form -> parts that a model family takes, and what a model wrote -> one.

Messages are compared with those of earlier calls, so a `Message` has no more than what is said: its
role, its texts and media, the calls of an assistant.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from mmrl.rewards.json_text import parse_json
from mmrl.types import MediaRef, Observation, Part, Role, Sample, Text

ROLES = ("system", "user", "assistant", "tool")
OPEN, CLOSE = "<tool_call>", "</tool_call>"
_CALL = re.compile(rf"{OPEN}\s*(\{{.*?\}})\s*{CLOSE}", re.DOTALL)
_DATA = re.compile(r"data:(image|video|audio)/[A-Za-z0-9.+-]+;base64,(.*)", re.DOTALL)


class BadMessages(ValueError):
    """Messages that no model can be asked with; the text says why."""


@dataclass(frozen=True)
class Message:
    """Who says what; `calls` are an assistant's, by name and arguments as text."""

    role: str
    parts: tuple[Part, ...]
    calls: tuple[tuple[str, str], ...] = ()

    @property
    def written(self) -> tuple[Part, ...]:
        """Its parts, and its calls as a model would have written them."""
        calls = (
            Text(f'{OPEN}\n{{"name": {json.dumps(name)}, "arguments": {given}}}\n{CLOSE}')
            for name, given in self.calls
        )
        return (*self.parts, *calls)


def messages_of(values: Any) -> tuple[Message, ...]:
    """Read the messages of a call; raises BadMessages with the place."""
    if not isinstance(values, list) or not values:
        raise BadMessages("messages: a list with at least one")
    return tuple(_message(value, f"messages[{i}]") for i, value in enumerate(values))


def _message(value: Any, place: str) -> Message:
    if not isinstance(value, dict) or value.get("role") not in (*ROLES, "developer"):
        raise BadMessages(f"{place}: an object with a role, one of {', '.join(ROLES)}")
    role = "system" if value["role"] == "developer" else str(value["role"])
    content = value.get("content")
    if content is None or isinstance(content, str):
        parts: tuple[Part, ...] = (Text(content),) if content else ()
    elif isinstance(content, list):
        parts = tuple(_joined(_part(p, f"{place}.content[{i}]") for i, p in enumerate(content)))
    else:
        raise BadMessages(f"{place}.content: a text or a list")
    return Message(role, parts, tuple(_calls(value.get("tool_calls") or (), place)))


def _part(value: Any, place: str) -> Part:
    kind = value.get("type") if isinstance(value, dict) else None
    match kind:
        case "text" if isinstance(value.get("text"), str):
            return Text(value["text"])
        case "image_url" | "video_url" | "audio_url":
            given = value.get(kind)
            return _medium(given.get("url") if isinstance(given, dict) else given, place)
        case "input_audio" if isinstance(value.get("input_audio"), dict):
            return MediaRef("audio", _bytes(value["input_audio"].get("data"), place))
    raise BadMessages(f"{place}: text, image_url, video_url or input_audio")


def _medium(url: Any, place: str) -> MediaRef:
    """A medium of a `data:` address; nothing is fetched for a caller."""
    found = _DATA.fullmatch(url) if isinstance(url, str) else None
    if found is None:
        raise BadMessages(f"{place}: a data: address, base64; others are not fetched")
    kinds = {"image": "image", "video": "video", "audio": "audio"}
    return MediaRef(kinds[found[1]], _bytes(found[2], place))  # type: ignore[arg-type]


def _bytes(text: Any, place: str) -> bytes:
    try:
        return base64.b64decode(str(text), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadMessages(f"{place}: not base64: {error}") from error


def _calls(values: Sequence[Any], place: str) -> Iterator[tuple[str, str]]:
    for value in values:
        function = value.get("function") if isinstance(value, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise BadMessages(f"{place}.tool_calls: objects with a function that has a name")
        given = function.get("arguments", "{}")
        yield function["name"], given if isinstance(given, str) else json.dumps(given)


def _joined(parts: Iterator[Part]) -> Iterator[Part]:
    """Parts without empty texts, texts side by side as one."""
    said = ""
    for part in parts:
        if isinstance(part, Text):
            said += part.text
            continue
        if said:
            yield Text(said)
        said = ""
        yield part
    if said:
        yield Text(said)


def sample_of(messages: Sequence[Message], like: Sample) -> Sample:
    """The question that messages are, with all else (task, gold, tools) as in `like`."""
    system, rest = "", list(messages)
    while rest and rest[0].role == "system":
        system += "".join(part.text for part in rest.pop(0).parts if isinstance(part, Text))
    if not rest:
        raise BadMessages("messages: nobody but the system says anything")
    last = rest[-1].role == "user"
    earlier = rest[:-1] if last else rest
    return Sample(
        id=like.id,
        task=like.task,
        parts=tuple(part for message in rest for part in message.written),
        gold=like.gold,
        system=system or None,
        meta=like.meta,
        start=like.start,
        turns=like.turns,
        history=tuple((message.role, len(message.written)) for message in earlier),
        tools=like.tools,
    )


def observation_of(messages: Sequence[Message], key: str) -> Observation | None:
    """What follows a model's turn; None where that is no observation (somebody speaks for it)."""
    if any(message.role not in get_args(Role) for message in messages):
        return None
    *earlier, last = messages
    return Observation(
        state={},
        key=key,
        parts=tuple(part for message in messages for part in message.parts),
        role=last.role,  # type: ignore[arg-type]
        history=tuple((message.role, len(message.parts)) for message in earlier),
    )


def reply_of(text: str, tools: bool) -> tuple[Message, dict[str, Any]]:
    """What a model wrote as a message, and the same as an answer to a call.

    With `tools` its calls, each a JSON object between `<tool_call>` tags, are told apart; what
    cannot be read as one stays in the text.
    """
    calls: list[tuple[str, str]] = []

    def take(found: re.Match[str]) -> str:
        value = parse_json(found[1]).value
        if not isinstance(value, dict) or not isinstance(value.get("name"), str):
            return found[0]
        calls.append((value["name"], json.dumps(value.get("arguments", {}), ensure_ascii=False)))
        return ""

    said = _CALL.sub(take, text) if tools else text
    if calls:
        said = said.strip()
    message = Message("assistant", (Text(said),) if said else (), tuple(calls))
    answer: dict[str, Any] = {"role": "assistant", "content": said}
    if calls:
        answer["tool_calls"] = [
            {"id": f"call_{n}", "type": "function", "function": {"name": name, "arguments": given}}
            for n, (name, given) in enumerate(calls)
        ]
    return message, answer


def is_prefix(known: Sequence[Message], messages: Sequence[Message]) -> bool:
    """Whether messages begin with those that are known."""
    return len(known) <= len(messages) and all(map(_same, known, messages))


def _same(one: Message, other: Message) -> bool:
    if (one.role, one.parts) != (other.role, other.parts) or len(one.calls) != len(other.calls):
        return False
    pairs = zip(one.calls, other.calls, strict=True)
    return all(a == b and _read(x) == _read(y) for (a, x), (b, y) in pairs)


def _read(arguments: str) -> Any:
    found = parse_json(arguments)
    return arguments if found.value is None else found.value


def told(value: Mapping[str, Any]) -> str:
    """What a call says of whose it is: the name of its session, "" for none."""
    name = str(value.get("model", ""))
    return name.partition(":")[2]
