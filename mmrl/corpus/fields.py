"""A row's columns, and what they mean under other names: question, media, answer, completion.

Tasks ask for columns by the names of the data sets they were written for. A row of another layout
answers too: `fields["problem"]` gives the question wherever the row holds it, `fields["image"]` its
picture. A column that is there under the asked name always comes first.
"""

from __future__ import annotations

import re
from collections.abc import ItemsView, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from mmrl.corpus import conversation as conversations
from mmrl.corpus.cells import as_value, dig, listed_options
from mmrl.corpus.conversation import Conversation, is_conversation, reply_text
from mmrl.corpus.media_columns import kind_of, media_items, number_of
from mmrl.corpus.placeholders import KINDS, Kind
from mmrl.types import Record, Reference

MESSAGES = ("messages", "conversations", "conversation", "prompt")
QUESTIONS = ("question", "problem", "prompt", "query", "instruction", "question_text",
             "problem_text", "Question", "Prompt")  # fmt: skip
ANSWERS = ("answer", "solution", "ground_truth", "gold", "label", "Answer", "gt")
COMPLETIONS = ("target", "completion", "chosen", "output")
THOUGHTS = ("thought", "cot", "chain_of_thought", "thinking", "think", "reasoning", "rationale",
            "reasoning_content")  # fmt: skip
_OPTIONAL = {"question", "problem"}
"""Names of a question that `get` finds elsewhere, too: the others may mean something else."""

_ASKED: Mapping[str, Kind | None] = {"audio_id": "audio", "path": None}
"""Other names by which tasks ask for a medium; None: for the only one, whatever it is."""
_HOLDERS = ("multi_modal_data", "media", "mm_data")
_MISSING = object()


class NoColumn(KeyError):
    """A column that a task needs and a row lacks, under any name."""

    @property
    def mapped_as(self) -> str:
        """The plainest name by which `columns` can say where it is."""
        name = str(self.args[0])
        kinds = {"question": QUESTIONS, "answer": ANSWERS}
        return next((plain for plain, names in kinds.items() if name in names), name)


