"""Histories that forget: every turn is trained behind exactly what it was asked with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmrl.algorithms.compose import compose
from mmrl.algorithms.stages import turns as turn_stages
from mmrl.algorithms.stages.replay import freeze, thaw
from mmrl.engines.engine import Engine, Sampling
from mmrl.engines.hf import HFEngine
from mmrl.engines.split import _sent
from mmrl.errors import UserError
from mmrl.policy.encoder import Encoder, decode
from mmrl.policy.policy import Policy
from mmrl.rollout.episode import Episodes
from mmrl.rollout.history import LEFT_OUT, History, Placed, history_of
from mmrl.rollout_config import RolloutConfig
from mmrl.runlog.metrics import group_metrics
from mmrl.scoring.groups import answer_of
from mmrl.scoring.judges.panel import _texts
from mmrl.scoring.pool import StepJob
from mmrl.train.losses import token_weights
from mmrl.train.requirements import refuse_stale
from mmrl.types import Group, Media, MediaRef, Observation, Prompt, Response, Score, Text
from tests.algorithms.cases import context
from tests.families import tiny
from tests.families.cases import all_gradients, compare_gradients, policy, relative
from tests.rollout.test_observed import Script, first, library, ref, shown, trained

TURNS, COUNT, SCREENS = 4, 2, 2
PIXELS = 56 * 56
"""Fewer than any picture of these tests has."""
Part = tuple[Prompt, Response]


@dataclass
class Screens:
    """An environment that shows a picture after every turn, another one each time."""

    shown: int = 0

    def step(self, jobs: Sequence[StepJob]) -> list[Observation | str]:
        return [self._seen(job) for job in jobs]

    def _seen(self, job: StepJob) -> Observation:
        self.shown += 1
        picture = ref(shown("image", 50 + self.shown))
        turn = len(job.answer.turns)
        return Observation(0, f"{turn}", parts=(Text("See: "), picture, Text("now?")), outcome=0.5)


def asked(made: Policy) -> Prompt:
    prompt, _ = first(made, 0)
    return replace(prompt, sample=replace(prompt.sample, turns=TURNS))


def played(
    made: Policy,
    engine: Engine | None = None,
    screens: int | None = SCREENS,
    pixels: int | None = None,
    shows: Screens | None = None,
) -> list[Response]:
    encoder = Encoder(made.family)
    player = Episodes(
        engine or Script(made),  # type: ignore[arg-type]
        shows or Screens(),  # type: ignore[arg-type]
        encoder,
        history=history_of(encoder, screens, pixels),
    )
    (group,) = player.generate([asked(made)], [COUNT], Sampling(4000), 2)
    return group


def parts_of(made: Policy, group: Sequence[Response]) -> list[Part]:
    """Every part of the episodes with the prompt that it begins with."""
    prompt = asked(made)
    return [part for answer in group for part in ((prompt, answer), *answer.branches)]


def media_of(made: Policy, part: Part) -> list[Media]:
    """What a part's context shows, decoded from what the environment gave."""
    prompt, answer = part
    later = answer.observed.media if answer.observed else ()
    (question,) = first(made, 0)[1]
    small = decode(aged(ref(question)))
    found = []
    for medium in (*prompt.media, *later):
        own = small if medium.hash == small.hash else question
        found.append(own if medium.source is None else decode(medium.source))
    return found


def aged(screen: MediaRef) -> MediaRef:
    return replace(screen, options={"max_pixels": PIXELS})


