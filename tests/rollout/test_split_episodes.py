"""Episodes of several processes: each is played where its prompt's media are, to its end."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from mmrl.backend.world import World
from mmrl.engines.engine import Sampling
from mmrl.engines.split import SplitEngine
from mmrl.policy.encoder import Encoder
from mmrl.policy.policy import Policy
from mmrl.rollout.episode import SEEDS_OF_A_TURN, Episodes
from mmrl.rollout.history import History
from mmrl.scoring.pool import Start, StepJob
from mmrl.types import Observation, Prompt, Response
from tests.beside import both
from tests.families.cases import policy
from tests.rollout.test_observed import COUNT, TURNS, Script, Shows, first
from tests.rollout.test_waves import Meeting, Meets, Stepping

PROMPTS = 4


@dataclass
class Ends(Shows):
    """Ends its episodes at different turns, which a number in their state tells."""

    starts: list[Start] = field(default_factory=list)

    def step(self, jobs: Sequence[StepJob]) -> list[Observation | str]:
        found = super().step(jobs)
        return [
            replace(seen, done=len(job.answer.turns) > seen.state["episode"] % TURNS)
            if isinstance(seen, Observation)
            else seen
            for job, seen in zip(jobs, found, strict=True)
        ]

    def expect(self, starts: Sequence[Start]) -> None:
        self.starts += starts


def asked(made: Policy, rank: int) -> list[Prompt]:
    """Prompts that live in the two processes by turns, as a process has them."""
    prompts = [replace(first(made, i)[0], home=i % 2) for i in range(PROMPTS)]
    return [
        p
        if p.home == rank
        else replace(p, media=tuple(replace(m, tensors={}, source=None) for m in p.media))
        for p in prompts
    ]


def played(
    made: Sequence[Policy], steps: Sequence[Shows], screens: int | None = None
) -> tuple[list[list[Response]], list[list[Response]]]:
    """What every process has in the end."""

    def play(world: World) -> list[list[Response]]:
        own = made[world.rank]
        encoder = Encoder(own.family)
        history = None if screens is None else History(encoder, screens)
        player = Episodes(Script(own), steps[world.rank], encoder, history=history, waves=2)  # type: ignore[arg-type]
        split = SplitEngine(player, world, nullcontext)
        return split.generate(asked(own, world.rank), [COUNT] * PROMPTS, Sampling(4000), 0)

    return both(play)


@pytest.fixture(scope="module")
def models() -> list[Policy]:
    return [policy("qwen2_5_vl"), policy("qwen2_5_vl")]


def test_an_episode_is_played_to_its_end_where_its_media_are(models: Sequence[Policy]) -> None:
    steps = [Ends("image"), Ends("image")]
    played(models, steps)
    for rank, own in enumerate(steps):
        assert {job.gold % 2 for job in own.jobs} == {rank}
        assert len(own.starts) == COUNT * PROMPTS // 2, "environments are expected in each"
        ends = {len(j.answer.turns) for j in own.jobs}
        assert ends == {1, 2, 3}, "episodes end at different turns"


@pytest.mark.parametrize("screens", [None, 1])
def test_every_process_has_all_episodes_and_media_stay_at_home(
    models: Sequence[Policy], screens: int | None
) -> None:
    found = played(models, [Ends("image"), Ends("image")], screens)
    observed = branches = 0
    for place, pair in enumerate(zip(*found, strict=True)):
        for mine, other in zip(pair[place % 2], pair[1 - place % 2], strict=True):
            assert np.array_equal(mine.ids, other.ids)
            assert np.array_equal(mine.logprobs, other.logprobs)
            assert mine.episode == other.episode and mine.text == other.text
            whole = [(r, *(part for _, part in r.branches)) for r in (mine, other)]
            for here, there in zip(*whole, strict=True):
                if here.observed is None or there.observed is None:
                    assert here.observed is there.observed
                    continue
                assert np.array_equal(here.observed.positions, there.observed.positions)
                for medium, sent in zip(here.observed.media, there.observed.media, strict=True):
                    assert medium.source is not None and sent.source is None
                    assert medium.hash == sent.hash and medium.frame == sent.frame
                    observed += 1
            for (here_p, _), (there_p, _) in zip(mine.branches, other.branches, strict=True):
                assert here_p.home == there_p.home == place % 2
                assert np.array_equal(here_p.ids, there_p.ids)
                assert here_p.sample.id == there_p.sample.id == f"{place}"
                assert all(m.tensors or m.source for m in here_p.media)
                assert not any(m.tensors or m.source for m in there_p.media)
                branches += 1
    assert observed or screens
    assert (branches > 0) == (screens is not None)


def test_a_process_without_prompts_asks_its_engine_all_the_same(models: Sequence[Policy]) -> None:
    """Engines with weights of their own load them when asked, which all processes do together."""
    asks: list[list[int]] = [[], []]

    class Counts(Script):
        def generate(
            self, prompts: Sequence[Prompt], counts: Sequence[int], sampling: Sampling, seed: int
        ) -> list[list[Response]]:
            asks[models.index(self.made)].append(len(prompts))
            return super().generate(prompts, counts, sampling, seed)

    def play(world: World) -> None:
        own = models[world.rank]
        player = Episodes(Counts(own), Shows("image"), Encoder(own.family))  # type: ignore[arg-type]
        split = SplitEngine(player, world, nullcontext)
        split.generate(asked(own, world.rank)[:1], [2], Sampling(4000), 0)

    both(play)
    assert asks[0] and asks[1] == [0]


def test_environments_of_every_process_step_while_others_are_decoded(
    models: Sequence[Policy],
) -> None:
    meetings = [Meeting(), Meeting()]

    def play(world: World) -> None:
        own, meeting = models[world.rank], meetings[world.rank]
        engine = Meets(own, meeting=meeting, since=SEEDS_OF_A_TURN + (world.rank << 32))
        steps = Stepping("image", meeting=meeting)
        player = Episodes(engine, steps, Encoder(own.family), waves=2)  # type: ignore[arg-type]
        split = SplitEngine(player, world, nullcontext)
        split.generate(asked(own, world.rank)[:2], [4, 4], Sampling(4000), 0)

    both(play)
    assert all(meeting.met for meeting in meetings)