class Fields(Mapping[str, Any]):
    """A row's own columns, and stand-ins for asked names that it lacks.

    `renamed` says in which column, or at which path in one (`reward_model.ground_truth`), an asked
    name is; a name without a column is left out. `taken` are the columns that were asked for, by
    any name.
    """

    def __init__(
        self, own: Mapping[str, Any], renamed: Mapping[str, str | None] | None = None
    ) -> None:
        self.own = dict(own)
        self.taken: set[str] = set()
        named = dict(renamed or {})
        for name, path in named.items():
            if path is None:
                self.own.pop(name, None)
            elif (value := dig(own, path)) is not None:
                self.own[name] = value
                self.taken |= {path.partition(".")[0]} - {name}
        self._open_holders()
        self._named = {name for name, path in named.items() if path}
        self._settled = {kind_of(name) for name, path in named.items() if path} - {None}

    def _open_holders(self) -> None:
        """Take media by kind out of one column, such as vLLM's `multi_modal_data`."""
        for name in _HOLDERS:
            held = as_value(self.own.get(name))
            by_kind = isinstance(held, Mapping) and held and all(map(kind_of, map(str, held)))
            if by_kind and self.own.keys().isdisjoint(held):
                self.own |= held

    def __getitem__(self, key: str) -> Any:
        if self._is_own(key):
            self.taken.add(key)
            return listed_options(self.own[key]) if key == "options" else self.own[key]
        found = self._stand_in(key)
        if found is _MISSING:
            if key in self.own:
                return self.own[key]
            raise NoColumn(key)
        return found

    def get(self, key: str, default: Any = None) -> Any:
        """As in a mapping; media and questions are found under other names, too."""
        if self._is_own(key):
            return self[key]
        if self._kind_asked(key) is not _MISSING or key in _OPTIONAL:
            found = self._stand_in(key)
            return self.own.get(key, default) if found is _MISSING else found
        return default if key == "options" else self.own.get(key, default)

    def __contains__(self, key: object) -> bool:
        return key in self.own

    def __iter__(self) -> Iterator[str]:
        return iter(self.own)

    def __len__(self) -> int:
        return len(self.own)

    def items(self) -> ItemsView[str, Any]:
        """The row's own columns; to list them is not to ask for them."""
        return self.own.items()

    def __repr__(self) -> str:
        return f"Fields({self.own!r})"

    @cached_property
    def media_columns(self) -> dict[Kind, list[str]]:
        """The columns that give the media of each kind: one, or those with a number."""
        found: dict[Kind, list[str]] = {}
        for kind in KINDS:
            names = [n for n, v in self.own.items() if kind_of(n) == kind and media_items(n, v)]
            numbered = [n for n in names if number_of(n) is not None]
            plain = sorted(set(names) - set(numbered), key=lambda n: self._rank(n, kind, names))
            chosen = plain[:1] or sorted(numbered, key=lambda n: number_of(n) or 0)
            if chosen:
                found[kind] = chosen
        return found

    def _rank(self, name: str, kind: Kind, names: Sequence[str]) -> tuple[int, int]:
        if name in self._named:
            return -1, 0
        order = (f"{kind}s", kind)
        return order.index(name) if name in order else len(order), names.index(name)

    @cached_property
    def media(self) -> dict[Kind, list[Any]]:
        """The media of the row's columns, by kind and in order."""
        return {
            kind: [item for name in names for item in media_items(name, self.own[name])]
            for kind, names in self.media_columns.items()
        }

    @cached_property
    def messages_column(self) -> str | None:
        """The column that holds messages, if one does."""
        for name in (*MESSAGES, "question", "chosen"):
            if is_conversation(as_value(self.own.get(name))):
                return name
        return None

    @property
    def has_turns(self) -> bool:
        """Whether the row holds messages that nobody took, or turns before its question."""
        if self.messages_column is not None:
            return self.messages_column not in self.taken
        return self.question_column is not None and bool(self._earlier)

    @cached_property
    def conversation(self) -> Conversation | None:
        """The row as a conversation; None where it holds neither messages nor a question.

        Raises ValueError where messages, placeholders and media do not go together.
        """
        name = self.messages_column
        if name is not None:
            messages = as_value(self.own[name])
            found = conversations.read([*self._earlier, *messages], self.media)
            if name == "prompt" and found.reply is not None:
                raise ValueError("the prompt ends with the assistant's turn: name it `messages`")
            return found
        question = self._question_text
        if question is None:
            return None
        message = {"role": "user", "content": question}
        system = self.own.get("system")
        first = [{"role": "system", "content": system}] if isinstance(system, str) else []
        return conversations.read([*first, *self._earlier, message], self.media)

    @property
    def _earlier(self) -> list[Any]:
        """The turns of a `history` column: pairs of question and answer, or messages."""
        turns = as_value(self.own.get("history"))
        if not turns or not isinstance(turns, list | tuple):
            return []
        if is_conversation(turns):
            return list(turns)
        if not all(isinstance(t, list | tuple) and len(t) == 2 for t in turns):
            raise ValueError("column 'history' holds neither pairs of turns nor messages")
        roles = ("user", "assistant")
        return [
            {"role": role, "content": text}
            for turn in turns
            for role, text in zip(roles, turn, strict=True)
        ]

    @property
    def prompt(self) -> Any:
        """The prompt as reward functions in TRL's form get it: messages or a text, no media."""
        if self.messages_column is None:
            return self._question_text
        return _without_media(as_value(self.own[self.messages_column]))

    @property
    def _question_text(self) -> str | None:
        name = self.question_column
        if name is None:
            return None
        text = str(self.own[name])
        more = self.own.get("input") if name == "instruction" else None
        return f"{text}\n{more}" if isinstance(more, str) and more else text

    @cached_property
    def question_column(self) -> str | None:
        """The column that holds the question as a text."""
        return next((n for n in QUESTIONS if isinstance(self.own.get(n), str)), None)

    @property
    def answer(self) -> Any:
        """The gold: of a column, of verl's `reward_model`, or of the reply; None without any."""
        for name in ANSWERS:
            if self.own.get(name) is not None:
                self.taken.add(name)
                return self.own[name]
        rewarded = dig(self.own, "reward_model.ground_truth")
        if rewarded is not None:
            return rewarded
        text = self.reference.text if self.reference else ""
        return answer_in(text) if text else None

    @property
    def reference(self) -> Reference | None:
        """The completion and the thought that the row gives itself."""
        # Beside a `query` a `response` is ms-swift's; elsewhere it may be what is asked about.
        swift = "query" in self.own and isinstance(self.own.get("response"), str)
        names = (*COMPLETIONS, "response") if swift else COMPLETIONS
        given = next((self.own[n] for n in names if self.own.get(n) not in (None, "")), None)
        if given is not None:
            text = reply_text(as_value(given)) if not isinstance(given, int | float) else str(given)
        else:
            talk = self.messages_column
            found = self.conversation if talk and talk not in self.taken else None
            text = (found.reply if found else None) or ""
        thought = next((v for n in THOUGHTS if isinstance(v := self.own.get(n), str) and v), "")
        return Reference(text, thought) if text or thought else None

    def settled(self, kind: Kind | None) -> bool:
        """Whether `renamed` says which column holds the media of a kind: others are left out."""
        return kind in self._settled

    def _is_own(self, key: str) -> bool:
        """Whether a column is given as it is: not if it holds messages where a text is asked."""
        value = self.own.get(key)
        if key in QUESTIONS and key != self.messages_column and isinstance(value, list | tuple):
            raise ValueError(f"column '{key}' holds neither a text nor messages")
        if value is None or (isinstance(value, str) and not value and kind_of(key)):
            return False
        if kind_of(key) and self.has_turns and (talk := self.conversation) and talk.history:
            return False  # some of the column's media are those of earlier turns
        return not (key in QUESTIONS and key == self.messages_column)

    def _kind_asked(self, key: str) -> Any:
        return _ASKED.get(key, kind_of(key) or _MISSING)

    def _stand_in(self, key: str) -> Any:
        if key in QUESTIONS:
            text = self._question_text
            found = self.conversation if self.messages_column else None
            return found.text if found else _MISSING if text is None else text
        if key in ANSWERS:
            answer = self.answer
            return _MISSING if answer is None else answer
        kind = self._kind_asked(key)
        return _MISSING if kind is _MISSING else self._medium(key, kind)

    def _medium(self, key: str, kind: Kind | None) -> Any:
        """The media that an asked name means: all for a plural, else the one there is."""
        found = [m for m in self._shown() if kind is None or m.kind == kind]
        if not found or (kind is not None and number_of(key) is not None):
            return _MISSING
        self.taken |= {n for m in found for n in self.media_columns.get(m.kind, ())}
        if key.endswith("s"):
            return [medium.value for medium in found]
        if len(found) > 1:
            raise ValueError(f"the task takes one medium as '{key}', the record has {len(found)}")
        return found[0].value

    def _shown(self) -> list[conversations.Medium]:
        """The question's media; where it has none, those of the turns before it."""
        found = self.conversation
        if found is None:
            return [conversations.medium(k, v) for k, values in self.media.items() for v in values]
        shown = found.question.media or [m for turn in found.history for m in turn.media]
        # The question is asked with its marks, and those that name a file are filled by it.
        text = "" if self.messages_column else self._question_text or ""
        return [m for m in shown if not (isinstance(m.value, str) and f">{m.value}</" in text)]


