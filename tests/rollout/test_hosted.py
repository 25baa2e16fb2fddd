"""Episodes that somebody else's process plays: what was sampled stays, whatever is asked again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmrl.algorithms.compose import compose
from mmrl.backend.world import World
from mmrl.engines.engine import Sampling
from mmrl.engines.hf import HFEngine
from mmrl.engines.split import SplitEngine
from mmrl.environments.host import Host, hosting_of
from mmrl.environments.recording import record
from mmrl.errors import UserError
from mmrl.objective import Reducer
from mmrl.policy.attention import active_layout
from mmrl.policy.encoder import Encoder
from mmrl.policy.logprobs import policy_log_softmax
from mmrl.policy.policy import Policy
from mmrl.policy.shared_prefix import SharedRow, lay_out
from mmrl.records import read_records
from mmrl.rollout.episode import Episodes
from mmrl.rollout.hosted import Hosted
from mmrl.runlog.metrics import group_metrics
from mmrl.scoring.groups import score_groups
from mmrl.scoring.pool import Scorer, TaskSpec
from mmrl.scoring.tasks import load_task
from mmrl.stage import Context
from mmrl.train.losses import token_weights
from mmrl.types import Group, Prompt, Response, TrainSample
from tests.beside import both
from tests.families.cases import policy

PROGRAM = Path(__file__).parents[1] / "environments" / "hosted" / "echo_host.py"
SAMPLED = Sampling(60, temperature=1.0)
TURNS, TURN = 3, 6


@dataclass
class Spoken:
    """A real engine whose answers are kept: random tokens, which nobody's text would give again.

    A turn of `TURN` tokens is whole, for a model of random weights does not end one by itself.
    """

    engine: HFEngine
    said: list[Response] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)

    def generate(
        self, prompts: Sequence[Prompt], counts: Sequence[int], sampling: Sampling, seed: int
    ) -> list[list[Response]]:
        groups = self.engine.generate(prompts, counts, sampling, seed)
        whole = sampling.max_new_tokens >= TURN
        groups = [[replace(r, finish="stop") if whole else r for r in g] for g in groups]
        self.said += [response for group in groups for response in group]
        self.asked.append(sum(counts))
        return groups


class Played:
    """The records of a way to play, and the engine that has them played."""

    def __init__(self, made: Policy, tmp_path: Path, how: str) -> None:
        self.made, self.spoken = made, Spoken(HFEngine(made))
        task = load_task("hosted", {"host": "gymnasium", "turns": 6})
        path = tmp_path / "records.jsonl"
        if not path.is_file():
            record(self._hosting(task, "appends"), path, range(2, 4))
        encoder = Encoder(made.family)
        samples = [task.ask(each) for each in read_records(path)]
        self.prompts = [encoder.prompt(sample) for sample in samples]
        self.hosted = Hosted(
            Episodes(self.spoken, None, encoder),  # type: ignore[arg-type]
            self.spoken,  # type: ignore[arg-type]
            encoder,
            {"hosted": self._hosting(task, how)},
            turn_tokens=TURN,
            observed_tokens=400,
        )

    def _hosting(self, task: Any, how: str) -> Any:
        settings = {"how": how, "turns": TURNS}
        return replace(hosting_of(task), start=lambda ended: Host(PROGRAM, settings, ended))

    def play(self, count: int = 2, sampling: Sampling = SAMPLED) -> list[list[Response]]:
        return self.hosted.generate(self.prompts, [count] * len(self.prompts), sampling, 5)


@pytest.fixture(scope="module")
def made() -> Policy:
    return policy("qwen2_5_vl")


@pytest.fixture
def plays(made: Policy, tmp_path: Path) -> Iterator[Any]:
    opened: list[Played] = []

    def play(how: str) -> Played:
        opened.append(Played(made, tmp_path, how))
        return opened[-1]

    yield play
    for each in opened:
        each.hosted.end_hosts()


def turns(response: Response) -> list[tuple[int, ...]]:
    assert response.episode is not None
    return [tuple(response.ids[t.start : t.end].tolist()) for t in response.episode.turns]


def whole(parts: Sequence[tuple[Prompt, Response]]) -> list[tuple[int, ...]]:
    return [turn for _, response in parts for turn in turns(response)]


def told(response: Response) -> int:
    """How many tokens of a response are the environment's."""
    return int((~response.written).sum())


