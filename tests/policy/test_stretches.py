"""Turns that answers begin with alike: fed once, and all numbers as if each answer were alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from mmrl.algorithms.stages.credit import pair
from mmrl.engines.engine import Sampling
from mmrl.policy import stretches
from mmrl.policy.encoder import Encoder
from mmrl.policy.packing import Weighted
from mmrl.policy.policy import Policy
from mmrl.policy.stretches import Answer, together
from mmrl.policy.tiles import Run, Tiles
from mmrl.rollout.episode import Episodes
from mmrl.scoring.pool import StepJob
from mmrl.train.micro_batches import MicroBatch, Packing, micro_batches
from mmrl.types import Group, Observation, Prompt, Response, Score, Text
from tests.families import cases, tiny
from tests.families.cases import (
    TOLERANCE,
    all_gradients,
    compare_gradients,
    policy,
    relative,
    retyped,
)
from tests.rollout.test_observed import first, library, ref, shown

COUNT, TURNS = 7, 3
WORDS = {"left": (70, 81, 92), "right": (71, 82, 93, 104, 115)}


@dataclass
class Chooses:
    """An engine that says one of two things; `unlike` says something of its own each time."""

    made: Policy
    unlike: bool = False
    said: int = 0

    def generate(
        self, prompts: Sequence[Prompt], counts: Sequence[int], sampling: Sampling, seed: int
    ) -> list[list[Response]]:
        rng = np.random.default_rng(seed)
        return [[self._say(rng) for _ in range(count)] for count in counts]

    def _say(self, rng: np.random.Generator) -> Response:
        name = ["left", "right"][int(rng.integers(2))]
        self.said += 1
        own = [120 + self.said] if self.unlike else []
        ids = np.array([*own, *WORDS[name], self.made.family.end_ids[0]])
        return Response(ids, np.full(len(ids), -1.0), name, "stop")


@dataclass
class Leads:
    """An environment whose screen is that of the way so far; `apart`: a corner is of its own."""

    apart: bool = False
    asked: int = 0

    def step(self, jobs: Sequence[StepJob]) -> list[Observation | str]:
        return [self._seen(job.answer.turns) for job in jobs]

    def _seen(self, way: Sequence[str]) -> Observation:
        media = shown("image", screen_of(way))
        self.asked += 1
        if self.apart:
            array = media.array.copy()
            array[:28, :28] = 29 * self.asked % 256
            media = replace(media, array=array)
        return Observation(0, "/".join(way), parts=(ref(media), Text("And now?")), outcome=0.5)


def screen_of(way: Sequence[str]) -> int:
    return int(hashlib.sha256("/".join(way).encode()).hexdigest()[:6], 16)


def played(
    made: Policy, *, unlike: bool = False, apart: bool = False
) -> tuple[Prompt, list[Response]]:
    """A group of episodes, many of which go the same way for a while."""
    prompt, _ = first(made, 0)
    engine, leads = Chooses(made, unlike), Leads(apart)
    player = Episodes(engine, leads, Encoder(made.family))  # type: ignore[arg-type]
    (group,) = player.generate([prompt], [COUNT], Sampling(4000), 1)
    return prompt, group


def parts_of(prompt: Prompt, answers: Sequence[Response]) -> list[Weighted]:
    group = Group(prompt, tuple(answers), (Score({}, None, reward=0.0),) * len(answers))
    return [
        Weighted(sample, np.zeros(0), place)
        for place, sample in enumerate(pair(group, np.zeros(len(answers)), 0))
    ]


def learnt(
    made: Policy,
    prompt: Prompt,
    answers: Sequence[Response],
    weights: Sequence[Tensor],
    budget: int = 100_000,
) -> tuple[list[Tensor], list[MicroBatch]]:
    """Log-probs of every answer as an update makes them, whose gradients are taken."""
    found: dict[int, Tensor] = {}
    batches = []
    asked = parts_of(prompt, answers)
    for part in micro_batches(made, asked, Packing(budget), send=torch.autograd.backward):
        batches.append(part)
        logprobs, _ = made.logprobs(part.layout, part.prompts, 1.0)
        places = [member.place for member in part.members]
        pieces = logprobs.split([len(answers[i].ids) for i in places])
        found |= dict(zip(places, (piece.detach() for piece in pieces), strict=True))
        sum((p * weights[i]).sum() for i, p in zip(places, pieces, strict=True)).backward()  # type: ignore[union-attr]
    return [found[i] for i in range(len(answers))], batches


def weights_of(answers: Sequence[Response]) -> list[Tensor]:
    made = torch.Generator().manual_seed(0)
    return [torch.randn(len(a.ids), generator=made) * torch.from_numpy(a.written) for a in answers]


def fed(batches: Sequence[MicroBatch]) -> int:
    return sum(len(part.layout.ids) for part in batches)


def stands_once(answers: Sequence[Response]) -> int:
    """Tokens of a group by hand: a turn with what is shown after it, once for each way to it.

    Of an answer's last turn the last token is not fed.
    """
    sizes: dict[tuple[str, ...], int] = {}
    for answer in answers:
        assert answer.episode is not None
        starts = [*(turn.start for turn in answer.episode.turns), len(answer.ids) - 1]
        for turn in range(len(starts) - 1):
            sizes[answer.episode.said[: turn + 1]] = starts[turn + 1] - starts[turn]
    return sum(sizes.values())


FAMILIES = ("qwen2_5_vl", "qwen3_vl", "internvl", "gemma3", "gemma4", "glm4v", "qwen3_5")


def exactly(monkeypatch: pytest.MonkeyPatch, *models: torch.nn.Module) -> None:
    """Run models in float64, and allow their gradients no more rounding than that has."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)  # in the library, too
    monkeypatch.setattr(cases, "LONG_SUMS", {})
    monkeypatch.setattr(cases, "LARGE_SCORES", {})
    monkeypatch.setattr(cases, "TOLERANCE", 1e-11)
    for model in models:
        retyped(model, torch.float64)


