"""Histories that forget: an episode is asked with its last screens, older ones become a text.

    branch 1   [question, screen 1][turn 1][screen 2][turn 2]                  screens: 2
    branch 2   [question, "left out"][turn 1][screen 2][turn 2][screen 3]      [turn 3]
    branch 3   [question, "left out"][turn 1]["left out"][turn 2]...[screen 4] [turn 4]

What stands before a turn is never written anew, so a history that is cut begins a branch: a prompt
of its own, with the tokens that were sampled and the kept observations as they were, and the very
text where a screen is gone. Every turn is trained in the branch in which it was sampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mmrl.errors import MediaError
from mmrl.policy.encoder import Encodes
from mmrl.policy.family import EnvironmentTokens
from mmrl.rollout.appending import continued, joined
from mmrl.types import EncodedMedium, Ints, MediaRef, Observation, Part, Prompt, Text

LEFT_OUT = "[an earlier screen, left out]\n"
"""What a model reads where a screen was."""


@dataclass(frozen=True)
class Past:
    """A turn's token ids [T], what was observed after it, and the position where that began."""

    said: Ints
    observation: Observation
    heard: EnvironmentTokens
    at: float


@dataclass(frozen=True)
class History:
    """Keeps the last `screens` of an episode in what it is asked with; None: all of them.

    Observations are kept or left out whole, the newest always stays; sound is no screen.
    """

    encoder: Encodes
    screens: int | None = None

    def overflows(self, prompt: Prompt, turn: EnvironmentTokens) -> bool:
        """Whether a prompt with a turn at its end has more screens than are kept."""
        new = seen(turn.media)
        return self.screens is not None and new > 0 and seen(prompt.media) + new > self.screens

    def cut(self, first: Prompt, past: Sequence[Past]) -> tuple[Prompt, int]:
        """What the next turn is asked with; how many screens that lacks.

        It is the question `first` and every turn with what was observed after it, the newest last.
        """
        assert self.screens is not None, "only what is bounded is cut"
        kept = len(past) - 1
        room = self.screens - seen(past[kept].heard.media)
        while kept and seen(past[kept - 1].heard.media) <= room:
            kept -= 1
            room -= seen(past[kept].heard.media)
        whole = not kept and seen(first.media) <= room
        prompt = first if whole else self._question(first)
        for number, step in enumerate(past):
            said = continued(prompt, step.said)
            heard = _moved(step.heard, said.next_position - step.at)
            if number < kept and seen(step.heard.media):
                heard = self._told(said, step.observation)
            prompt = joined(said, heard)
        gone = seen(first.media) * (not whole)
        return prompt, gone + sum(seen(step.heard.media) for step in past[:kept])

    def _question(self, first: Prompt) -> Prompt:
        if not first.media:
            return first
        made = self.encoder.prompt(replace(first.sample, parts=without(first.sample.parts)))
        return replace(made, home=first.home)

    def _told(self, before: Prompt, observation: Observation) -> EnvironmentTokens:
        ((turn),) = self.encoder.observe(
            [(before, replace(observation, parts=without(observation.parts)))]
        )
        assert not isinstance(turn, MediaError), "a text can be read"
        return turn


def seen(media: Sequence[EncodedMedium]) -> int:
    """How many of the media are screens."""
    return sum(medium.kind != "audio" for medium in media)


def without(parts: Sequence[Part]) -> tuple[Part, ...]:
    """Parts with a text in the place of every screen."""
    return tuple(
        Text(LEFT_OUT) if isinstance(part, MediaRef) and part.kind != "audio" else part
        for part in parts
    )


def _moved(turn: EnvironmentTokens, by: float) -> EnvironmentTokens:
    return turn if not by else replace(turn, positions=turn.positions + by)
