"""A frozen model that answers with the tools that a policy chose for it: VisTA's environment.

Tools are functions of the question's picture. What they give, a picture or words, is shown to the
model behind the picture itself; whether it is then right, and would have been without, is the
episode's verdict. Greedy answers of frozen weights do not change, so none is asked for twice.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from PIL import Image

from mmrl.corpus.references import part_of
from mmrl.environments.chat_client import ChatClient, said_in
from mmrl.environments.environment import EnvironmentFailure, Seen
from mmrl.environments.picture_tools import png_of
from mmrl.modalities import image
from mmrl.rewards.custom import load_callable
from mmrl.rewards.grammar import TagAnswer
from mmrl.tasks.tool_selection.task import Reasoner, Task, outcome_of
from mmrl.types import Answer, MediaRef


@dataclass
class FrozenModel:
    """The model behind its server, with its tools loaded; there is nothing to start anew."""

    task: Task
    reasoner: Reasoner
    generation: int = 0
    said: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        given = self.reasoner
        self._client = ChatClient(given.url, given.timeout_seconds, given.key_variable)
        self._tools = {name: load_callable(at, "tool") for name, at in given.tools.items()}

    async def open(self) -> Question:
        """A place for one question."""
        return Question(self)

    async def restart(self, generation: int) -> None:
        """Try again; the server is somebody else's."""
        self.generation = generation + 1

    async def close(self) -> None:
        """Nothing is held between calls."""

    def shown(self, picture: Image.Image, names: Sequence[str]) -> list[Image.Image | str]:
        """The picture, and what each tool gives of it; raises EnvironmentFailure at anything else.

        A tool gets a picture of its own, which it may draw on.
        """
        found: list[Image.Image | str] = [picture]
        for name in names:
            given = self._tools[name](picture.copy())
            if not isinstance(given, Image.Image | str):
                kind = type(given).__name__
                raise EnvironmentFailure(f"the tool '{name}' gave no picture or text but {kind}")
            found += [f"\n{name}: ", given]
        return found

    def answer(self, picture: Image.Image, query: str, names: Sequence[str]) -> str:
        """What the model says with these tools."""
        ask = f"\n{query} {TagAnswer('optional').instruction()}"
        content = [_content(part) for part in (*self.shown(picture, names), ask)]
        body = {
            "model": self.reasoner.model,
            "messages": [{"role": "user", "content": content}],
            "temperature": 0.0,
            "max_tokens": self.reasoner.max_tokens,
        }
        try:
            return said_in(self._client.complete(body))
        except Exception as error:  # a server's: whatever it says, or does not
            reason = f"{type(error).__name__} {error}"
            raise EnvironmentFailure(f"the frozen model did not answer: {reason:.200}") from error


class Question:
    """One question to the frozen model, asked with the tools that the first action names."""

    def __init__(self, model: FrozenModel) -> None:
        self._model, self._start = model, dict[str, Any]()

    async def reset(self, start: Mapping[str, Any]) -> Seen:
        """Begin with a picture, its `query` and `label`, and the `names` of tools."""
        self._start = dict(start)
        return Seen(b"", "start")

    async def step(self, action: Mapping[str, Any]) -> Seen:
        """Ask with the tools, and without them where that was wrong."""
        start, chosen = self._start, [int(i) for i in action["tools"]]
        ref = part_of(start["picture"])
        assert isinstance(ref, MediaRef), "the question has a picture"
        picture = Image.fromarray((await asyncio.to_thread(image.decode, ref)).array)
        names = [start["names"][i] for i in chosen]
        right = await self._right(picture, names)
        alone = right or await self._right(picture, [])
        outcome = outcome_of(right, alone)
        return Seen(png_of(picture), json.dumps(chosen), outcome=outcome, done=True)

    async def close(self) -> None:
        """Nothing is left behind."""

    async def _right(self, picture: Image.Image, names: Sequence[str]) -> bool:
        known, start = self._model.said, self._start
        asked_about = json.dumps([start, list(names)], sort_keys=True)
        key = sha256(asked_about.encode()).hexdigest()
        if key not in known:
            asked = (picture, start["query"], names)
            known[key] = await asyncio.to_thread(self._model.answer, *asked)
        reply = known[key]
        said = TagAnswer("optional").parse(Answer(reply)).answer.value
        return await asyncio.to_thread(
            self._model.task.agrees, reply.strip() if said is None else said, start["label"]
        )


def frozen_model_of(task: Task) -> FrozenModel:
    """The world of a task with a reasoner."""
    assert task.reasoner is not None, "only questions to a live model are episodes"
    return FrozenModel(task, task.reasoner)


def _content(part: Image.Image | str) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    url = f"data:image/png;base64,{base64.b64encode(png_of(part)).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}
