"""Which tokens the messages of a call are: what was sampled is found again, never tokenised anew.

    call 1   [question                                    ]       -> the prompt of the first branch
    call 2   [question][what was answered][a tool's result]       -> the same tokens, and the rest
    call 3   [question, shortened][a tool's result]               -> begins a branch, encoded whole

A session keeps, for each branch, the tokens at each place where it was asked and where it had
answered. A call goes on from the longest of those that its messages begin with. Where that is the
end of a branch, the branch goes on; where others have gone on from there, it begins a branch with
the very tokens that stand there; where there is none, a branch with a prompt of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mmrl.errors import MediaError
from mmrl.policy.encoder import Observes
from mmrl.rewards.chat_messages import (
    BadMessages,
    Message,
    is_prefix,
    observation_of,
    reply_of,
    sample_of,
)
from mmrl.rollout.episode import Walk
from mmrl.types import Episode, Finish, Observation, Prompt, Response, Sample


class OutOfRoom(Exception):
    """The episode has no room for another turn; it is truncated."""


@dataclass(frozen=True)
class Place:
    """Messages up to a point of a branch, their tokens; `asked`: the model is to speak there."""

    messages: tuple[Message, ...]
    prompt: Prompt
    asked: bool


@dataclass(eq=False)
class Branch:
    """Turns from one prompt on; `places` in order, the last one its end."""

    walk: Walk
    places: list[Place]


@dataclass
class Session:
    """One episode's calls; the group's `prompt` is what its first call asks.

    `root` are that prompt's messages, `room` the written tokens it has in all, `observed_room`
    those of observations (None: they take of `room`), `turns` how many answers it gets.
    """

    name: str
    prompt: Prompt
    root: tuple[Message, ...]
    room: int
    observed_room: int | None
    turns: int
    greedy: bool = False
    truncated: bool = False
    failure: str = ""
    branches: list[Branch] = field(default_factory=list)
    answered: int = 0

    def ask(self, messages: Sequence[Message], encoder: Observes) -> Branch:
        """The branch that is to speak next; raises OutOfRoom, BadMessages or MediaError."""
        if self.truncated or self.answered >= self.turns:
            raise OutOfRoom("the episode has had its turns")
        place, branch = self._found(messages)
        if place is None:
            branch = self._begin(messages, self._asked_anew(messages, encoder))
        elif place.asked or branch is None or place is not branch.places[-1]:
            branch = self._begin(place.messages, place.prompt, asked=place.asked)
        self._go_on(branch, messages, encoder)
        return branch

    def answer(self, branch: Branch, tools: bool) -> Mapping[str, Any]:
        """Take note of what the branch has said; returns it as a message."""
        walk = branch.walk
        message, answer = reply_of(walk.said[-1], tools)
        known = (*branch.places[-1].messages, message)
        branch.places.append(Place(known, walk.prompt, asked=False))
        self.answered += 1
        self.room -= walk.spans[-1].end - walk.spans[-1].start
        self.truncated = self.truncated or walk.finish == "length"
        return answer

    def response(self, outcome: float | None) -> Response:
        """The episode: what was said from the group's own prompt on, with all other branches.

        An episode whose environment never asked, or asked something else first, has failed.
        """
        spoken = [branch.walk for branch in self.branches if branch.walk.said]
        own = next((walk for walk in spoken if walk.first is self.prompt), None)
        failure = self.failure
        if own is None:
            asked = "asked something other than the record's question" if spoken else "never asked"
            failure = failure or f"environment failed: it {asked}"
            nothing = Episode((), (), None, failure)
            return Response(self.prompt.ids[-1:], np.zeros(1), "", "stop", episode=nothing)
        whole = own.response()
        assert whole.episode is not None, "a walk is an episode"
        others = tuple((walk.first, walk.response()) for walk in spoken if walk is not own)
        episode = replace(whole.episode, outcome=None if failure else outcome, failure=failure)
        finish: Finish = "length" if self.truncated else "stop"
        return replace(whole, episode=episode, finish=finish, branches=others)

    def _found(self, messages: Sequence[Message]) -> tuple[Place | None, Branch | None]:
        """The longest known beginning of the messages, and whose it is; ends before other places.

        A place where the model was asked is one only if nothing follows: it is its turn there.
        """
        if not self.branches and tuple(messages) == self.root:
            return Place(self.root, self.prompt, asked=True), None
        known = [(place, branch) for branch in self.branches for place in branch.places]
        fits = [
            (place, branch)
            for place, branch in known
            if is_prefix(place.messages, messages)
            and (len(place.messages) == len(messages) if place.asked else True)
            and (place.asked or observation_of(messages[len(place.messages) :], "") is not None)
        ]
        if not fits:
            return None, None
        return max(fits, key=lambda f: (len(f[0].messages), f[0] is f[1].places[-1]))

    def _asked_anew(self, messages: Sequence[Message], encoder: Observes) -> Prompt:
        sample: Sample = sample_of(messages, self.prompt.sample)
        return replace(encoder.prompt(sample), home=self.prompt.home)

    def _begin(self, messages: Sequence[Message], prompt: Prompt, *, asked: bool = True) -> Branch:
        walk = Walk(prompt, self.room, self.greedy, self.observed_room)
        branch = Branch(walk, [Place(tuple(messages), prompt, asked)])
        self.branches.append(branch)
        return branch

    def _go_on(self, branch: Branch, messages: Sequence[Message], encoder: Observes) -> None:
        """Append what was said since the branch's end."""
        last, walk = branch.places[-1], branch.walk
        rest = messages[len(last.messages) :]
        walk.room, walk.observed_room = self.room, self.observed_room
        if not rest:
            if not last.asked:
                raise BadMessages(
                    "messages: the last is the model's own, and nothing was said to it"
                )
        else:
            observation = observation_of(rest, f"{self.answered}")
            assert observation is not None, "what follows a turn"
            self._append(walk, observation, encoder)
            branch.places.append(Place(tuple(messages), walk.prompt, asked=True))
        if walk.room <= 0:
            self.truncated = True
            raise OutOfRoom("no token is left to answer with")

    def _append(self, walk: Walk, observation: Observation, encoder: Observes) -> None:
        prompt = replace(walk.prompt, sample=replace(walk.prompt.sample, start=observation))
        (turn,) = encoder.observe([(prompt, observation)])
        if isinstance(turn, MediaError):
            raise turn
        walk.prompt = prompt
        walk.observe(turn)
        self.room = walk.room
        if walk.observed_room is not None:
            self.observed_room = walk.observed_room
        if walk.over:
            self.truncated = True
            raise OutOfRoom("there is no room for what was said")
