"""A task whose answers may take several turns: the model calls tools that look, then answers.

    <tool_call>{"name": "zoom", "arguments": {"bbox_2d": [x1, y1, x2, y2], "image": 1}}</tool_call>

What a tool gives is the next turn. A turn without a call is the answer, and the task scores that
turn as it scores any completion. Pictures are numbered as they are shown, from 1; where a call does
not say which, it means the first. Places are in the model's coordinates of that picture.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

from PIL import Image

from mmrl import task as contract
from mmrl.environments.picture_tools import TOOLS, NotUsable, PictureTool, Places, png_of
from mmrl.environments.python_tool import run_python
from mmrl.environments.text_search import index_of, search
from mmrl.errors import ConfigError
from mmrl.frame import Frame
from mmrl.modalities import image
from mmrl.rewards import boxes, points
from mmrl.rewards.calls import Call, call_of
from mmrl.rewards.json_text import is_number, parse_json
from mmrl.rewards.parsed import Parsed, malformed
from mmrl.types import Answer, MediaRef, Observation, Record, Sample, Score, SpanScore, Text

OPEN, CLOSE = "<tool_call>", "</tool_call>"
TURNS = 6


@dataclass(frozen=True)
class WordTool:
    """A tool that answers in words, by its arguments and what it does.

    `use` gets a call's arguments, the question's pictures and the corpus; raises NotUsable.
    """

    arguments: tuple[str, ...]
    does: str
    use: Callable[[Mapping[str, Any], Sequence[Image.Image], str], str]


def _text(arguments: Mapping[str, Any], name: str) -> str:
    if not isinstance(arguments.get(name), str):
        raise NotUsable(f"{name} is a text")
    return str(arguments[name])


WORDS: Mapping[str, WordTool] = {
    "python": WordTool(
        ("code",),
        "runs a Python program and shows what it prints; `pictures` are arrays, numpy is there",
        lambda given, pictures, corpus: run_python(_text(given, "code"), pictures),
    ),
    "search": WordTool(
        ("query",),
        "finds passages of texts",
        lambda given, pictures, corpus: search(corpus, _text(given, "query")),
    ),
}
ALL: Mapping[str, PictureTool | WordTool] = {**TOOLS, **WORDS}
SHAPING = ("crop", "turn", "size", "min_pixels", "max_pixels", "noise")
"""Options that a tool undoes: it looks at the source."""
EXAMPLES: Mapping[str, Any] = {
    "bbox_2d": "[x1, y1, x2, y2]",
    "points": "[[x1, y1], [x2, y2]]",
    "degrees": "90",
    "code": '"print(1 + 1)"',
    "query": '"..."',
}


class Tooled(contract.Task):
    """What is put in front of a task's class, see `with_tools`; the task itself stays as it is."""

    offered: ClassVar[Mapping[str, str]]
    """What the model calls a tool, and which it is."""
    most: ClassVar[int]
    corpus: ClassVar[str]
    """Where `search` looks."""

    def sample(self, record: Record) -> Sample:
        """Ask the task's question as an episode; tools are told of unless its prompt does that."""
        asked = super().sample(record)  # type: ignore[safe-super]
        if asked.start is not None:
            raise ValueError("the task has an environment of its own: tools go with questions")
        seen = any(isinstance(p, MediaRef) and _is_picture(p) for p in asked.parts)
        if not seen and not set(self.offered.values()) & WORDS.keys():
            raise ValueError("tools look at pictures, and the record has none")
        told = () if self.own_tools else (Text(self._instruction()),)
        start = Observation({"shown": []}, "0")
        return replace(asked, parts=(*asked.parts, *told), start=start, turns=self.most)

    def step(self, gold: Any, state: Any, answer: Answer) -> Observation:
        """Carry out the turn's call; a turn without one is the answer."""
        shown = list(state["shown"])
        found = call_in(answer.text)
        if found is None:
            return Observation(state, f"{len(shown)}", done=True)
        if found.value is None:
            return Observation(state, f"{len(shown)}", f"That is no call: {found.reason}.")
        try:
            said, picture = self._carry_out(found.value, shown, answer)
        except NotUsable as error:
            return Observation(state, f"{len(shown)}", f"That cannot be done: {error}.")
        if picture is None:
            return Observation(state, f"{len(shown)}", said)
        call = {"name": found.value.name, "arguments": dict(found.value.arguments)}
        shown.append({**call, "turn": len(answer.turns)})
        number = len(self._pictures(answer)) + len(shown)
        parts = (Text(f"Picture {number}: "), MediaRef("image", png_of(picture)))
        return Observation({"shown": shown}, f"{len(shown)}", parts=parts)

    def score(self, gold: Any, answer: Answer) -> Score:
        """Score the last turn, or all of them where the task's own prompt offers the tools."""
        if self.own_tools or not answer.turns:
            return super().score(gold, answer)  # type: ignore[safe-super]
        last = answer.turns[-1]
        score = super().score(gold, replace(answer, text=last))  # type: ignore[safe-super]
        before = len(answer.text) - len(last)
        spans = (SpanScore(s.start + before, s.end + before, s.value, s.name) for s in score.spans)
        return replace(score, spans=tuple(spans))

    def target(self, sample: Sample, answer: Answer) -> str | None:
        """The task's target; one that calls tools itself is written a turn at a time."""
        whole = super().target(sample, answer)
        if whole is None or sample.start is None or OPEN not in whole:
            return whole
        turns = [turn.strip() + CLOSE for turn in whole.split(CLOSE)]
        turns[-1] = turns[-1].removesuffix(CLOSE)
        return turns[min(len(sample.start.state["shown"]), len(turns) - 1)]

    def _instruction(self) -> str:
        forms = "; ".join(
            f"{name}({', '.join(f'{a}: {EXAMPLES[a]}' for a in ALL[tool].arguments)}) "
            f"{ALL[tool].does}"
            for name, tool in self.offered.items()
        )
        name, tool = next(iter(self.offered.items()))
        arguments = ", ".join(f'"{a}": {EXAMPLES[a]}' for a in ALL[tool].arguments)
        pictured = any(tool in TOOLS for tool in self.offered.values())
        numbered = ' "image": n in the arguments means the n-th picture, 1 if left out.'
        return (
            f"\n\nBefore you answer you may look closer, once a turn and {self.most - 1} times at "
            f'most, by writing {OPEN}{{"name": "{name}", "arguments": {{{arguments}}}}}{CLOSE} and '
            f"nothing else. Tools: {forms}.{numbered if pictured else ''}"
        )

    def _carry_out(
        self, call: Call, shown: Sequence[Mapping[str, Any]], answer: Answer
    ) -> tuple[str, Image.Image | None]:
        if call.name not in self.offered:
            raise NotUsable(f"no tool {call.name:.40}; there are {', '.join(self.offered)}")
        pictures = self._pictures(answer)
        tool = self.offered[call.name]
        if tool in WORDS:
            sources = [Image.fromarray(image.decode(_whole(ref)).array) for ref, _ in pictures]
            return WORDS[tool].use(call.arguments, sources, self.corpus), None
        number = call.arguments.get("image", 1)
        if not isinstance(number, int) or not 1 <= number <= len(pictures) + len(shown):
            raise NotUsable(f"there are {len(pictures) + len(shown)} pictures")
        if number <= len(pictures):
            ref, frame = pictures[number - 1]
            source = Image.fromarray(image.decode(_whole(ref)).array)
        else:
            made = shown[number - len(pictures) - 1]
            earlier = shown[: number - len(pictures) - 1]
            before = Call(made["name"], made["arguments"])
            again = self._carry_out(before, earlier, answer)[1]
            assert again is not None, "what was shown was a picture"
            source, seen = again, answer.screens[made["turn"]]
            assert seen is not None, "what was shown has a Frame"
            frame = seen
        found = TOOLS[tool].look(source, _places(call, frame, answer))
        return (found, None) if isinstance(found, str) else ("", found)

    def _pictures(self, answer: Answer) -> list[tuple[MediaRef, Frame]]:
        seen = zip(answer.shown, answer.frames, strict=True)
        return [(ref, frame) for ref, frame in seen if _is_picture(ref)]


