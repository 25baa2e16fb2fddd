"""Pictures and sounds in later turns: what is trained is the whole conversation, and exactly it."""

from __future__ import annotations

import io
import wave
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from mmrl.engines.engine import Sampling
from mmrl.engines.hf import HFEngine
from mmrl.policy.attention import active_layout
from mmrl.policy.encoder import Encoder
from mmrl.policy.logprobs import policy_log_softmax
from mmrl.policy.policy import Policy
from mmrl.policy.shared_prefix import SharedRow, lay_out
from mmrl.rollout.episode import Episodes
from mmrl.scoring.pool import StepJob
from mmrl.types import Media, MediaRef, Observation, Prompt, Response, Sample, Text
from tests.families import tiny
from tests.families.cases import (
    RATE,
    Case,
    all_gradients,
    compare_gradients,
    picture,
    policy,
    processed,
    relative,
    tone,
)

PICTURES = ("qwen2_5_vl", "qwen3_vl", "qwen3_5", "internvl", "gemma3", "gemma4", "smolvlm", "glm4v")
FAMILIES = [(name, "image") for name in PICTURES]
FAMILIES += [("qwen2_5_omni", "image"), ("qwen2_5_omni", "audio"), ("qwen3_omni", "image")]
TURNS, COUNT = 3, 3
SAMPLED = Sampling(4000, temperature=1.0)


