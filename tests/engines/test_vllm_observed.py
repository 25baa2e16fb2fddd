"""Episodes that see, with vLLM: what every later turn shows is to it what it is to the trainer.

A new picture, clip or sound comes after every turn. Greedy episodes are the embedded engine's, turn
by turn; log-probs of sampled ones are the trainer's, and those of a plain forward of the whole
conversation by the library's own class, positions and masks.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mmrl.engines.engine import Engine, Sampling
from mmrl.policy.encoder import Encoder
from mmrl.rollout.episode import Episodes
from mmrl.scoring.pool import StepJob
from mmrl.types import Media, MediaRef, Observation, Prompt, Response, Sample, Text
from tests.engines import delta_nets
from tests.engines.models import IN_FLOAT32, MODELS, TOLERANCE
from tests.engines.pair import Pair, move, pair_of
from tests.engines.served import measure
from tests.families.cases import clip, picture, tone
from tests.rollout.test_observed import library, ref, trained

pytest.importorskip("vllm", reason="vLLM is not installed: pip install 'mmrl[vllm]'")
from mmrl.engines.vllm.client.remote import VLLMServerEngine
from mmrl.engines.vllm.in_process import VLLMEngine

pytestmark = [pytest.mark.engines, pytest.mark.timeout(1800)]

TURNS, PROMPTS, COUNT = 3, 3, 3
TURN_TOKENS, OBSERVED_TOKENS = 24, 1200
ENDS = tuple(range(200, 300))  # turns of all lengths, ended by many tokens
GREEDY, SAMPLED = Sampling(200, temperature=0.0), Sampling(200, temperature=1.0)
SHOWN = ("image", "video", "audio")
CUT_ANEW = "llava_onevision"
"""Its processor cuts a picture otherwise once there is another: what it makes of the whole
conversation is not what was appended turn by turn."""
BY_SERVERS = [("qwen2_5_vl", "image"), ("qwen3_vl", "video"), ("qwen2_5_omni", "audio")]


def shown(kind: str, seed: int) -> Media:
    """A medium of that kind, of another size each time."""
    if kind == "audio":
        return tone(seed % 7, 1.0 + seed % 5 / 10)
    return clip(seed) if kind == "video" else picture(seed, 84 + 28 * (seed % 3))


def given(media: Media) -> MediaRef:
    """The medium as an environment gives it; a clip by its frames."""
    if media.kind != "video":
        return ref(media)
    frames = []
    for array in media.array:
        Image.fromarray(array).save(buffer := io.BytesIO(), "PNG")
        frames.append(buffer.getvalue())
    return MediaRef("video", tuple(frames))


@dataclass
class Shows:
    """An environment that shows something new after every turn of every episode."""

    kind: str
    begun: int = 0
    media: dict[str, Media] = field(default_factory=dict)

    def step(self, jobs: Sequence[StepJob]) -> list[Observation | str]:
        return [self._step(job) for job in jobs]

    def _step(self, job: StepJob) -> Observation:
        turn = len(job.answer.turns)
        if turn == 1:
            self.begun += 1
        episode = self.begun if turn == 1 else int(job.state["episode"])
        key = f"{episode}.{turn}"
        self.media[key] = shown(self.kind, 10 * episode + turn)
        parts = (Text("Look: "), given(self.media[key]), Text("now?"))
        return Observation({"episode": episode}, key, parts=parts, outcome=0.5)


@dataclass
class Played:
    """Episodes, and what was shown in each before and while it was played."""

    prompts: list[Prompt]
    first: list[Media]
    groups: list[list[Response]]
    shown: dict[str, Media]

    @property
    def whole(self) -> list[Response]:
        """The episodes of every turn."""
        every = [r for group in self.groups for r in group]
        return [r for r in every if len(turns(r)) == TURNS]

    def conversations(self) -> Iterator[tuple[Prompt, Response, list[Media]]]:
        for prompt, first, group in zip(self.prompts, self.first, self.groups, strict=True):
            for response in group:
                later = [self.shown[turn.state] for turn in turns(response)[1:]]
                yield prompt, response, [first, *later]


def turns(response: Response) -> tuple[Any, ...]:
    assert response.episode is not None and not response.episode.failure
    return response.episode.turns


def play(pair: Pair, engine: Engine, kind: str, sampling: Sampling, count: int) -> Played:
    family, opens = pair.policy.family, SHOWN[0] if "image" in pair.prompts else kind
    first = [shown(opens, 1000 + number) for number in range(PROMPTS)]
    start = Observation({"episode": 0}, "0")
    samples = [
        Sample(f"{i}", "test", (given(m), Text("What?")), gold=i, start=start, turns=TURNS)
        for i, m in enumerate(first)
    ]
    prompts = [Encoder(family).prompt(sample) for sample in samples]
    environment = Shows(kind)
    player = Episodes(
        engine,
        environment,  # type: ignore[arg-type]
        Encoder(family),
        turn_tokens=TURN_TOKENS,
        observed_tokens=OBSERVED_TOKENS,
    )
    groups = player.generate(prompts, [count] * PROMPTS, sampling, 3)
    return Played(prompts, first, groups, environment.media)


def equal_greedy(pair: Pair, kind: str) -> None:
    wanted, found = (play(pair, e, kind, GREEDY, 1) for e in (pair.hf, pair.vllm))
    for (one,), (other,) in zip(wanted.groups, found.groups, strict=True):
        assert turns(other) == turns(one)
        assert other.ids.tolist() == one.ids.tolist()
        assert (other.finish, other.text) == (one.finish, one.text)
        assert np.abs(other.logprobs - one.logprobs).max() < TOLERANCE


def equal_sampled(pair: Pair, kind: str, reference: Any) -> None:
    """The trainer's log-probs of what vLLM sampled; the library's where it has them at once."""
    played = play(pair, pair.vllm, kind, SAMPLED, COUNT)
    assert len(played.whole) > 2
    written = np.concatenate([r.written for g in played.groups for r in g])
    sampled = np.concatenate([r.logprobs for g in played.groups for r in g])
    with torch.no_grad():
        found = trained(pair.policy, played.prompts, played.groups).numpy()
    assert np.abs(sampled - found)[written].max() < TOLERANCE
    assert not sampled[~written].any()
    if kind == "video" or pair.name == CUT_ANEW:
        return
    for prompt, response, media in played.conversations():
        with torch.no_grad():
            plain = library(reference, pair.policy, prompt, response, media).numpy()
        gaps = np.abs(response.logprobs - plain)[response.written]
        assert gaps.max() < TOLERANCE


def compare(pair: Pair, kinds: Sequence[str]) -> None:
    """Before and after the weights have changed."""
    pair.policy.family.end_ids = ENDS
    reference = type(pair.policy.model).from_pretrained(pair.folder, dtype=torch.float32)
    for change in range(2):
        if change:
            move(list(pair.policy.model.parameters()), seed=change)
            pair.sync(change)
            reference.load_state_dict(pair.policy.model.state_dict())
        for kind in kinds:
            equal_greedy(pair, kind)
            equal_sampled(pair, kind, reference)


@pytest.mark.parametrize("name", MODELS)
def test_what_later_turns_show_is_what_is_trained(name: str, tmp_path: Path) -> None:
    pair = pair_of(name, tmp_path, VLLMEngine)
    try:
        compare(pair, [kind for kind in MODELS[name] if kind in SHOWN])
    finally:
        pair.vllm.close()


@pytest.mark.parametrize(("name", "kind"), BY_SERVERS)
def test_servers_are_shown_the_same(name: str, kind: str, tmp_path: Path) -> None:
    pair = pair_of(name, tmp_path, VLLMServerEngine, "vllm_server")
    try:
        compare(pair, [kind])
    finally:
        pair.vllm.close()


@pytest.mark.parametrize("name", IN_FLOAT32)
def test_what_cpus_do_in_bfloat16_alone_is_right_around_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts of every shape, then episodes, with recurrent layers in torch."""
    delta_nets.in_float32(monkeypatch)
    pair = pair_of(name, tmp_path, VLLMEngine)
    try:
        gaps = measure(pair)
        assert max(gaps.values()) < TOLERANCE, gaps
        compare(pair, IN_FLOAT32[name])
    finally:
        pair.vllm.close()
