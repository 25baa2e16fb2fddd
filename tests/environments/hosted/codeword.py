"""The game of verifiers' example `color-codeword`: squares stand for letters, new ones each turn.

Written on the package's own classes after its rules: a turn shows `images_per_turn` squares of 100
x 100 pixels, each of `colours` colours stands for a letter; after every turn the model says all
letters so far; what it says last is right or wrong. The package asks the model, as it asks any.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import verifiers.v1 as vf
from PIL import Image
from pydantic import Field
from verifiers.v1.utils.image import image_data_url

__all__ = ["CodewordEnv", "CodewordTaskset"]

SQUARES = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "purple": (128, 0, 128),
    "cyan": (0, 255, 255),
    "orange": (255, 165, 0),
    "white": (255, 255, 255),
    "black": (0, 0, 0),
}
LETTERS = dict(zip(SQUARES, "ABCDEFGHI", strict=True))


class CodewordConfig(vf.TasksetConfig):
    images_per_turn: int = Field(2, ge=1)
    turns: int = Field(3, ge=1)
    colours: int = Field(9, ge=2, le=9)
    brief: bool = False
    """The rules without their example: a small model reads them in every call."""
    seed: int = 42


class CodewordData(vf.TaskData):
    answer: str
    shown: list[list[str]]


class CodewordTask(vf.Task[CodewordData, vf.State, vf.TaskConfig]):
    @vf.reward(weight=1.0)
    async def exact(self, trace: vf.Trace) -> float:
        said = trace.assistant_messages
        last = (said[-1].content if said else "") or ""
        runs = "".join(c if c in "ABCDEFGHI" else " " for c in last.upper()).split()
        return float(max(runs, key=len, default="") == self.data.answer)


def squares(colours: list[str], first: bool, total: int, last: bool) -> vf.UserMessage:
    images = [
        vf.ImageUrlContentPart(
            image_url=vf.ImageUrlSource(
                url=image_data_url(Image.new("RGB", (100, 100), SQUARES[c]))
            )
        )
        for c in colours
    ]
    text = f"{len(colours)} squares." if first else f"{len(colours)} more squares."
    if last:
        text += f" Say all {total} letters."
    return vf.UserMessage(content=[*images, vf.TextContentPart(text=text)])


class CodewordEnv(vf.SingleAgentEnv):
    async def run(self, task, agents):
        shown = task.data.shown
        async with agents.agent.interaction(task) as interaction:
            segment = await interaction.turn()
            for turn in range(1, len(shown)):
                if segment.terminated:
                    break
                total, last = sum(map(len, shown[: turn + 1])), turn == len(shown) - 1
                segment = await interaction.turn([squares(shown[turn], False, total, last)])


class CodewordTaskset(vf.Taskset[CodewordTask, CodewordConfig]):
    INFINITE = True

    def load(self) -> Iterator[CodewordTask]:
        c = self.config
        rng, names = random.Random(c.seed), list(SQUARES)[: c.colours]
        rules = "Squares stand for letters: " + ", ".join(f"{n} {LETTERS[n]}" for n in names) + "."
        if not c.brief:
            rules += " Red, blue, then green, yellow is ACBD."
        rules += " After each turn say all letters so far, without spaces."
        for index in itertools.count():
            flat = [rng.choice(names) for _ in range(c.images_per_turn * c.turns)]
            shown = [
                flat[i : i + c.images_per_turn] for i in range(0, len(flat), c.images_per_turn)
            ]
            yield CodewordTask(
                CodewordData(
                    idx=index,
                    prompt=[squares(shown[0], True, len(shown[0]), False)],
                    system_prompt=rules,
                    answer="".join(LETTERS[n] for n in flat),
                    shown=shown,
                ),
                c.task,
            )