def ref(media: Media) -> MediaRef:
    """The medium as an environment gives it: encoded bytes."""
    buffer = io.BytesIO()
    if media.kind == "audio":
        with wave.open(buffer, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(4)
            file.setframerate(RATE)
            file.writeframes((media.array * (2**31 - 1)).astype("<i4").tobytes())
    else:
        Image.fromarray(media.array).save(buffer, "PNG")
    return MediaRef(media.kind, buffer.getvalue())


def shown(kind: str, seed: int) -> Media:
    """What the second observation shows, of another size each time."""
    return (
        tone(seed % 7, 1.0 + seed % 7 / 10)
        if kind == "audio"
        else picture(seed, 84 + 28 * ((seed + 1) % 3))
    )


@dataclass
class Shows:
    """An environment that says something, then shows something; asks are counted an episode."""

    kind: str
    jobs: list[StepJob] = field(default_factory=list)
    changed: int = -1

    def step(self, jobs: Sequence[StepJob]) -> list[Observation | str]:
        found: list[Observation | str] = []
        for job in jobs:
            self.jobs.append(job)
            turn, episode = len(job.answer.turns), int(job.state["episode"])
            if turn == 1:
                episode = job.gold * 100 + sum(len(j.answer.turns) == 1 for j in self.jobs)
                parts: tuple[Any, ...] = (Text("And to the left?"),)
            else:
                media = shown(self.kind, episode)
                if episode == self.changed:
                    array = media.array.copy()
                    array[:28, :28] = 255 - array[:28, :28]
                    media = replace(media, array=array)
                parts = (Text("Look: "), ref(media), Text("now?"))
            found.append(Observation({"episode": episode}, f"{turn}", parts=parts, outcome=0.5))
        return found


@dataclass
class Script:
    """An engine that says random words and ends every turn."""

    made: Policy
    longest: int = 6
    asked: list[Prompt] = field(default_factory=list)

    def generate(
        self, prompts: Sequence[Prompt], counts: Sequence[int], sampling: Sampling, seed: int
    ) -> list[list[Response]]:
        self.asked += prompts
        rng = np.random.default_rng(seed)
        return [[self._say(rng) for _ in range(count)] for count in counts]

    def _say(self, rng: np.random.Generator) -> Response:
        ids = np.append(
            rng.integers(60, 300, rng.integers(2, self.longest + 1)), self.made.family.end_ids[0]
        )
        return Response(ids, np.full(len(ids), -1.0), "words", "stop")


def first(made: Policy, number: int) -> tuple[Prompt, list[Media]]:
    media = [picture(1000 + number, 112, 84)]
    sample = Sample(
        f"{number}",
        "test",
        (ref(media[0]), Text("What is here?")),
        gold=number,
        start=Observation({"episode": 0}, "0"),
        turns=TURNS,
    )
    return Encoder(made.family).prompt(sample), media


def play(
    made: Policy, kind: str, *, longest: int = 6, **environment: Any
) -> tuple[list[Prompt], list[list[Response]]]:
    """Two groups of episodes, whose turns have up to `longest` words."""
    prompts = [first(made, number)[0] for number in range(2)]
    player = Episodes(Script(made, longest), Shows(kind, **environment), Encoder(made.family))  # type: ignore[arg-type]
    return prompts, player.generate(prompts, [COUNT] * 2, SAMPLED, 0)


def trained(
    made: Policy, prompts: Sequence[Prompt], groups: Sequence[Sequence[Response]]
) -> Tensor:
    rows = [SharedRow.of(p, group) for p, group in zip(prompts, groups, strict=True)]
    layout = lay_out(rows, made.device)
    with active_layout(layout):
        return made.logprobs(layout, prompts, temperature=1.0)[0]


def library(model: Any, made: Policy, prompt: Prompt, answer: Response, media: Any) -> Tensor:
    """A plain forward of the whole conversation, with the library's own positions and masks."""
    whole = torch.from_numpy(np.concatenate([prompt.ids, answer.ids]))[None]
    inputs = processed(made, Case((*media, "So?")))
    more = {k: v for k, v in inputs.items() if k not in ("input_ids", "attention_mask")}
    for key in ("token_type_ids", "mm_token_type_ids"):
        if key in more:
            more[key] = torch.tensor(made.processor.create_mm_token_type_ids(whole.tolist()))
    logits = model(
        input_ids=whole, attention_mask=torch.ones_like(whole), use_cache=False, **more
    ).logits
    log_all = policy_log_softmax(logits[0, len(prompt.ids) - 1 : -1], made.banned, 1.0)
    return log_all[range(len(answer.ids)), answer.ids]


@pytest.mark.parametrize(("name", "kind"), FAMILIES)
def test_it_is_the_plain_forward_of_the_whole_conversation(name: str, kind: str) -> None:
    made, (reference, _) = policy(name), tiny.build(name)
    prompts, groups = play(made, kind)
    written = torch.from_numpy(np.concatenate([r.written for g in groups for r in g]))
    weights = torch.randn(len(written), generator=torch.Generator().manual_seed(0)) * written
    found = trained(made, prompts, groups)
    assert torch.equal(found[~written], torch.zeros(int((~written).sum())))
    (found * weights).sum().backward()
    pieces = []
    for number, (prompt, group) in enumerate(zip(prompts, groups, strict=True)):
        for i, answer in enumerate(group):
            assert answer.observed and len(answer.episode.turns) == TURNS  # type: ignore[union-attr]
            later = shown(kind, number * 100 + number * COUNT + i + 1)
            media = [first(made, number)[1][0], later]
            pieces.append(library(reference, made, prompt, answer, media))
    wanted = torch.cat(pieces)
    torch.where(written, wanted * weights, 0.0).sum().backward()
    loose = 10 if name == "gemma4" else 3 if name == "qwen3_5" else 1  # see cases.LARGE_SCORES
    assert relative(found[written], wanted[written]) < loose * 1e-5
    compare_gradients(made.model, reference)
    together = relative(*(all_gradients(m, reference) for m in (made.model, reference)))
    assert together < loose * 1e-5


@pytest.mark.parametrize("name", ["qwen2_5_vl", "gemma3", "qwen3_5"])
def test_a_changed_pixel_changes_what_comes_after_it_and_in_its_episode_alone(name: str) -> None:
    made = policy(name)
    prompts, groups = play(made, "image")
    _, others = play(made, "image", changed=2)
    with torch.no_grad():
        one, other = trained(made, prompts, groups), trained(made, prompts, others)
    differs = (one != other).split([len(r.ids) for g in groups for r in g])
    for place, (response, where) in enumerate(zip(groups[0] + groups[1], differs, strict=True)):
        *_, last = response.episode.turns  # type: ignore[union-attr]
        if place == 1:
            assert where[last.start : last.end].any()
            where = where[: last.start]
        assert not where.any()
    assert [r.observed.media[0].hash for r in groups[0]] != [  # type: ignore[union-attr]
        r.observed.media[0].hash
        for r in others[0]  # type: ignore[union-attr]
    ]


@pytest.mark.parametrize(("name", "kind"), FAMILIES)
def test_what_is_sampled_is_what_is_trained(name: str, kind: str) -> None:
    made = policy(name)
    made.family.end_ids = tuple(range(200, 300))  # turns of all lengths, ended by many tokens
    prompts = [first(made, number)[0] for number in range(2)]
    player = Episodes(HFEngine(made), Shows(kind), Encoder(made.family))  # type: ignore[arg-type]
    groups = player.generate(prompts, [COUNT] * 2, Sampling(900, temperature=1.0), 5)
    responses = [r for g in groups for r in g]
    assert sum(r.observed is not None for r in responses) > 2
    with torch.no_grad():
        found = trained(made, prompts, groups).numpy()
    sampled = np.concatenate([r.logprobs for r in responses])
    np.testing.assert_allclose(sampled, found, rtol=1e-4, atol=2e-5)
    assert not any(np.isin(r.ids[r.written], made.family.banned_ids).any() for r in responses)


@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl", "internvl", "qwen2_5_omni"])
def test_greedy_episodes_are_what_generate_writes_turn_by_turn(name: str) -> None:
    made, (reference, _) = policy(name), tiny.build(name)
    made.family.end_ids = tuple(range(200, 300))
    prompts = [first(made, 0)[0]]
    player = Episodes(HFEngine(made), Shows("image"), Encoder(made.family))  # type: ignore[arg-type]
    ((answer,),) = player.generate(prompts, [1], Sampling(900, temperature=0.0), 0)
    assert answer.episode is not None and len(answer.episode.turns) == TURNS
    media = [first(made, 0)[1][0], shown("image", 1)]
    whole = np.concatenate([prompts[0].ids, answer.ids])
    start = len(prompts[0].ids)
    for number, turn in enumerate(answer.episode.turns):
        asked = torch.from_numpy(whole[: start + turn.start])[None]
        inputs = processed(made, Case((*media[: 1 + (number == 2)], "So?")))
        inputs |= {"input_ids": asked, "attention_mask": torch.ones_like(asked)}
        if name == "internvl":
            inputs.pop("mm_token_type_ids", None)
        if "mm_token_type_ids" in inputs:
            kinds = made.processor.create_mm_token_type_ids(asked.tolist())
            inputs["mm_token_type_ids"] = torch.tensor(kinds)
        written = reference.generate(
            **inputs,
            max_new_tokens=turn.end - turn.start,
            do_sample=False,
            suppress_tokens=list(made.family.banned_ids),
            eos_token_id=list(made.family.end_ids),
        )[0, asked.shape[1] :]
        assert written.tolist() == answer.ids[turn.start : turn.end].tolist(), number


def test_later_media_are_encoded_bytes_with_their_frame() -> None:
    made = policy("qwen2_5_vl")
    prompts, groups = play(made, "image")
    for response in groups[0]:
        assert response.observed is not None and response.episode is not None
        (medium,) = response.observed.media
        assert medium.tensors == {} and medium.source is not None
        assert isinstance(medium.source.source, bytes)
        assert response.observed.positions.shape == (3, len(response.ids))
        one, two, three = response.episode.screens
        assert one == two == prompts[0].frames[0] and three == medium.frame


def test_the_environment_is_told_which_screen_a_turn_was_written_at() -> None:
    made = policy("qwen2_5_vl")
    environment = Shows("image")
    prompts = [first(made, 0)[0]]
    player = Episodes(Script(made), environment, Encoder(made.family))  # type: ignore[arg-type]
    ((response,),) = player.generate(prompts, [1], SAMPLED, 0)
    answers = [job.answer for job in environment.jobs]
    assert [len(a.screens) for a in answers] == [1, 2, 3]
    assert [a.frames for a in answers] == [prompts[0].frames] * 3
    assert response.observed is not None
    assert answers[-1].screens[-1] == response.observed.media[0].frame


def test_towers_run_once_for_each_distinct_screen() -> None:
    made = policy("qwen2_5_vl")
    prompts, groups = play(made, "image")
    seen: list[list[str]] = []
    inner = made.family.features
    made.family.features = lambda media: seen.append([m.hash for m in media]) or inner(media)  # type: ignore[method-assign]
    again = [[*group, *group] for group in groups]
    with torch.no_grad():
        trained(made, prompts, again)
    (hashes,) = seen
    assert len(hashes) == len(set(hashes)) == 2 + 2 * COUNT


def test_a_picture_that_cannot_be_read_is_the_environments_failure() -> None:
    made = policy("qwen2_5_vl")

    class Broken(Shows):
        def step(self, jobs: Sequence[StepJob]) -> list[Observation | str]:
            parts = (MediaRef("image", b"no picture"),)
            return [Observation(job.state, "", parts=parts) for job in jobs]

    player = Episodes(Script(made), Broken("image"), Encoder(made.family))  # type: ignore[arg-type]
    ((response,),) = player.generate([first(made, 0)[0]], [1], SAMPLED, 0)
    assert response.episode is not None and response.episode.failure.startswith("media: ")


@pytest.mark.parametrize("own", [None, 5, 60])
def test_what_is_observed_has_a_budget_of_its_own(own: int | None) -> None:
    made = policy("qwen2_5_vl")
    player = Episodes(
        Script(made),  # type: ignore[arg-type]
        Shows("image"),  # type: ignore[arg-type]
        Encoder(made.family),
        observed_tokens=own,
    )
    ((response,),) = player.generate([first(made, 0)[0]], [1], Sampling(60), 0)
    told = int((~response.written).sum())
    assert told <= (own if own is not None else 60)
    turns = {None: 2, 5: 1, 60: 3}[own]
    assert response.episode is not None and len(response.episode.turns) == turns
    assert response.truncated == (turns < TURNS)


def test_another_end_does_not_close_a_turn() -> None:
    """A turn that ended with the text's end is closed by the template's own."""
    made = policy("qwen2_5_vl")
    tokenizer = made.processor.tokenizer
    end, other = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<pad>"])
    made.family.end_ids = (end, other)
    prompt, _ = first(made, 0)
    said = Observation(0, "", "So?")
    by_end, by_other = (
        made.family.environment_tokens(replace(prompt, ids=np.array([70, last])), said).ids
        for last in (end, other)
    )
    assert by_other.tolist() == [end, *by_end.tolist()]