def logprobs(made: Policy, prompt: Prompt, response: Response) -> np.ndarray:
    """The trainer's log-probs [T] of a response, 0 for what it did not write."""
    layout = lay_out([SharedRow.of(prompt, [response])], made.device)
    with torch.no_grad(), active_layout(layout):
        hidden = made.hidden_states(layout.ids, layout.positions, layout.media)
        log_all = policy_log_softmax(made.head(hidden[layout.predictors]), made.banned, 1.0)
    found = log_all.gather(-1, layout.targets[:, None])[:, 0]
    return layout.spread(found).double().numpy()


def parts_of(prompt: Prompt, response: Response) -> list[tuple[Prompt, Response]]:
    return [(prompt, response), *response.branches]


def check_exact(played: Played, groups: Sequence[Sequence[Response]]) -> None:
    """Every answer stands in one branch alone, as it was sampled, with the trainer's log-probs."""
    parts = [
        part
        for prompt, group in zip(played.prompts, groups, strict=True)
        for response in group
        for part in parts_of(prompt, response)
    ]
    said = sorted(tuple(response.ids.tolist()) for response in played.spoken.said)
    assert sorted(whole(parts)) == said
    for prompt, response in parts:
        own = logprobs(played.made, prompt, response)
        assert np.abs(own - response.logprobs).max() < 2e-5


def test_calls_that_append_are_one_response(plays: Any) -> None:
    played = plays("appends")
    groups = played.play()
    assert played.spoken.asked == [4, 4, 4], "a round asks everybody; a group's first is a prefill"
    for index, group in zip((2, 3), groups, strict=True):
        for response in group:
            assert not response.branches and len(turns(response)) == TURNS
            assert response.observed is not None and len(response.observed.media) == TURNS - 1
            assert response.episode is not None and response.episode.outcome == index
            assert response.finish == "stop" and told(response) > 2
    check_exact(played, groups)


def test_the_same_seed_plays_the_same(plays: Any) -> None:
    one, other = plays("appends").play(), plays("appends").play()
    ids = [[[*response.ids.tolist()] for response in group] for group in one]
    assert ids == [[[*response.ids.tolist()] for response in group] for group in other]
    assert ids[0][0] != ids[0][1], "two answers to one question are drawn apart"


def test_a_history_that_is_cut_begins_a_branch(plays: Any) -> None:
    played = plays("forgets")
    groups = played.play()
    scored = [Group(p, tuple(g), ()) for p, g in zip(played.prompts, groups, strict=True)]
    assert group_metrics(scored)["turns/branches"] == 1.0
    assert group_metrics(scored)["turns/mean"] == TURNS, "a branch's turns are the episode's"
    for response in groups[0]:
        assert len(turns(response)) == 1, "what was said to the record's question"
        ((prompt, branch),) = response.branches
        assert len(turns(branch)) == 2 and len(prompt.media) == 1
        assert prompt.sample.history == (("user", 1), ("assistant", 1))
    check_exact(played, groups)


def test_each_process_has_its_own_episodes_played_and_knows_all(tmp_path: Path) -> None:
    pair = [Played(policy("qwen2_5_vl"), tmp_path, "forgets") for _ in range(2)]

    def process(world: World) -> list[list[Response]]:
        own = pair[world.rank]
        prompts = [replace(prompt, home=place) for place, prompt in enumerate(own.prompts)]
        split = SplitEngine(own.hosted, world, nullcontext)
        try:
            return split.generate(prompts, [2, 2], SAMPLED, 5)
        finally:
            own.hosted.end_hosts()

    found = both(process)
    assert [sum(each.spoken.asked) for each in pair] == [2 * TURNS] * 2
    for place, groups in enumerate(zip(*found, strict=True)):
        for own, other in zip(groups[place], groups[1 - place], strict=True):
            assert own.episode.outcome == other.episode.outcome == place + 2
            assert np.array_equal(own.ids, other.ids)
            ((begun, said),), ((sent, known),) = own.branches, other.branches
            assert begun.home == sent.home == place and np.array_equal(said.ids, known.ids)
            assert all(m.tensors or m.source for m in begun.media)
            assert not any(m.tensors or m.source for m in sent.media)


