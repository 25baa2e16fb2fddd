"""Episodes of several turns: the model speaks, its task's environment answers, and again.

    tokens   [turn 1 ... end][observed ...][turn 2 ... end][observed ...][turn 3 ... end]
    written   yes             no            yes             no            yes

A response is the whole sequence after the first prompt, exactly as it was sampled: each turn is
asked with the tokens so far, nothing is written anew. So the group shares one prompt and its media,
and what is trained is a response like any other, with the environment's tokens left out. Media that
the environment shows later belong to their response, which carries them as they came: encoded
bytes, their hash and Frame (`types.Observed`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np

from mmrl.engines.engine import Engine, Sampling, Still
from mmrl.errors import MediaError
from mmrl.frame import Frame
from mmrl.policy.appending import continued, joined
from mmrl.policy.encoder import Heard, Observes
from mmrl.policy.weights import Weights
from mmrl.rollout.history import History, Past, Placed
from mmrl.scoring.pool import Expects, Start, StepJob, Steps
from mmrl.types import (
    Answer,
    EncodedMedium,
    Episode,
    Finish,
    Floats,
    Ints,
    MediaRef,
    Observation,
    Observed,
    Prompt,
    Response,
    TokenSpan,
)

SEEDS_OF_A_TURN = 1 << 24
"""Engines count on from the seed they are given; turns and calls must not meet."""
SEEDS_OF_A_WAVE = 1 << 20
SEEDS_OF_A_CALL = 1 << 16


class Episodes:
    """An engine that plays every prompt that starts an episode to its end, with another engine.

    An episode ends when its environment says so, after `Sample.turns` turns, at
    `Sampling.max_new_tokens` tokens in all, or with a turn of over `turn_tokens` tokens; after
    either of the last two it is truncated. With `observed_tokens` the environment's tokens count
    for themselves, up to so many. Other prompts are answered as they are. Episodes are played in
    `waves` of whole groups: while one is decoded, the environments of the others step, and those of
    the next are opened. Which is in which, and so what is sampled, does not depend on how long they
    take. A turn is asked with what its `history` keeps; without one, with everything.
    """

    def __init__(
        self,
        engine: Engine,
        steps: Steps,
        encoder: Observes,
        turn_tokens: int | None = None,
        observed_tokens: int | None = None,
        waves: int = 1,
        history: History | None = None,
    ) -> None:
        self._engine, self._steps, self._encoder = engine, steps, encoder
        self._turn_tokens, self._observed_tokens = turn_tokens, observed_tokens
        self._waves, self._history = waves, history

    def generate(
        self, prompts: Sequence[Prompt], counts: Sequence[int], sampling: Sampling, seed: int
    ) -> list[list[Response]]:
        """Sample counts[i] responses or episodes of prompt i."""
        if not prompts:  # where processes share weights, an engine takes them with its first call
            return self._engine.generate([], [], sampling, seed)
        plain = [i for i, prompt in enumerate(prompts) if prompt.sample.start is None]
        first = [i for i, prompt in enumerate(prompts) if prompt.sample.start is not None]
        groups: dict[int, list[Response]] = {}
        for places, play in ((plain, self._engine.generate), (first, self._play)):
            if places:
                asked = [prompts[i] for i in places]
                made = play(asked, [counts[i] for i in places], sampling, seed)
                groups |= dict(zip(places, made, strict=True))
        return [groups[i] for i in range(len(prompts))]

    def sync(self, weights: Weights) -> None:
        """Let the engine take over the weights."""
        self._engine.sync(weights)

    def close(self) -> None:
        """Free what the engine holds."""
        self._engine.close()

    def _play(
        self, prompts: Sequence[Prompt], counts: Sequence[int], sampling: Sampling, seed: int
    ) -> list[list[Response]]:
        sampling = replace(sampling, still=Still())
        walks: list[list[Walk]] = [[] for _ in prompts]
        with ThreadPoolExecutor(1, thread_name_prefix="mmrl-environments") as hands:
            acting, announced = deque[tuple[Future[list[Walk]], int]](), []
            for places, parts, seeds in self._dealt(len(prompts), seed):
                starting = [prompts[i] for i in places]
                asked = [counts[i] for i in places]
                soon = hands.submit(self._announce, starting, sampling.counts(asked))
                announced.append(soon)
                begun = self._begin(starting, asked, sampling, seeds)
                for place, group in zip(places, begun, strict=True):
                    walks[place] = group
                every = [walk for group in begun for walk in group]
                for number in range(parts):
                    wave = hands.submit(self._act, every[number::parts])
                    acting.append((wave, seeds + number * SEEDS_OF_A_WAVE))
            while acting:
                acted, seeds = acting.popleft()
                if live := acted.result():
                    self._speak(live, sampling, seeds + SEEDS_OF_A_TURN)
                    acting.append((hands.submit(self._act, live), seeds + SEEDS_OF_A_TURN))
            for each in announced:
                each.result()  # nothing is lost where it went wrong
        return [[walk.response() for walk in group] for group in walks]

    def _dealt(self, groups: int, seed: int) -> Iterator[tuple[list[int], int, int]]:
        """The groups that begin together, into how many waves they part then, and their seed.

        A group stays whole, so that its turns share what they begin with, unless there are fewer
        groups than waves.
        """
        if groups < self._waves:
            yield list(range(groups)), self._waves, seed
            return
        for number in range(self._waves):
            yield list(range(number, groups, self._waves)), 1, seed + number * SEEDS_OF_A_WAVE

    def _announce(self, prompts: Sequence[Prompt], counts: Sequence[int]) -> None:
        """Say which environments are needed as soon as first turns are said."""
        if not isinstance(self._steps, Expects):
            return
        starts = []
        for prompt, count in zip(prompts, counts, strict=True):
            start = prompt.sample.start
            assert start is not None, "an episode begins somewhere"
            starts += [Start(prompt.sample.task, start.state)] * count
        self._steps.expect(starts)

    def _begin(
        self, prompts: Sequence[Prompt], counts: Sequence[int], sampling: Sampling, seed: int
    ) -> list[list[Walk]]:
        """First turns, sampled from one prefill a group."""
        room = sampling.max_new_tokens
        short = replace(sampling, max_new_tokens=self._limit(room))
        answers = self._engine.generate(prompts, counts, short, seed)
        walks = []
        for prompt, group in zip(prompts, answers, strict=True):
            greedy = [sampling.greedy_too and i == len(group) - 1 for i in range(len(group))]
            walks.append([Walk(prompt, room, g, self._observed_tokens) for g in greedy])
            for walk, answer in zip(walks[-1], group, strict=True):
                walk.say(answer)
        return walks

    def _speak(self, walks: Sequence[Walk], sampling: Sampling, seed: int) -> None:
        speak(self._engine, walks, sampling, seed, self._turn_tokens)

    def _act(self, walks: Sequence[Walk]) -> list[Walk]:
        """Let environments answer what was said; returns the walks that go on."""
        waiting = [walk for walk in walks if not walk.over]
        observations = self._steps.step([walk.job() for walk in waiting])
        for walk, observation in zip(waiting, observations, strict=True):
            walk.move(observation)
        going = [walk for walk in waiting if not walk.over]
        turns = self._encoder.observe([(walk.prompt, walk.observation) for walk in going])
        for walk, turn in zip(going, turns, strict=True):
            walk.observe(turn, self._history)
        return [walk for walk in going if not walk.over]

    def _limit(self, room: int) -> int:
        return min(room, self._turn_tokens or room)


def speak(
    engine: Engine, walks: Sequence[Walk], sampling: Sampling, seed: int, most: int | None
) -> None:
    """One more turn of every walk, of at most `most` tokens, those of one kind side by side.

    Walks with the same room and temperature are asked together, those at one prompt as a group.
    """
    calls: dict[tuple[bool, int], list[Walk]] = {}
    for walk in walks:
        calls.setdefault((walk.greedy, min(walk.room, most or walk.room)), []).append(walk)
    for number, (greedy, limit) in enumerate(sorted(calls)):
        how = replace(sampling, max_new_tokens=limit, greedy_too=False, to_train=False)
        groups: dict[int, list[Walk]] = {}
        for walk in calls[greedy, limit]:
            groups.setdefault(id(walk.prompt), []).append(walk)
        answers = engine.generate(
            [group[0].prompt for group in groups.values()],
            [len(group) for group in groups.values()],
            replace(how, temperature=0.0) if greedy else how,
            seed + number * SEEDS_OF_A_CALL,
        )
        for group, said in zip(groups.values(), answers, strict=True):
            for walk, answer in zip(group, said, strict=True):
                walk.say(answer)


@dataclass(eq=False)
class Walk:
    """One episode under way. `prompt` ends with what was said or observed last.

    `room` is in tokens, of the model alone where the environment has an `observed_room`. What is
    under way is a branch that has `begun` with a prompt and its first turn, number `since`; `ended`
    are those before it, the first of which begins with the question, `first`.
    """

    prompt: Prompt
    room: int
    greedy: bool
    observed_room: int | None = None
    over: bool = False
    finish: Finish = "stop"
    failure: str = ""
    ids: list[Ints] = field(default_factory=list)
    logprobs: list[Floats] = field(default_factory=list)
    spans: list[TokenSpan] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    screens: list[Frame | None] = field(default_factory=list)
    shown: list[int] = field(default_factory=list)
    past: list[Past] = field(default_factory=list)
    ended: list[tuple[Prompt, Response]] = field(default_factory=list)
    since: int = 0
    left_out: int = 0
    first: Prompt = field(init=False)
    begun: Prompt = field(init=False)
    screen: Frame | None = field(init=False)

    def __post_init__(self) -> None:
        self.first = self.begun = self.prompt
        self.screen = _last(self.prompt.media)

    @property
    def observation(self) -> Observation:
        start = self.prompt.sample.start
        assert start is not None
        return start

    def say(self, answer: Response) -> None:
        """Take in a turn of the model; one that was cut short ends the episode."""
        at = sum(map(len, self.ids))
        self.spans.append(TokenSpan(at, at + len(answer.ids), None, self.observation.key))
        self.said.append(answer.text)
        self.screens.append(self.screen)
        self.room -= len(answer.ids)
        self._append(answer.ids, answer.logprobs)
        self.prompt = continued(self.prompt, answer.ids)
        if answer.truncated:
            self.over, self.finish = True, "length"

    def job(self) -> StepJob:
        """What the environment is to carry out."""
        prompt, sample = self.first, self.prompt.sample
        answer = Answer(
            self.said[-1],
            frames=prompt.frames,
            space=prompt.space,
            turns=tuple(self.said),
            opening=prompt.opening,
            screens=tuple(self.screens),
            shown=tuple(part for part in sample.parts if isinstance(part, MediaRef)),
        )
        return StepJob(sample.task, sample.gold, self.observation.state, answer)

    def move(self, observation: Observation | str) -> None:
        """Go where the last turn led; a reason instead of an observation ends the episode."""
        if isinstance(observation, str):
            self.over, self.failure = True, observation
            return
        self.spans[-1] = replace(self.spans[-1], value=observation.reward)
        self.prompt = replace(self.prompt, sample=replace(self.prompt.sample, start=observation))
        self.over = observation.done or len(self.said) >= self.prompt.sample.turns

    def observe(self, turn: Heard, history: History | None = None) -> None:
        """Append the environment's tokens; without room for them and one more it is cut.

        A medium that cannot be shown is the environment's failure. Where the `history` has no place
        for it beside those before, a branch begins.
        """
        if isinstance(turn, MediaError):
            self.over, self.failure = True, f"media: {turn}"
            return
        size, own = len(turn.ids), self.observed_room
        if size >= self.room if own is None else size > own or not self.room:
            self.over, self.finish = True, "length"
            return
        if own is None:
            self.room -= size
        else:
            self.observed_room = own - size
        self.screen = _last(turn.media) or self.screen
        if history is not None:
            heard = Placed(turn, self.prompt.next_position)
            self.past.append(Past(self.ids[-1], self.observation, heard))
            if history.overflows(self.prompt, turn, self.left_out):
                self._forget(history)
                return
        self._append(turn.ids, np.zeros(size))
        self.prompt = joined(self.prompt, turn)
        self.shown += [len(self.said) - self.since] * len(turn.media)

    def _forget(self, history: History) -> None:
        """Begin a branch with what the history keeps."""
        try:
            self._branch(*history.cut(self.first, self.past))
        except MediaError as error:
            self.over, self.failure = True, f"media: {error}"

    def _branch(self, prompt: Prompt, left_out: int) -> None:
        """End what is under way, and go on from a prompt in which so many screens are older."""
        self.ended.append((self.begun, self._part()))
        self.begun = self.prompt = replace(prompt, sample=self.prompt.sample)
        self.ids, self.logprobs, self.spans, self.shown = [], [], [], []
        self.since, self.left_out = len(self.said), left_out

    def response(self) -> Response:
        """The episode as one response: its first part, and what began with prompts of its own."""
        outcome = None if self.failure else self.observation.outcome
        (_, whole), *others = [*self.ended, (self.begun, self._part())]
        assert whole.episode is not None, "a part of an episode"
        verdict = replace(whole.episode, outcome=outcome, failure=self.failure)
        branches = tuple((p, replace(part, finish=self.finish)) for p, part in others)
        return replace(whole, finish=self.finish, episode=verdict, branches=branches)

    def _part(self) -> Response:
        """What was said and observed since the branch began."""
        said, screens = self.said[self.since :], self.screens[self.since :]
        turns = Episode(tuple(self.spans), tuple(said), screens=tuple(screens))
        return Response(
            np.concatenate(self.ids),
            np.concatenate(self.logprobs),
            "\n".join(said),
            self.finish,
            episode=replace(turns, left_out=self.left_out),
            observed=self._observed(),
        )

    def _observed(self) -> Observed | None:
        start, media = len(self.begun.ids), self.prompt.media[len(self.begun.media) :]
        if not media:
            return None
        blocks = self.prompt.blocks
        own = None if blocks is None else blocks[start:]
        return Observed(self.prompt.positions[:, start:], own, media, tuple(self.shown))

    def _append(self, ids: Ints, logprobs: Floats) -> None:
        self.ids.append(ids)
        self.logprobs.append(logprobs)


def _last(media: Sequence[EncodedMedium]) -> Frame | None:
    """The Frame of the last medium that is seen."""
    seen = [medium.frame for medium in media if medium.kind != "audio"]
    return seen[-1] if seen else None
