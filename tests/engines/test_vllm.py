"""vLLM, in this process or as a server, says what the embedded engine says, for every medium.

The embedded engine's own log-probs are those of the trainer (tests/rollout/test_hf.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from mmrl.engines.engine import Sampling
from mmrl.errors import UserError
from tests.engines.models import THOROUGH, TOLERANCE
from tests.engines.pair import (
    GREEDY,
    LENGTH,
    SAMPLED,
    TIED,
    Pair,
    move,
    pair_of,
    teacher_forced,
)
from tests.families.cases import Case, ask

pytest.importorskip("vllm", reason="vLLM is not installed: pip install 'mmrl[vllm]'")
from mmrl.engines.vllm.client.remote import VLLMServerEngine
from mmrl.engines.vllm.in_process import VLLMEngine

pytestmark = [pytest.mark.engines, pytest.mark.timeout(900)]

PASS_TOKENS = 2048  # what a pass of vLLM on CPUs holds, if the model's length is not more


@pytest.fixture(
    scope="module",
    params=[(e, m) for e in ("vllm", "vllm_server") for m in (*THOROUGH, f"qwen2_5_vl{TIED}")],
    ids=" ".join,
)
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    engine, name = request.param
    build = VLLMEngine if engine == "vllm" else VLLMServerEngine
    made = pair_of(name, tmp_path_factory.mktemp("model"), build, engine)
    yield made
    made.vllm.close()


def test_greedy_answers_are_the_same_before_and_after_the_weights_change(pair: Pair) -> None:
    prompts = list(pair.prompts.values())
    assert pair.compare(prompts) < TOLERANCE
    before = [r.ids.tolist() for (r,) in pair.hf.generate(prompts, [1] * len(prompts), GREEDY, 0)]
    move(list(pair.policy.model.parameters()), seed=1)
    pair.sync()
    assert pair.compare(prompts) < TOLERANCE
    after = [r.ids.tolist() for (r,) in pair.hf.generate(prompts, [1] * len(prompts), GREEDY, 0)]
    assert before != after


def test_no_cache_outlives_a_change_of_the_towers_alone(pair: Pair) -> None:
    with_media = [prompt for prompt in pair.prompts.values() if prompt.media]
    assert pair.compare(with_media) < TOLERANCE  # the caches hold these prompts
    old = pair.vllm.generate(with_media, [1] * len(with_media), GREEDY, 0)
    move(list(pair.policy.family.tower_parameters()), seed=2)
    stale = pair.vllm.generate(with_media, [1] * len(with_media), GREEDY, 0)
    for (a,), (b,) in zip(old, stale, strict=True):
        assert np.array_equal(a.logprobs, b.logprobs)  # nothing moves without a sync
    pair.sync()
    assert pair.compare(with_media) < TOLERANCE
    new = pair.vllm.generate(with_media, [1] * len(with_media), GREEDY, 0)
    for (a,), (b,) in zip(old, new, strict=True):
        assert a.ids.tolist() != b.ids.tolist() or np.abs(a.logprobs - b.logprobs).max() > 1e-2


@pytest.mark.parametrize(
    "sampling",
    [
        SAMPLED,
        Sampling(LENGTH, temperature=0.7, top_p=0.5),
        Sampling(LENGTH, temperature=1.0, top_k=3),
        Sampling(LENGTH, temperature=2.0, top_k=20, top_p=0.8),
    ],
    ids=["plain", "top_p", "top_k", "both"],
)
def test_sampled_logprobs_are_the_trainers(pair: Pair, sampling: Sampling) -> None:
    prompts = list(pair.prompts.values())
    counts = [3, 0, 5, 1, 4, 2][: len(prompts)]
    counts += [2] * (len(prompts) - len(counts))
    groups = pair.vllm.generate(prompts, counts, sampling, 7)
    assert [len(group) for group in groups] == counts
    for prompt, group in zip(prompts, groups, strict=True):
        if group:
            wanted = teacher_forced(pair.policy, prompt, group, sampling.temperature)
            found = np.concatenate([r.logprobs for r in group])
            assert np.abs(found - wanted).max() < TOLERANCE


def test_the_seed_decides_and_responses_differ(pair: Pair) -> None:
    prompts = list(pair.prompts.values())
    counts = [4] * len(prompts)

    def ids(seed: int) -> list[list[list[int]]]:
        groups = pair.vllm.generate(prompts, counts, SAMPLED, seed)
        return [[r.ids.tolist() for r in group] for group in groups]

    first = ids(3)
    assert ids(3) == first
    assert ids(4) != first
    assert all(len({tuple(r) for r in group}) > 1 for group in first)
    again = pair.vllm.generate([prompts[0]] * 2, [2, 2], SAMPLED, 3)
    assert again[0][0].ids.tolist() != again[1][0].ids.tolist()


def test_prompts_that_do_not_fit_one_pass_are_sampled_from_all_the_same(pair: Pair) -> None:
    asked = [Case((f"{i} and {i} make? " * 5,)) for i in range(64)]
    prompts = [ask(pair.policy, case) for case in asked]
    assert sum(len(prompt.ids) for prompt in prompts) > 2 * PASS_TOKENS
    groups = pair.vllm.generate(prompts, [1] * len(prompts), SAMPLED, 9)
    for prompt, group in zip(prompts, groups, strict=True):
        wanted = teacher_forced(pair.policy, prompt, group, SAMPLED.temperature)
        assert np.abs(group[0].logprobs - wanted).max() < TOLERANCE


def test_greedy_groups_repeat_one_answer(pair: Pair) -> None:
    prompt = next(iter(pair.prompts.values()))
    (group,) = pair.vllm.generate([prompt], [3], GREEDY, 0)
    assert len(group) == 3
    assert len({tuple(r.ids.tolist()) for r in group}) == 1


def test_what_is_banned_is_never_sampled(pair: Pair) -> None:
    """With a head that wants nothing but placeholders, and at a heat that evens all out."""
    head = pair.policy.model.get_output_embeddings().weight
    kept = head.detach().clone()
    banned = list(pair.policy.family.banned_ids)
    prompts = list(pair.prompts.values())
    with torch.no_grad():
        head[banned] = 50 * head[5]
    pair.sync()
    try:
        for sampling in (GREEDY, Sampling(LENGTH, temperature=8.0)):
            groups = pair.vllm.generate(prompts, [4] * len(prompts), sampling, 5)
            for prompt, group in zip(prompts, groups, strict=True):
                assert not any(np.isin(r.ids, banned).any() for r in group)
                heat = sampling.temperature or 1.0
                wanted = teacher_forced(pair.policy, prompt, group, heat)
                found = np.concatenate([r.logprobs for r in group])
                assert np.abs(found - wanted).max() < TOLERANCE
    finally:
        with torch.no_grad():
            head.copy_(kept)
        pair.sync()


def test_responses_end_as_the_embedded_engines_do(pair: Pair) -> None:
    """A head that prefers the end ends at once; the end token is part of the response."""
    head = pair.policy.model.get_output_embeddings().weight
    kept, end = head.detach().clone(), pair.policy.family.end_ids[0]
    prompts = list(pair.prompts.values())
    first = pair.hf.generate(prompts[:1], [1], GREEDY, 0)[0][0].ids[0]
    with torch.no_grad():
        head[end] = 2 * head[first]
    pair.sync()
    try:
        assert pair.compare(prompts) < TOLERANCE
        (response,) = pair.vllm.generate(prompts[:1], [1], GREEDY, 0)[0]
        assert response.ids[-1] == end
        assert not response.truncated
    finally:
        with torch.no_grad():
            head.copy_(kept)
        pair.sync()


def test_a_response_that_cannot_fit_is_refused(pair: Pair) -> None:
    """Nothing of the call is left behind in the engine."""
    short, *_, long = sorted(pair.prompts.values(), key=lambda prompt: len(prompt.ids))
    room = 2000 + LENGTH - len(short.ids)
    with pytest.raises(UserError, match=r"sample 's'.*rollout.vllm.max_model_len"):
        pair.vllm.generate([short, long], [1, 1], Sampling(room), 0)
    assert pair.compare([short]) < TOLERANCE


def test_lost_placeholders_name_the_sample(pair: Pair) -> None:
    prompt = next(prompt for prompt in pair.prompts.values() if prompt.media)
    place = np.isin(prompt.ids, pair.policy.family.placeholder_ids).argmax()
    broken = dataclasses.replace(prompt, ids=np.delete(prompt.ids, place))
    with pytest.raises(UserError, match="sample 's' has"):
        pair.vllm.generate([broken], [1], GREEDY, 0)