def test_a_second_answer_goes_on_from_the_very_tokens(plays: Any) -> None:
    played = plays("asks_twice")
    groups = played.play(1)
    for question, (response,) in zip(played.prompts, groups, strict=True):
        ((prompt, branch),) = response.branches
        assert response.episode is not None
        second = response.episode.turns[1].start
        before = [*question.ids.tolist(), *response.ids[:second].tolist()]
        assert prompt.ids.tolist() == before
        assert len(turns(response)) == 2 and len(turns(branch)) == 2
    check_exact(played, groups)


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("raises", "ValueError: the world has ended"),
        ("dies", "its process ended with 7"),
        ("otherwise", "something other than the record's question"),
    ],
)
def test_what_fails_is_no_verdict(plays: Any, how: str, reason: str) -> None:
    played = plays(how)
    groups = played.play()
    asked = [Group(p, tuple(g), ()) for p, g in zip(played.prompts, groups, strict=True)]
    spec = TaskSpec("hosted", {"host": "gymnasium"})
    with Scorer({"hosted": spec}, 1, 60.0) as scorer:
        scored = score_groups(scorer, asked)
    for group in scored:
        for response, score in zip(group.responses, group.scores, strict=True):
            assert score.reward is None and reason in score.reason
            assert response.episode is not None and response.episode.outcome is None
    assert len(played.play(1)) == 2, "the next episodes find a process"


def test_the_end_of_one_process_is_not_that_of_other_episodes(plays: Any) -> None:
    """One that ends between two rounds of episodes, and one of two tasks'."""
    played = plays("appends")
    played.play(1)
    (idle,) = played.hosted._hosts.values()
    idle.close()
    other = load_task("hosted", {"host": "gymnasium", "turns": 6})
    played.hosted.tasks["other"] = played._hosting(other, "dies")
    first, second = played.prompts
    played.prompts = [first, replace(second, sample=replace(second.sample, task="other"))]
    (one,), (two,) = played.play(1)
    assert one.episode.outcome == 2.0 and two.episode.outcome is None
    assert "its process ended with 7" in two.episode.failure
    assert one.episode.failure == ""


def test_an_episode_without_room_is_truncated_and_earned_nothing(plays: Any) -> None:
    played = plays("appends")
    for response in played.play(1, Sampling(3))[0]:
        assert response.truncated and int(response.written.sum()) <= 3
        assert response.episode is not None and response.episode.outcome == 0.0


def test_branches_count_as_one() -> None:
    """By hand: two episodes, 4 and 2 tokens in branches, and 3; rewards 1 and 0."""
    prompt: Any = object()

    def said(size: int, *others: int) -> Response:
        branches = tuple((prompt, said(other)) for other in others)
        return Response(np.arange(size), np.full(size, -1.0), "", "stop", branches=branches)

    algorithm = compose({"name": "grpo", "group_size": 2})
    sample: Any = TrainSample(prompt, said(4, 2), np.full(4, 0.5), np.ones(4, bool))
    other = TrainSample(prompt, said(3), np.full(3, -0.5), np.ones(3, bool))
    made = replace(algorithm, credit=lambda groups, context: [sample, other])
    context = Context(1, 1, 1, np.random.default_rng(0), {}, None, None)  # type: ignore[arg-type]
    found = made.train_samples([], context)
    assert [s.branch for s in found] == [False, True, False]
    assert found[1].advantages.tolist() == [0.5, 0.5] and found[1].mask.all()
    by_sequence = token_weights(found, Reducer("seq-mean-token-mean"))
    assert [w.tolist() for w in by_sequence] == [[1 / 12] * 4, [1 / 12] * 2, [1 / 6] * 3]
    sums = token_weights(found, Reducer("seq-mean-token-sum"))
    assert [w.tolist() for w in sums] == [[0.5] * 4, [0.5] * 2, [0.5] * 3]
    tokens = token_weights(found, Reducer("token-mean"))
    assert [w.tolist() for w in tokens] == [[1 / 9] * 4, [1 / 9] * 2, [1 / 9] * 3]


def test_records_say_what_is_lacking(tmp_path: Path) -> None:
    task = load_task("hosted", {"host": "gymnasium", "python": "/no/python"})
    with pytest.raises(UserError, match="no interpreter"):
        record(hosting_of(task), tmp_path / "a.jsonl", range(1))
    bad = replace(hosting_of(task), start=lambda ended: Host(Path("/no/host.py"), {}, ended))
    with pytest.raises(UserError, match="do not start"):
        record(bad, tmp_path / "a.jsonl", range(1))
