"""Histories that forget: an episode is asked with its last screens, older ones shrink or go.

    branch 1   [question, screen 1][turn 1][screen 2][turn 2]                  screens: 2
    branch 2   [question, "left out"][turn 1][screen 2][turn 2][screen 3]      [turn 3]
    branch 3   [question, "left out"][turn 1]["left out"][turn 2]...[screen 4] [turn 4]

What stands before a turn is never written anew, so a history that is cut begins a branch: a prompt
of its own, with the tokens that were sampled and the kept observations as they were, and a text
where a screen is gone, or the screen in fewer pixels. Every turn is trained in the branch in which
it was sampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mmrl.errors import MediaError
from mmrl.policy.appending import continued, joined
from mmrl.policy.encoder import Observes
from mmrl.policy.family import EnvironmentTokens
from mmrl.policy.overflow import within
from mmrl.types import EncodedMedium, Ints, Observation, Part, Prompt, Text

LEFT_OUT = "[an earlier screen, left out]\n"
"""What a model reads where a screen was."""


@dataclass(frozen=True)
class Placed:
    """An observation's tokens and media, and the position where they begin."""

    tokens: EnvironmentTokens
    at: float

    def behind(self, prompt: Prompt) -> EnvironmentTokens:
        """The same at a prompt's end."""
        by = prompt.next_position - self.at
        tokens = self.tokens
        return tokens if not by else replace(tokens, positions=tokens.positions + by)


@dataclass
class Past:
    """A turn's token ids [T], and what was observed after it: as it was, and once it is older."""

    said: Ints
    observation: Observation
    heard: Placed
    older: Placed | None = None

    @property
    def screens(self) -> int:
        """How many screens were observed."""
        return seen(self.heard.tokens.media)


def history_of(encoder: Observes, screens: int | None, pixels: int | None) -> History | None:
    """The history of a run's settings; None where nothing is forgotten."""
    return None if screens is None else History(encoder, screens, pixels)


@dataclass(frozen=True)
class History:
    """Keeps the last `screens` of an episode in what it is asked with.

    Older ones are shown with `pixels` at most; None: a text is in their place. Observations are
    kept as they were or made older whole, the newest always stays; sound is no screen.
    """

    encoder: Observes
    screens: int
    pixels: int | None = None

    def overflows(self, prompt: Prompt, turn: EnvironmentTokens, older: int = 0) -> bool:
        """Whether a prompt with a turn at its end has more screens as they were than are kept.

        So many of the prompt's are `older`: lacking, or shown small.
        """
        new, small = seen(turn.media), older if self.pixels else 0
        return new > 0 and seen(prompt.media) - small + new > self.screens

    def cut(self, first: Prompt, past: Sequence[Past]) -> tuple[Prompt, int]:
        """What the next turn is asked with; how many screens are older in it.

        It is the question `first` and every turn with what was observed after it, the newest last.
        Raises MediaError where a screen cannot be read any more.
        """
        kept = len(past) - 1
        room = self.screens - past[kept].screens
        while kept and past[kept - 1].screens <= room:
            kept -= 1
            room -= past[kept].screens
        whole = not kept and seen(first.media) <= room
        prompt = first if whole else self._question(first)
        for number, step in enumerate(past):
            said = continued(prompt, step.said)
            old = number < kept and step.screens
            prompt = joined(said, (self._older(said, step) if old else step.heard).behind(said))
        gone = seen(first.media) * (not whole)
        return prompt, gone + sum(step.screens for step in past[:kept])

    def _question(self, first: Prompt) -> Prompt:
        if not first.media:
            return first
        parts = self._aged(first.sample.parts)
        made = self.encoder.prompt(replace(first.sample, parts=parts))
        return replace(made, home=first.home)

    def _older(self, before: Prompt, step: Past) -> Placed:
        """An observation whose screens are older; it is made once."""
        if step.older is None:
            observation = replace(step.observation, parts=self._aged(step.observation.parts))
            ((turn),) = self.encoder.observe([(before, observation)])
            if isinstance(turn, MediaError):
                raise turn
            step.older = Placed(turn, before.next_position)
        return step.older

    def _aged(self, parts: Sequence[Part]) -> tuple[Part, ...]:
        def aged(part: Part) -> Part:
            if isinstance(part, Text) or part.kind == "audio":
                return part
            if self.pixels is None:
                return Text(LEFT_OUT)
            return within(self.encoder.with_defaults(part), self.pixels)

        return tuple(map(aged, parts))


def seen(media: Sequence[EncodedMedium]) -> int:
    """How many of the media are screens."""
    return sum(medium.kind != "audio" for medium in media)
