"""A turn goes on from the one before: what was fed is not fed again, and nothing else changes."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from mmrl.engines.decoding import Decoding
from mmrl.engines.engine import Sampling, Still
from mmrl.engines.hf import HFEngine
from mmrl.engines.ongoing import Fed
from mmrl.engines.prefix_cache import MAX_TOKENS, PrefixCache
from mmrl.policy.appending import continued
from mmrl.policy.encoder import Encoder
from mmrl.policy.policy import Policy
from mmrl.rollout.episode import Episodes
from mmrl.types import Prompt, Response
from tests.families.cases import lifted, policy, relative
from tests.rollout.test_hf import bare_prompt
from tests.rollout.test_observed import COUNT, FAMILIES, SAMPLED, Shows, first, trained

OTHERS = ("nemotron_h_omni", "lfm2_vl", "gemma4_moe")  # the last has blocks where it slides alone
ALL = [*FAMILIES, *((name, "image") for name in OTHERS)]
ENDS = tuple(range(200, 300))


def played(
    made: Policy, kind: str, sampling: Sampling, ends: Sequence[int] = ENDS, **room: int
) -> tuple[list[Prompt], list[list[Response]]]:
    """Two groups of episodes of the embedded engine, whose turns have all lengths."""
    made.family.end_ids = tuple(ends)
    prompts = [first(made, number)[0] for number in range(2)]
    player = Episodes(HFEngine(made, **room), Shows(kind), Encoder(made.family))  # type: ignore[arg-type]
    return prompts, player.generate(prompts, [COUNT] * 2, sampling, 5)


@contextmanager
def counted(made: Policy) -> Iterator[list[int]]:
    """Tokens of every pass meanwhile."""
    passes = list[int]()
    embeds = made.model.get_input_embeddings()
    hook = embeds.register_forward_hook(lambda _, args, out: passes.append(args[0].numel()))
    yield passes
    hook.remove()


@pytest.mark.parametrize(("name", "kind"), ALL)
def test_every_token_is_fed_once(name: str, kind: str) -> None:
    made = policy(name)
    with counted(made) as passes:
        prompts, groups = played(made, kind, SAMPLED)
    responses = [r for group in groups for r in group]
    assert max(len(r.episode.turns) for r in responses if r.episode) > 1
    own = sum(len(r.ids) - 1 for r in responses)
    assert sum(passes) == sum(len(p.ids) for p in prompts) + own


@pytest.mark.parametrize(("name", "kind"), ALL)
def test_it_says_what_it_says_when_all_is_fed_anew(name: str, kind: str) -> None:
    found, logprobs = [], []
    for room in (MAX_TOKENS, 0):
        _, groups = played(policy(name), kind, SAMPLED, prefix_tokens=room)
        found.append([r for group in groups for r in group])
        logprobs.append(torch.from_numpy(np.concatenate([r.logprobs for r in found[-1]])))
    assert [r.ids.tolist() for r in found[0]] == [r.ids.tolist() for r in found[1]]
    assert relative(*logprobs) < (1e-4 if name.startswith("gemma4") else 1e-5)
    assert not torch.equal(*logprobs), "the two are summed up in another order"


@pytest.mark.parametrize(
    ("name", "kind"),
    [("qwen2_5_vl", "image"), ("qwen3_5", "image"), ("gemma3", "image"), ("qwen2_5_omni", "audio")],
)
def test_bfloat16_is_as_near_the_truth_as_training_is(name: str, kind: str) -> None:
    """Both against the same bfloat16 weights in float64, over long and short turns."""
    made, truth = policy(name), policy(name)
    made.model.to(torch.bfloat16)
    truth.model.load_state_dict(made.model.state_dict())
    truth.model.double()
    prompts, groups = played(made, kind, SAMPLED, ends=range(200, 210))
    responses = [r for group in groups for r in group]
    written = torch.from_numpy(np.concatenate([r.written for r in responses]))
    lengths = [turn.end - turn.start for r in responses for turn in r.episode.turns]  # type: ignore[union-attr]
    assert max(lengths) > 100 > 20 > min(lengths)
    sampled = torch.from_numpy(np.concatenate([r.logprobs for r in responses]))[written]
    with torch.no_grad():
        own = trained(made, prompts, groups).double()[written]
        with lifted(torch.float64):
            exact = trained(truth, prompts, groups)[written]
    usual = float((own - exact).norm())
    assert 0 < usual < 0.1 * float(exact.norm())
    assert float((sampled - exact).norm()) < 1.5 * usual


@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_5", "gemma3"])
def test_prompts_with_a_beginning_and_without_one_are_answered_together(name: str) -> None:
    made = policy(name)
    made.family.end_ids = ENDS
    prompts, groups = played(made, "image", SAMPLED)
    said = [
        continued(p, r.ids[: r.episode.turns[0].end])  # type: ignore[union-attr]
        for p, group in zip(prompts, groups, strict=True)
        for r in group
    ]
    later = [continued(p, np.arange(70, 70 + n)) for p, n in zip(said, range(3, 9), strict=True)]
    mixed = [later[0], prompts[0], later[3], later[1], prompts[1], later[2]]
    apart = HFEngine(made).generate(mixed, [2] * 6, Sampling(5), 3)
    engine, still = HFEngine(made), Still()
    engine.generate([prompts[0], prompts[1]], [COUNT] * 2, replace(SAMPLED, still=still), 5)
    with counted(made) as passes:
        found = engine.generate(mixed, [2] * 6, Sampling(5, still=still), 3)
    assert sum(passes[:2]) < sum(len(p.ids) for p in mixed)
    for one, other in zip(found, apart, strict=True):
        assert [r.ids.tolist() for r in one] == [r.ids.tolist() for r in other]
        values = [torch.from_numpy(np.concatenate([r.logprobs for r in g])) for g in (one, other)]
        assert relative(*values) < 1e-5


def test_nothing_outlives_the_weights_it_was_made_by() -> None:
    made = policy("qwen2_5_vl")
    made.family.end_ids = ENDS
    prompt, _ = first(made, 0)
    engine, still = HFEngine(made), Still()

    def tokens(asked: Prompt, still: Still) -> int:
        with counted(made) as passes:
            engine.generate([asked], [1], Sampling(1, temperature=0.0, still=still), 0)
        return passes[0]

    ((answer,),) = engine.generate([prompt], [1], Sampling(9, temperature=0.0, still=still), 0)
    later = continued(continued(prompt, answer.ids), np.array([70, 71]))
    assert tokens(later, Still()) == len(later.ids)
    assert tokens(later, still) == 3
    del still
    gc.collect()
    assert len(engine._fed) == 0


def fed(size: int, media: int = 0) -> Fed:
    return Fed(size, media, {0: torch.zeros(size, 1, 4)}, {0: torch.zeros(size, 1, 4)}, {})


def keep(cache: PrefixCache, prompt: Prompt, kept: Fed) -> None:
    assert cache.promise(kept.size)
    cache.add(prompt, kept)


def test_a_beginning_is_the_longest_and_all_of_it() -> None:
    cache, prompt = PrefixCache(), bare_prompt(50)
    for size in (10, 40, 49):
        keep(cache, prompt, fed(size))
    other = replace(prompt, ids=np.where(np.arange(50) == 45, 7, prompt.ids))
    moved = replace(prompt, positions=prompt.positions + (np.arange(50) == 12))
    early = replace(prompt, ids=np.where(np.arange(50) == 2, 7, prompt.ids))
    blocked = replace(prompt, blocks=np.where((np.arange(50) > 4) & (np.arange(50) < 8), 1, 0))
    found = cache.take([prompt, other, moved, early, blocked, prompt])
    sizes = [None if each is None else each.size for each in found]
    assert sizes == [49, 40, 10, None, None, 49]
    assert found[0] is found[-1]
    assert cache.take([prompt, other]) == [None, None], "each is given out once"


def test_a_beginning_has_the_same_media() -> None:
    made = policy("qwen2_5_vl")
    one, other = (first(made, number)[0] for number in range(2))
    assert one.ids.tolist() == other.ids.tolist()
    size = len(one.ids)
    one, other = (continued(p, np.array([70, 71])) for p in (one, other))
    cache = PrefixCache()
    keep(cache, one, fed(size, 1))
    assert [each is not None for each in cache.take([other, one])] == [False, True]


def test_the_oldest_is_let_go() -> None:
    cache = PrefixCache(room=100)
    prompts = [bare_prompt(50 + n) for n in range(3)]
    for n, prompt in enumerate(prompts):
        keep(cache, replace(prompt, ids=prompt.ids + n), fed(40))
    asked = [replace(prompt, ids=prompt.ids + n) for n, prompt in enumerate(prompts)]
    assert [each is not None for each in cache.take(asked)] == [False, True, True]


def test_no_more_is_copied_than_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A group's answers share their prompt; what is kept of each has it once more."""
    made = policy("qwen2_5_vl")
    made.family.end_ids = ENDS
    prompt, _ = first(made, 0)
    copied: list[int] = []
    inner = Decoding.fed

    def counted_copies(self: Decoding, rows: np.ndarray, media: np.ndarray) -> list[Fed]:
        found = inner(self, rows, media)
        copied.extend(each.size for each in found)
        return found

    monkeypatch.setattr(Decoding, "fed", counted_copies)
    room = 3 * len(prompt.ids)
    engine, still = HFEngine(made, prefix_tokens=room), Still()
    ((*answers,),) = engine.generate([prompt], [8], replace(SAMPLED, still=still), 5)
    assert len(answers) == 8 and 0 < len(copied) < 4 and sum(copied) <= room
    cache = engine._fed[still]
    assert cache._promised == 0 and sum(e.fed.size for e in cache._kept) == sum(copied)