def call_in(turn: str) -> Parsed[Call] | None:
    """The call of a turn after its thought; None where the turn has none."""
    said = turn.rpartition("</think>")[2]
    if OPEN not in said:
        return None
    before, _, rest = said.partition(OPEN)
    payload, closed, after = rest.partition(CLOSE)
    if not closed or before.strip() or after.strip():
        return malformed("a turn with a call has one call and nothing else")
    return parse_json(payload).then(lambda value: call_of(value, "arguments"))


@functools.lru_cache
def with_tools(
    task: type[contract.Task], tools: tuple[str, ...], turns: int, corpus: str = ""
) -> type[Tooled]:
    """The task's class, its questions answered with tools in at most so many turns.

    Raises ConfigError at a tool that there is not, or that has nothing to search.
    """
    for tool in tools:
        if tool not in ALL:
            raise ConfigError(f"no tool '{tool}': there are {', '.join(ALL)}")
    if "search" in tools:
        if not corpus:
            raise ConfigError("the tool search needs tool_corpus: a file or folder of texts")
        index_of(corpus)
    if turns < 2:
        raise ConfigError("tool_turns is at least 2: a look and an answer")
    own = {name: tool for name, tool in task.own_tools.items() if tool in tools}
    if own and len(own) < len(tools):
        raise ConfigError(
            f"the task's own prompt offers {', '.join(own.values())} and no other tool"
        )
    offered = own or {tool: tool for tool in tools}
    made = type(
        task.__name__, (Tooled, task), {"offered": offered, "most": turns, "corpus": corpus}
    )
    return cast(type[Tooled], made)


def _is_picture(ref: MediaRef) -> bool:
    return ref.kind in ("image", "screenshot")


def _whole(ref: MediaRef) -> MediaRef:
    """The picture as its source has it, upright."""
    kept = {key: value for key, value in ref.options.items() if key not in SHAPING}
    return MediaRef("image", ref.source, kept)


def _places(call: Call, frame: Frame, answer: Answer) -> Places:
    """What the call names, in pixels of the picture's source."""
    given = call.arguments
    found_boxes, found_points = [], []
    if "bbox_2d" in given:
        box = boxes.box_of(given["bbox_2d"])
        if box.value is None:
            raise NotUsable(box.reason)
        found_boxes.append(boxes.to_source(box.value, answer.space, frame))
    listed = given.get("points", [])
    for value in listed if isinstance(listed, list) else [listed]:
        point = points.point_of(value)
        if point.value is None:
            raise NotUsable(point.reason)
        found_points.append(points.to_source(point.value, answer.space, frame))
    degrees = given.get("degrees", 0)
    if not is_number(degrees):
        raise NotUsable("degrees is a number")
    return Places(tuple(found_boxes), tuple(found_points), float(degrees))