@pytest.mark.parametrize("tight", [False, True], ids=["whole", "split"])
@pytest.mark.parametrize("name", FAMILIES)
def test_it_is_the_plain_forward_of_every_whole_conversation(
    name: str, tight: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, (reference, _) = policy(name), tiny.build(name)
    prompt, answers = played(made)
    weights = weights_of(answers)
    half = len(prompt.ids) + stands_once(answers) // 2
    if rounds := name == "gemma4":  # float32 leaves it few digits, how few is the processor's
        exactly(monkeypatch, made.model, reference)
    found, batches = learnt(made, prompt, answers, weights, half if tight else 100_000)
    apart = sum(len(a.ids) - 1 for a in answers)
    if name == "qwen3_5":
        assert fed(batches) == apart, "recurrent layers go on from prompts alone"
    elif tight:
        assert len(batches) > 1 and fed(batches) < apart
    else:
        assert fed(batches) == stands_once(answers) < apart
    loose = 1e-6 if rounds else 3 if name == "qwen3_5" else 1  # see cases.LARGE_SCORES
    for answer, own, weight in zip(answers, found, weights, strict=True):
        assert answer.episode is not None
        ways = [answer.episode.said[: n + 1] for n in range(TURNS - 1)]
        media = [first(made, 0)[1][0], *(shown("image", screen_of(way)) for way in ways)]
        wanted = library(reference, made, prompt, answer, media)
        written = torch.from_numpy(answer.written)
        (torch.where(written, wanted, 0.0) * weight).sum().backward()
        assert relative(own[written], wanted[written]) < loose * TOLERANCE
        assert not own[~written].any()
    compare_gradients(made.model, reference)
    together = relative(*(all_gradients(m, reference) for m in (made.model, reference)))
    assert together < loose * TOLERANCE


@pytest.mark.parametrize("how", ["unlike", "apart"])
def test_what_differs_by_a_token_or_in_a_corner_stands_alone(how: str) -> None:
    made = policy("qwen2_5_vl")
    prompt, answers = played(made, **{how: True})
    _, batches = learnt(made, prompt, answers, weights_of(answers))
    opened = stands_once([answers[0], *answers]) if how == "apart" else 0
    apart = sum(len(a.ids) - 1 for a in answers)
    if how == "unlike":
        assert fed(batches) == apart
        return
    turns = [a.episode.turns[0].end for a in answers if a.episode]
    firsts = {a.episode.said[0]: a.episode.turns[0].end for a in answers if a.episode}
    assert opened and fed(batches) == apart - sum(turns) + sum(firsts.values())
    seen = [m.hash for a in answers if a.observed for m in a.observed.media]
    assert len(set(seen)) == len(seen) == COUNT * (TURNS - 1)


def test_without_media_in_what_is_compared_a_corner_would_be_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The comparison sees it: tokens and places are those of another screen."""
    content = stretches._content
    monkeypatch.setattr(
        stretches, "_content", lambda answer, start, stop, media: content(answer, start, stop, ())
    )
    made, other = policy("qwen2_5_vl"), policy("qwen2_5_vl")
    prompt, answers = played(made, apart=True)
    weights = weights_of(answers)
    wrong, _ = learnt(made, prompt, answers, weights)
    alone = [learnt(other, prompt, [a], [w])[0][0] for a, w in zip(answers, weights, strict=True)]
    assert relative(torch.cat(wrong), torch.cat(alone)) > 1e-4


@pytest.mark.parametrize("name", ["qwen2_5_vl", "gemma3"])
def test_without_the_gap_a_window_would_reach_too_far(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model without windows does not notice."""
    behind = Tiles.behind

    def close(self: Tiles, run: Run, keys: Run, window: int | None, gap: int = 0) -> None:
        behind(self, run, keys, window)

    found = []
    for way in (close, behind):
        monkeypatch.setattr(Tiles, "behind", way)
        made = policy(name)
        prompt, answers = played(made)
        found.append(torch.cat(learnt(made, prompt, answers, weights_of(answers))[0]))
    assert (relative(*found) > 1e-4) == (name == "gemma3")


@pytest.mark.parametrize("name", ["qwen2_5_vl", "gemma3"])
def test_in_bfloat16_it_is_no_farther_from_float32_than_answers_alone(name: str) -> None:
    exact, one, many = policy(name), policy(name), policy(name)
    for made in (one, many):
        retyped(made.model, torch.bfloat16)
    retyped(exact.model, torch.bfloat16).float()
    prompt, answers = played(exact)
    weights = weights_of(answers)
    wanted, _ = learnt(exact, prompt, answers, weights)
    shared, _ = learnt(many, prompt, answers, weights)
    alone = [learnt(one, prompt, [a], [w])[0][0] for a, w in zip(answers, weights, strict=True)]
    far = relative(torch.cat(alone), torch.cat(wanted))
    assert relative(torch.cat(shared), torch.cat(wanted)) < 1.5 * far
    both = [all_gradients(m.model, exact.model) for m in (many, one)]
    true = all_gradients(exact.model, exact.model)
    assert relative(both[0], true) < 1.5 * relative(both[1], true)


def test_a_walk_over_stretches_is_the_answer() -> None:
    """Ragged and long: whatever is shared, each answer's own stretches spell it."""
    rng = np.random.default_rng(0)
    turns = [rng.integers(0, 9, n) for n in (1, 40, 7, 300, 2)]
    answers = []
    for owner in (0, 1):
        for length in rng.integers(0, 6, 20):
            chosen = [turns[i] for i in rng.integers(0, len(turns), length)]
            written = [np.full(len(t), i % 2 == 0) for i, t in enumerate(chosen)]
            nothing = np.zeros(0, dtype=int)
            ids = np.concatenate([nothing, *chosen])
            flags = np.concatenate([nothing.astype(bool), *written])
            answers.append(Answer(owner, 5, ids, None, flags))
    found, paths = together(answers)
    for answer, path in zip(answers, paths, strict=True):
        spelt = [found[i].answer.ids[found[i].start : found[i].stop] for i in path]
        assert np.array_equal(np.concatenate([answer.ids[:0], *spelt]), answer.ids[: answer.fed])
        assert all(found[i].answer.owner == answer.owner for i in path)
        assert [found[i].behind for i in path] == [path[:n] for n in range(len(path))]
    assert sum(s.size for s in found) < sum(a.fed for a in answers)