@pytest.mark.parametrize("name", ["qwen2_5_vl", "gemma3", "qwen3_5", "internvl"])
@pytest.mark.parametrize("pixels", [None, PIXELS])
def test_each_part_is_the_plain_forward_of_what_it_was_asked_with(
    name: str, pixels: int | None
) -> None:
    made, (reference, _) = policy(name), tiny.build(name)
    parts = parts_of(made, played(made, pixels=pixels))
    assert len(parts) == COUNT * 3
    weights = torch.Generator().manual_seed(0)
    loose = 3 if name == "qwen3_5" else 1  # see cases.LARGE_SCORES
    for part in parts:
        prompt, answer = part
        written = torch.from_numpy(answer.written)
        weight = torch.randn(len(written), generator=weights) * written
        found = trained(made, [prompt], [[answer]])
        (found * weight).sum().backward()
        wanted = library(reference, made, prompt, answer, media_of(made, part))
        (torch.where(written, wanted, 0.0) * weight).sum().backward()
        assert relative(found[written], wanted[written]) < loose * 1e-5
    if name != "qwen3_5":  # whose decays' gradients are little but rounding
        compare_gradients(made.model, reference)
    assert relative(*(all_gradients(m, reference) for m in (made.model, reference))) < loose * 1e-5


def test_places_that_stay_behind_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kept screens stand earlier than they did: without that their rotary positions are wrong."""
    made, (reference, _) = policy("qwen2_5_vl"), tiny.build("qwen2_5_vl")
    monkeypatch.setattr(Placed, "behind", lambda placed, prompt: placed.tokens)
    part = parts_of(made, played(made))[1]
    written = torch.from_numpy(part[1].written)
    with torch.no_grad():
        found = trained(made, [part[0]], [[part[1]]])
        wanted = library(reference, made, *part, media_of(made, part))
    assert relative(found[written], wanted[written]) > 1e-4


@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_5"])
def test_what_is_sampled_behind_a_cut_is_what_is_trained(name: str) -> None:
    made = policy(name)
    made.family.end_ids = tuple(range(150, 400))
    parts = parts_of(made, played(made, HFEngine(made)))
    assert len(parts) > COUNT
    for prompt, answer in parts:
        with torch.no_grad():
            found = trained(made, [prompt], [[answer]]).numpy()
        np.testing.assert_allclose(answer.logprobs, found, rtol=1e-4, atol=2e-5)


def test_a_turn_is_asked_with_the_last_screens_and_a_text_for_the_others() -> None:
    """By hand: of four turns the third is asked without one screen, the fourth without two."""
    made = policy("qwen2_5_vl")
    engine = Script(made)
    group = played(made, engine)  # type: ignore[arg-type]
    decoded = made.processor.tokenizer.decode
    for answer in group:
        parts = [(asked(made), answer), *answer.branches]
        assert [len(p.episode.turns) for _, p in parts if p.episode] == [2, 1, 1]
        assert [p.episode.left_out for _, p in parts if p.episode] == [0, 1, 2]
        every = [*parts[0][0].media]
        for prompt, part in parts:
            later = part.observed.media if part.observed else ()
            every += [m for m in (*prompt.media, *later) if m.hash not in {e.hash for e in every}]
            context = [m.hash for m in (*prompt.media, *later)]
            assert context == [m.hash for m in every][-SCREENS:]
            assert decoded(prompt.ids).count(LEFT_OUT.strip()) == len(every) - len(context)
        said = [part.ids[t.start : t.end] for _, part in parts for t in part.episode.turns]  # type: ignore[union-attr]
        last = parts[-1][0].ids.tolist()
        for ids in said[:-1]:
            assert any(last[at : at + len(ids)] == ids.tolist() for at in range(len(last)))
    assert max(len(prompt.media) for prompt in engine.asked) == SCREENS


@pytest.mark.parametrize(("screens", "parts"), [(None, 1), (4, 1), (3, 2), (1, 4)])
def test_as_many_screens_as_there_are_cut_nothing(screens: int | None, parts: int) -> None:
    made = policy("qwen2_5_vl")
    for answer in played(made, screens=screens):
        assert 1 + len(answer.branches) == parts
        assert all(r.finish == answer.finish for _, r in answer.branches)


def scored(made: Policy, rewards: Sequence[float]) -> Group:
    scores = tuple(Score({}, None, reward=reward) for reward in rewards)
    return Group(asked(made), tuple(played(made)), scores)


def test_branches_count_as_one_episode() -> None:
    made = policy("qwen2_5_vl")
    group = scored(made, [1.0, 0.0])
    algorithm = compose({"name": "grpo", "group_size": COUNT, "numerics": "trl"})
    samples = algorithm.train_samples([group], context())
    assert [s.branch for s in samples] == [False, True, True] * COUNT
    for sample, sign in zip(samples, [1] * 3 + [-1] * 3, strict=True):
        own = sample.advantages[sample.mask]
        assert np.array_equal(sample.mask, sample.response.written)
        assert np.allclose(own, sign * 2**-0.5, atol=1e-3), "the baseline is of two episodes"
    weights = token_weights(samples, replace(algorithm.reducer, name="seq-mean-token-mean"))
    for start in (0, 3):
        written = sum(int(s.mask.sum()) for s in samples[start : start + 3])
        total = sum(float(w.sum()) for w in weights[start : start + 3])
        assert total == pytest.approx(1 / COUNT)
        assert weights[start].max() == pytest.approx(1 / (COUNT * written))


def test_the_verifier_sees_all_turns_and_the_record_says_what_was_left_out() -> None:
    made = policy("qwen2_5_vl")
    group = scored(made, [1.0, 0.0])
    answer = answer_of(group, group.responses[0])
    assert answer.turns == ("words",) * TURNS and len(answer.screens) == TURNS
    assert answer.outcome == 0.5 and answer.text == "\n".join(answer.turns)
    assert _texts(group)[0] == answer.text, "so do judges"
    found = group_metrics([group])
    assert found["turns/mean"] == TURNS and found["turns/branches"] == 2
    assert found["turns/screens_left_out"] == (1 + 2) / TURNS


def test_who_keeps_episodes_refuses_branches_and_what_others_were_shown() -> None:
    """A kept one would lose its branches, and one that comes back without its media fail."""
    made = policy("qwen2_5_vl")
    cut, whole = played(made)[0], played(made, screens=None)[0]
    with pytest.raises(UserError, match="history was cut"):
        freeze(cut, Score({}, None, reward=1.0))
    with pytest.raises(UserError, match="several processes"):
        freeze(_sent(whole), Score({}, None, reward=1.0))
    again, _ = thaw(freeze(whole, Score({}, None, reward=1.0)))
    assert again.episode == whole.episode and np.array_equal(again.ids, whole.ids)


def test_histories_are_not_rolled_out_ahead() -> None:
    rollout = RolloutConfig(max_staleness=1, history_screens=2, engine="hf_copy")
    with pytest.raises(UserError, match="history is cut are not rolled out ahead"):
        refuse_stale(compose({"name": "dapo"}), rollout)


def test_who_pays_turn_by_turn_refuses_branches() -> None:
    made = policy("qwen2_5_vl")
    with pytest.raises(UserError, match="history_screens"):
        turn_stages.turns(scored(made, [1.0, 0.0]))


def test_sound_is_no_screen_and_a_question_without_media_loses_none() -> None:
    made = policy("qwen2_5_vl")
    prompt = asked(made)
    sample = replace(prompt.sample, parts=(Text("What is here?"),))
    question = Encoder(made.family).prompt(sample)
    encoder = Encoder(made.family)
    player = Episodes(Script(made), Screens(), encoder, history=History(encoder, 1))  # type: ignore[arg-type]
    ((answer,),) = player.generate([question], [1], Sampling(4000), 0)
    left = [p.episode.left_out for _, p in answer.branches if p.episode]
    assert left == [1, 2], "the first screen comes after the first turn"
    parts: tuple[Any, ...] = (MediaRef("audio", b""), MediaRef("image", b""))
    assert History(encoder, 1)._aged(parts) == (parts[0], Text(LEFT_OUT))
    small = replace(parts[1], options={"max_pixels": 100})
    assert History(encoder, 1, 100)._aged((*parts, small)) == (parts[0], small, small)
    assert History(encoder, 1, 200)._aged((small,)) == (small,), "no screen grows"
    bounded = Encoder(made.family, defaults={"image": {"max_pixels": 100}})
    assert History(bounded, 1, 200)._aged((parts[1],)) == (small,), "nor over the run's own bound"
    clip = replace(parts[1], kind="video")
    assert History(encoder, 1, 100)._aged((clip,)) == (
        replace(clip, options={"max_frame_pixels": 100}),
    )


def test_older_screens_are_shown_small_each_made_once() -> None:
    """By hand: every turn sees all screens, the last two as they were, those before small."""
    made = policy("qwen2_5_vl")
    group = played(made, pixels=PIXELS)
    for answer in group:
        parts = [(asked(made), answer), *answer.branches]
        assert [p.episode.left_out for _, p in parts if p.episode] == [0, 1, 2]
        contexts = []
        for prompt, part in parts:
            later = part.observed.media if part.observed else ()
            contexts.append([m.num_tokens for m in (*prompt.media, *later)])
            assert LEFT_OUT.strip() not in made.processor.tokenizer.decode(prompt.ids)
        whole, second, third = contexts
        assert [len(c) for c in contexts] == [2, 3, 4]
        assert second[0] < whole[0] and second[1] == whole[1]
        assert third[0] == second[0] and third[1] < whole[1] and third[2] == second[2]


def test_an_older_screen_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made, seen = policy("qwen2_5_vl"), []
    observe = Encoder.observe

    def watched(encoder: Encoder, turns: Any) -> Any:
        seen.extend(part for _, o in turns for part in o.parts if isinstance(part, MediaRef))
        return observe(encoder, turns)

    monkeypatch.setattr(Encoder, "observe", watched)
    played(made, screens=1, pixels=PIXELS)
    small = [part for part in seen if part.options]
    assert len(small) == COUNT * (TURNS - 2), "a screen that was never old is not made small"


class Bursts(Screens):
    """Shows two pictures first, then one each time."""

    def _seen(self, job: StepJob) -> Observation:
        observation = super()._seen(job)
        if len(job.answer.turns) > 1:
            return observation
        another = ref(shown("image", 90))
        return replace(observation, parts=(*observation.parts, another))


@pytest.mark.parametrize("pixels", [None, PIXELS])
def test_screens_that_are_older_take_no_place(pixels: int | None) -> None:
    """Two screens are kept: the third turn has one, and the fourth's fits beside it."""
    group = played(policy("qwen2_5_vl"), pixels=pixels, shows=Bursts())
    for answer in group:
        parts = [answer, *(part for _, part in answer.branches)]
        assert [len(p.episode.turns) for p in parts if p.episode] == [1, 1, 2]
        assert [p.episode.left_out for p in parts if p.episode] == [0, 1, 3]


class Gone(Screens):
    """Shows files that are lost with the next step."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def _seen(self, job: StepJob) -> Observation:
        for file in self._folder.iterdir():
            file.unlink()
        observation = super()._seen(job)
        text, picture, more = observation.parts
        assert isinstance(picture, MediaRef) and isinstance(picture.source, bytes)
        file = self._folder / f"{self.shown}.png"
        file.write_bytes(picture.source)
        return replace(observation, parts=(text, replace(picture, source=file), more))


def test_an_older_screen_that_is_lost_is_the_environments_failure(tmp_path: Path) -> None:
    made = policy("qwen2_5_vl")
    encoder = Encoder(made.family)
    player = Episodes(
        Script(made),  # type: ignore[arg-type]
        Gone(tmp_path),  # type: ignore[arg-type]
        encoder,
        history=History(encoder, 1, PIXELS),
    )
    ((answer,),) = player.generate([asked(made)], [1], Sampling(4000), 2)
    assert answer.episode is not None and answer.episode.outcome is None
    assert answer.episode.failure.startswith("media: ")


def test_small_screens_want_a_number_of_whole_ones() -> None:
    with pytest.raises(ValueError, match="history_screens"):
        RolloutConfig(history_pixels=PIXELS)