def fields_of(record: Record) -> Fields:
    """The columns of a record, with stand-ins for asked names."""
    return record.fields if isinstance(record.fields, Fields) else Fields(record.fields)


def own_column(fields: Mapping[str, Any], name: str) -> Any:
    """A row's own column as it is, also where it holds messages."""
    if isinstance(fields, Fields):
        fields.taken.add(name)
        return fields.own[name]
    return fields[name]


def answer_in(text: str) -> str:
    """The answer that a completion ends with: in its tags or box, else what follows the thought."""
    text = text.rpartition("</think>")[2].strip()
    tagged = re.search(r"<answer>(.*?)</answer>", text, re.DOTALL)
    if tagged:
        return tagged[1].strip()
    boxed = text.rfind(r"\boxed{")
    return text[boxed + 7 : text.rfind("}")].strip() if boxed >= 0 else text


def _without_media(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Messages up to the reply, with the types of their parts in the place of media."""
    kept = []
    for message in messages:
        content = message.get("content", message.get("value"))
        if isinstance(content, list | tuple):
            content = [
                {"type": "text", "text": part["text"]}
                if isinstance(part, Mapping) and isinstance(part.get("text"), str)
                else {
                    "type": str(part.get("type", "medium")) if isinstance(part, Mapping) else part
                }
                for part in content
            ]
        said = message.get("role", message.get("from"))
        kept.append({"role": conversations.ROLES.get(str(said).lower(), said), "content": content})
    if kept and kept[-1]["role"] == "assistant":
        kept.pop()
    return kept
