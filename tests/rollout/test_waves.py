"""Episodes in waves: environments step while others are decoded, and time decides nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from mmrl.engines.engine import Sampling, Still
from mmrl.engines.hf import HFEngine
from mmrl.policy.encoder import Encoder
from mmrl.policy.features import FeatureStore
from mmrl.policy.policy import Policy
from mmrl.rollout.episode import SEEDS_OF_A_TURN, SEEDS_OF_A_WAVE, Episodes
from mmrl.scoring.pool import Start, StepJob
from mmrl.types import Observation, Prompt, Response
from tests.families.cases import policy
from tests.rollout.test_observed import COUNT, TURNS, Script, Shows, first, trained

PATIENCE = 60.0
"""Seconds until what does not overlap is given up; nothing that passes waits as long."""


@dataclass
class Meeting:
    """A place where a decoding engine and a stepping environment wait for each other, once."""

    decoding: threading.Event = field(default_factory=threading.Event)
    stepping: threading.Event = field(default_factory=threading.Event)
    met: bool = False


@dataclass
class Meets(Script):
    """Decodes what has this seed or a later one only once an environment steps meanwhile."""

    meeting: Meeting = field(default_factory=Meeting)
    patience: float = PATIENCE
    since: int = SEEDS_OF_A_TURN

    def generate(
        self, prompts: Sequence[Prompt], counts: Sequence[int], sampling: Sampling, seed: int
    ) -> list[list[Response]]:
        if seed >= self.since and not self.meeting.decoding.is_set():
            self.meeting.stepping.clear()
            self.meeting.decoding.set()
            self.meeting.met = self.meeting.stepping.wait(self.patience)
        return super().generate(prompts, counts, sampling, seed)


@dataclass
class Stepping(Shows):
    """Steps a wave only while the engine decodes another: the one that `waits`."""

    meeting: Meeting = field(default_factory=Meeting)
    waits: int = 2
    waves: int = 0

    def step(self, jobs: Sequence[StepJob]) -> list[Observation | str]:
        self.waves += 1
        if self.waves == self.waits:
            self.meeting.decoding.wait(PATIENCE)
        self.meeting.stepping.set()
        return super().step(jobs)


@pytest.mark.parametrize("waves", [2, 1])
def test_environments_step_while_others_are_decoded(waves: int) -> None:
    made, meeting = policy("qwen2_5_vl"), Meeting()
    engine = Meets(made, meeting=meeting, patience=PATIENCE if waves > 1 else 0.1)
    steps = Stepping("image", meeting=meeting)
    player = Episodes(engine, steps, Encoder(made.family), waves=waves)  # type: ignore[arg-type]
    (group,) = player.generate([first(made, 0)[0]], [4], Sampling(4000), 0)
    assert meeting.met == (waves == 2)
    assert [len(r.episode.turns) for r in group if r.episode] == [TURNS] * 4


@pytest.mark.parametrize("waves", [2, 1])
def test_environments_step_while_the_next_wave_says_its_first_turn(waves: int) -> None:
    made, meeting = policy("qwen2_5_vl"), Meeting()
    patience = PATIENCE if waves > 1 else 0.1
    engine = Meets(made, meeting=meeting, patience=patience, since=SEEDS_OF_A_WAVE)
    steps = Stepping("image", meeting=meeting, waits=1 if waves > 1 else 2)
    player = Episodes(engine, steps, Encoder(made.family), waves=waves)  # type: ignore[arg-type]
    player.generate([first(made, number)[0] for number in range(2)], [2, 2], Sampling(4000), 0)
    assert meeting.met == (waves == 2)


@dataclass
class Announced(Script):
    """Says first turns only once their environments are expected; `calls` are who was asked."""

    expected: threading.Event = field(default_factory=threading.Event)
    calls: list[list[str]] = field(default_factory=list)

    def generate(
        self, prompts: Sequence[Prompt], counts: Sequence[int], sampling: Sampling, seed: int
    ) -> list[list[Response]]:
        if seed < SEEDS_OF_A_TURN:
            assert self.expected.wait(PATIENCE), "nobody opens anything meanwhile"
            self.expected.clear()
        names, counts = [prompt.sample.id for prompt in prompts], sampling.counts(counts)
        self.calls.append([n for n, count in zip(names, counts, strict=True) for _ in range(count)])
        return super().generate(prompts, counts, sampling, seed)


@dataclass
class Expecting(Shows):
    expected: threading.Event = field(default_factory=threading.Event)
    starts: list[tuple[str, int]] = field(default_factory=list)

    def expect(self, starts: Sequence[Start]) -> None:
        self.starts += [(start.task, start.state["episode"]) for start in starts]
        self.expected.set()


def announced(
    groups: int, count: int, greedy: bool = False
) -> tuple[list[list[str]], list[tuple[str, int]]]:
    """Who was asked, by call, in two waves; which environments were expected."""
    made, expected = policy("qwen2_5_vl"), threading.Event()
    engine, steps = Announced(made, expected=expected), Expecting("image", expected=expected)
    player = Episodes(engine, steps, Encoder(made.family), 50, 4000, waves=2)  # type: ignore[arg-type]
    prompts = [first(made, number)[0] for number in range(groups)]
    player.generate(prompts, [count] * groups, Sampling(4000, greedy_too=greedy), 0)
    return engine.calls, steps.starts


def test_a_group_stays_whole_and_its_environments_are_expected_before_it_speaks() -> None:
    calls, starts = announced(3, 2)
    even, odd = ["0", "0", "2", "2"], ["1", "1"]
    assert calls == [even, odd] * TURNS
    assert starts == [("test", 0)] * 6


def test_fewer_groups_than_waves_are_divided_once_they_have_begun() -> None:
    calls, starts = announced(1, 4)
    assert calls == [["0"] * 4, *[["0"] * 2] * 2 * (TURNS - 1)]
    assert len(starts) == 4
    calls, starts = announced(1, 3, greedy=True)
    assert len(calls[0]) == len(starts) == 4, "the greedy one has an environment too"


@dataclass
class Dawdles(Shows):
    """An environment that takes its time, another time each time."""

    clock: np.random.Generator = field(default_factory=np.random.default_rng)

    def step(self, jobs: Sequence[StepJob]) -> list[Observation | str]:
        time.sleep(self.clock.random() / 20)
        return [self._seen(job) for job in jobs]

    def _seen(self, job: StepJob) -> Observation:
        number = sum(map(len, job.answer.turns)) % 97
        self.jobs = [job] * number  # the picture is that of what was said
        (found,) = super().step([job])
        assert isinstance(found, Observation)
        return found


def played(made: Policy, waves: int, questions: Sequence[int] = (0, 1)) -> list[Response]:
    player = Episodes(HFEngine(made), Dawdles("image"), Encoder(made.family), waves=waves)  # type: ignore[arg-type]
    prompts = [first(made, number)[0] for number in questions]
    made.family.end_ids = tuple(range(200, 300))
    found = player.generate(prompts, [COUNT] * len(prompts), Sampling(900, temperature=1.0), 3)
    return [response for group in found for response in group]


@pytest.mark.parametrize("questions", [(0,), (0, 0, 1)])
def test_how_long_environments_take_changes_nothing(questions: Sequence[int]) -> None:
    made = policy("qwen2_5_vl")
    one, other = played(made, 2, questions), played(made, 2, questions)
    assert all(np.array_equal(a.ids, b.ids) for a, b in zip(one, other, strict=True))
    assert all(np.array_equal(a.logprobs, b.logprobs) for a, b in zip(one, other, strict=True))
    assert len({r.ids.tobytes() for r in one}) == len(one), "waves do not draw the same numbers"


def test_an_environment_that_raises_ends_the_play() -> None:
    made = policy("qwen2_5_vl")

    class Raises(Shows):
        def step(self, jobs: Sequence[StepJob]) -> list[Observation | str]:
            raise RuntimeError("no more")

    player = Episodes(Script(made), Raises("image"), Encoder(made.family), waves=2)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="no more"):
        player.generate([first(made, 0)[0]], [4], Sampling(900), 0)


def seen_by_the_tower(made: Policy) -> list[str]:
    hashes: list[str] = []
    inner = made.family.features

    def features(media: Sequence[object]) -> object:
        hashes.extend(m.hash for m in media)  # type: ignore[attr-defined]
        return inner(media)  # type: ignore[arg-type]

    made.family.features = features  # type: ignore[method-assign, assignment]
    return hashes


def test_a_screen_passes_the_tower_once_in_all_turns() -> None:
    """However often it is asked about: weights stand still until the last episode has ended."""
    made = policy("qwen2_5_vl")
    hashes = seen_by_the_tower(made)
    played(made, 2)
    assert len(hashes) == len(set(hashes)) > 2
    assert not made.store._meanwhile, "nothing is kept beyond it"


@pytest.mark.parametrize("mutated", [False, True])
def test_what_other_weights_made_of_a_screen_is_not_kept(
    mutated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = policy("qwen2_5_vl")
    if mutated:  # kept by whoever asks first, for good
        first_one = Still()
        stay = FeatureStore.stay
        monkeypatch.setattr(FeatureStore, "stay", lambda self, still: stay(self, first_one))
    played(made, 1)
    with torch.no_grad():
        for parameter in made.family.tower_parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    responses = played(made, 1)
    prompts = [first(made, number)[0] for number in range(2)]
    with torch.no_grad():
        found = trained(made, prompts, [responses[:COUNT], responses[COUNT:]]).numpy()
    sampled = np.concatenate([r.logprobs for r in responses])
    assert np.allclose(sampled, found, rtol=1e-4, atol=2e-5) != mutated
