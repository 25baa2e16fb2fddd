"""The embedded engine samples what the trainer trains on, and computes a prompt once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle
from transformers import AutoModelForImageTextToText

from mmrl.engines import decoding as decoding_module
from mmrl.engines import prefill as prefill_module
from mmrl.engines.batch import Batch, spans
from mmrl.engines.decoding import Decoding, Table
from mmrl.engines.draws import draw, truncate
from mmrl.engines.engine import Sampling
from mmrl.engines.hf import HFEngine
from mmrl.engines.prefill import Prefill
from mmrl.policy.attention import active_layout
from mmrl.policy.encoder import Encoder
from mmrl.policy.model_folder import model_folder
from mmrl.policy.policy import Policy
from mmrl.policy.shared_prefix import SharedRow, lay_out
from mmrl.types import Prompt, Response, Sample
from tests.conftest import TINY

TOLERANCE = 1e-5
LENGTH = 12
GREEDY = Sampling(LENGTH, temperature=0.0)
SAMPLED = Sampling(LENGTH, temperature=1.3)

Asker = Callable[..., Sample]


@pytest.fixture
def prompts(encoder: Encoder, ask: Asker) -> list[Prompt]:
    """Ragged: two images, none, one; a long text and short ones."""
    samples = [
        ask((140, 84, 1), "and", (60, 100, 2), "Compare the two pictures, please.", id="two"),
        ask("No picture at all.", id="none"),
        ask("How many digits are in the picture?", (112, 112, 0), id="one"),
    ]
    return [encoder.prompt(sample) for sample in samples]


@pytest.fixture
def engine(policy: Policy) -> HFEngine:
    return HFEngine(policy)


def make_noisy(policy: Policy, towards_end: float) -> None:
    """Random weights, so that answers differ; a bias decides how soon they end.

    At 5 the greedy answers of the fixture's prompts have 12 (all), 7 and 1 tokens; at 6, sampled
    ones have all lengths.
    """
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=2 / parameter[0].numel() ** 0.5)
            else:
                parameter.fill_(float("norm" in name or "ln_q" in name))
    wish(policy, policy.family.end_ids, towards_end)


def wish(policy: Policy, wanted: Sequence[int], strength: float) -> RemovableHandle:
    """Raise the logits of some ids, in sampling and in training."""

    def bias(module: torch.nn.Module, args: object, logits: Tensor) -> Tensor:
        raised = logits.clone()
        raised[..., list(wanted)] += strength
        return raised

    return policy.model.get_output_embeddings().register_forward_hook(bias)


def never_ending(policy: Policy) -> None:
    """Every answer gets its full length: the end is banned as placeholders are."""
    policy.family.banned_ids = (*policy.family.banned_ids, *policy.family.end_ids)


def flat(groups: Sequence[Sequence[Response]]) -> list[Response]:
    return [response for group in groups for response in group]


def same(a: Response, b: Response) -> bool:
    return np.array_equal(a.ids, b.ids) and np.allclose(
        a.logprobs, b.logprobs, TOLERANCE, TOLERANCE
    )


def teacher_forced(
    policy: Policy, prompts: Sequence[Prompt], groups: Sequence[Sequence[Response]], heat: float
) -> np.ndarray:
    """What the trainer computes for these responses, in order."""
    rows = [
        SharedRow(p, tuple(r.ids for r in group))
        for p, group in zip(prompts, groups, strict=True)
        if group
    ]
    layout = lay_out(rows, policy.device)
    with active_layout(layout), torch.no_grad():
        return policy.logprobs(layout, [row.prompt for row in rows], heat)[0].numpy()


class Trunk:
    """Counts the calls of the language layers and the tokens in each."""

    def __init__(self, policy: Policy) -> None:
        self.tokens: list[int] = []
        self.patches: list[int] = []
        (tower, *_) = policy.family.towers()
        language = policy.model.model.language_model
        language.register_forward_pre_hook(self._count, with_kwargs=True)
        tower.register_forward_pre_hook(lambda _, args: self.patches.append(len(args[0])))

    def _count(self, module: torch.nn.Module, args: object, kwargs: dict[str, Tensor]) -> None:
        self.tokens.append(kwargs["inputs_embeds"].shape[:2].numel())


# ---------------------------------------------------------------- what transformers would say


def generated(policy: Policy, prompt: Prompt) -> np.ndarray:
    """Greedy tokens of the library's own `generate`, on an untouched copy of the same weights."""
    model = AutoModelForImageTextToText.from_pretrained(
        model_folder(TINY), dtype=torch.float32, attn_implementation="sdpa"
    )
    model.load_state_dict(policy.model.state_dict())
    for hook in policy.model.get_output_embeddings()._forward_hooks.values():
        model.get_output_embeddings().register_forward_hook(hook)
    ids = torch.from_numpy(prompt.ids)[None]
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if prompt.media:
        inputs["pixel_values"] = torch.cat([m.tensors["pixel_values"] for m in prompt.media])
        inputs["image_grid_thw"] = torch.cat([m.tensors["image_grid_thw"] for m in prompt.media])
        inputs["mm_token_type_ids"] = (ids == model.config.image_token_id).int()
    out = model.eval().generate(
        **inputs,
        do_sample=False,
        max_new_tokens=LENGTH,
        suppress_tokens=list(policy.family.banned_ids),
        eos_token_id=list(policy.family.end_ids),
    )
    return out[0, ids.shape[1] :].numpy()


@pytest.mark.parametrize("noisy", [False, True], ids=["trained", "noisy"])
def test_greedy_equals_generate(
    noisy: bool, policy: Policy, prompts: list[Prompt], engine: HFEngine
) -> None:
    if noisy:
        make_noisy(policy, towards_end=5)
    groups = engine.generate(prompts, [2, 1, 3], GREEDY, seed=0)
    for prompt, group in zip(prompts, groups, strict=True):
        expected = generated(policy, prompt)
        for response in group:
            assert response.ids.tolist() == expected.tolist(), prompt.sample.id
    if noisy:
        assert [len(group[0].ids) for group in groups] == [12, 7, 1]


# ------------------------------------------------------------------ what the trainer would say


@pytest.mark.parametrize("counts", [[3, 3, 3], [1, 4, 2], [0, 5, 1]], ids=str)
def test_sampled_logprobs_are_the_trainers(
    counts: list[int], policy: Policy, prompts: list[Prompt], engine: HFEngine
) -> None:
    make_noisy(policy, towards_end=6)
    groups = engine.generate(prompts, counts, SAMPLED, seed=3)
    assert [len(group) for group in groups] == counts
    lengths = {len(r.ids) for r in flat(groups)}
    assert len(lengths) > 1, "responses of one length do not show that leaving is right"
    sampled = np.concatenate([r.logprobs for r in flat(groups)])
    trained = teacher_forced(policy, prompts, groups, SAMPLED.temperature)
    np.testing.assert_allclose(sampled, trained, TOLERANCE, TOLERANCE)


def test_logprobs_are_those_before_truncation(
    policy: Policy, prompts: list[Prompt], engine: HFEngine
) -> None:
    make_noisy(policy, towards_end=6)
    groups = engine.generate(prompts, [2, 2, 2], Sampling(LENGTH, top_k=4, top_p=0.7), seed=3)
    sampled = np.concatenate([r.logprobs for r in flat(groups)])
    np.testing.assert_allclose(
        sampled, teacher_forced(policy, prompts, groups, 1.0), TOLERANCE, TOLERANCE
    )


@pytest.mark.parametrize("window", [None, 1, 3, 6, 30])
@pytest.mark.parametrize("spare", [0, 4096], ids=["many tables", "one table"])
def test_decoding_attends_as_training_rows_do(
    window: int | None, spare: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every layout of one attention: token by token, leaving, moving, growing, equals all at once.

    Two tables at first where no padding is spared, of 9 and 6 and of 3 and 2 tokens. Layers have
    heads and sizes of their own.
    """
    monkeypatch.setattr(prefill_module, "SPARE_TOKENS", spare)
    monkeypatch.setattr(decoding_module, "SPARE_SEATS", min(spare, 1))
    monkeypatch.setattr(decoding_module, "BLOCK", 2)
    lengths = [[5, 1, 9], [], [2, 9, 3, 3], [4]]  # tokens fed by each response of each prompt
    rows = [
        SharedRow(bare_prompt(size), tuple(np.zeros(n + 1, dtype=np.int64) for n in fed))
        for size, fed in zip([6, 3, 2, 9], lengths, strict=True)
    ]
    whole = lay_out(rows, torch.device("cpu"))
    torch.manual_seed(0)
    layers = [
        [torch.randn(len(whole.ids), heads, size) for heads in (most, few, few)]
        for most, few, size in ((6, 2, 8), (4, 1, 16), (3, 3, 4))
    ]
    expected = [whole.attend(n, *layer, 0.4, window) for n, layer in enumerate(layers)]

    prompts = lay_out([SharedRow(row.prompt, ()) for row in rows], torch.device("cpu"))
    prefill = Prefill([len(row.prompt.ids) for row in rows])
    assert len(prefill.prompts) == (1 if spare else 2)
    part = prefill.part(prompts, np.arange(len(rows)))
    first = np.concatenate([run.places for run in whole.prompts])
    for number, layer in enumerate(layers):
        out = part.attend(number, *(x[first] for x in layer), 0.4, window)
        torch.testing.assert_close(out, expected[number][first])

    fed = np.array([n for group in lengths for n in group])
    decoding = Decoding(int(fed.max()))
    decoding.join(prefill, whole.owner)
    live = np.arange(len(fed))
    for at in range(fed.max()):
        stay = (fed[live] > at).nonzero()[0]
        if len(stay) < len(live):
            live = live[stay]
            decoding.keep(stay)
        now = [whole.responses[i].start + at for i in live]
        for number, layer in enumerate(layers):
            out = decoding.attend(number, *(x[now] for x in layer), 0.4, window)
            torch.testing.assert_close(out, expected[number][now])
        decoding.advance()


def bare_prompt(length: int) -> Prompt:
    ids = np.zeros(length, dtype=np.int64)
    sample = Sample("bare", "test", (), gold=None)
    return Prompt(sample, (), ids, ids[None], length, (), "unit")


# ------------------------------------------------------------------- what is computed, how often


def test_one_prefill_whatever_the_group(
    policy: Policy, prompts: list[Prompt], engine: HFEngine
) -> None:
    never_ending(policy)
    whole = sum(len(prompt.ids) for prompt in prompts)
    distinct = sum(len(m.tensors["pixel_values"]) for p in prompts for m in p.media)
    trunk = Trunk(policy)
    for size in (1, 2, 8):
        trunk.tokens.clear()
        trunk.patches.clear()
        engine.generate(prompts, [size] * len(prompts), SAMPLED, seed=0)
        assert trunk.tokens == [whole] + [size * len(prompts)] * (LENGTH - 1)
        assert trunk.patches == [distinct]


def test_tower_runs_once_for_equal_images(
    policy: Policy, encoder: Encoder, ask: Asker, engine: HFEngine
) -> None:
    image = (112, 112, 0)
    prompts = [encoder.prompt(ask("a", image)), encoder.prompt(ask("b", image, (56, 84, 1)))]
    distinct = {m.hash: len(m.tensors["pixel_values"]) for p in prompts for m in p.media}
    trunk = Trunk(policy)
    engine.generate(prompts, [4, 4], SAMPLED, seed=0)
    assert trunk.patches == [sum(distinct.values())]


def test_finished_responses_leave_the_batch(
    policy: Policy, prompts: list[Prompt], engine: HFEngine
) -> None:
    make_noisy(policy, towards_end=6)
    trunk = Trunk(policy)
    lengths = [len(r.ids) for r in flat(engine.generate(prompts, [4, 4, 4], SAMPLED, seed=3))]
    assert len(set(lengths)) > 2
    fed = [sum(length > at for length in lengths) for at in range(1, max(lengths))]
    assert trunk.tokens[1:] == fed


@pytest.mark.parametrize("counts", [[5, 0, 1], [1, 1, 5]], ids=str)
def test_greedy_answers_do_not_depend_on_the_batch(
    counts: list[int], policy: Policy, prompts: list[Prompt], engine: HFEngine
) -> None:
    """The answers end at different tokens: the longest goes on among empty seats."""
    make_noisy(policy, towards_end=5)
    alone = [engine.generate([prompt], [1], GREEDY, seed=0)[0][0] for prompt in prompts]
    together = engine.generate(prompts, counts, GREEDY, seed=0)
    for expected, group in zip(alone, together, strict=True):
        assert all(same(response, expected) for response in group)


def test_responses_move_together_without_harm(
    monkeypatch: pytest.MonkeyPatch, policy: Policy, prompts: list[Prompt], engine: HFEngine
) -> None:
    """Many sampled answers that end one by one: caches are moved, and are still the right ones."""
    moves = []
    move = Table._moved

    def counted(table: Table, *where: Any) -> Table:
        moves.append(where)
        return move(table, *where)

    monkeypatch.setattr(Table, "_moved", counted)
    make_noisy(policy, towards_end=6)
    groups = engine.generate(prompts, [8, 3, 8], Sampling(30, temperature=1.3), seed=3)
    assert len(moves) > 1
    sampled = np.concatenate([r.logprobs for r in flat(groups)])
    np.testing.assert_allclose(
        sampled, teacher_forced(policy, prompts, groups, 1.3), TOLERANCE, TOLERANCE
    )


# ------------------------------------------------------------------------------- what is drawn


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_placeholders_are_never_sampled(
    sampling: Sampling, policy: Policy, prompts: list[Prompt], engine: HFEngine
) -> None:
    wish(policy, policy.family.banned_ids, 50.0)
    groups = engine.generate(prompts, [4, 4, 4], sampling, seed=0)
    trained = teacher_forced(policy, prompts, groups, sampling.temperature or 1.0)
    drawn = np.concatenate([r.ids for r in flat(groups)])
    assert not np.isin(drawn, policy.family.banned_ids).any()
    sampled = np.concatenate([r.logprobs for r in flat(groups)])
    np.testing.assert_allclose(sampled, trained, TOLERANCE, TOLERANCE)


def test_the_wish_is_real(policy: Policy, prompts: list[Prompt], engine: HFEngine) -> None:
    """Without the ban, the same wish fills the answers with placeholders."""
    banned, policy.family.banned_ids = policy.family.banned_ids, ()
    wish(policy, banned, 50.0)
    (response,) = flat(engine.generate(prompts[:1], [1], GREEDY, seed=0))
    assert np.isin(response.ids, banned).all()


def test_same_seed_same_responses(policy: Policy, prompts: list[Prompt], engine: HFEngine) -> None:
    make_noisy(policy, towards_end=6)
    first, again, other = (
        flat(engine.generate(prompts, [3, 3, 3], SAMPLED, seed=s)) for s in (7, 7, 8)
    )
    assert all(np.array_equal(a.ids, b.ids) for a, b in zip(first, again, strict=True))
    assert all(np.array_equal(a.logprobs, b.logprobs) for a, b in zip(first, again, strict=True))
    assert any(not np.array_equal(a.ids, b.ids) for a, b in zip(first, other, strict=True))
    assert len({tuple(r.ids) for r in first}) > 3, "responses of a group are drawn apart"


def test_batches_are_split(policy: Policy, prompts: list[Prompt]) -> None:
    trunk = Trunk(policy)
    whole = HFEngine(policy).generate(prompts, [2, 3, 2], GREEDY, seed=0)
    assert len([n for n in trunk.tokens if n > 7]) == 1
    trunk.tokens.clear()
    split = HFEngine(policy, max_sequences=5).generate(prompts, [2, 3, 2], GREEDY, seed=0)
    prefills = [len(prompts[0].ids) + len(prompts[1].ids), len(prompts[2].ids)]
    assert [n for n in trunk.tokens if n > 7] == prefills
    assert all(same(a, b) for a, b in zip(flat(whole), flat(split), strict=True))
    assert [len(group) for group in split] == [2, 3, 2]


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_prompts_are_prefilled_within_a_budget(
    sampling: Sampling, policy: Policy, prompts: list[Prompt]
) -> None:
    """The responses do not know in how many passes their prompts were prefilled."""
    make_noisy(policy, towards_end=6)
    sizes = [len(prompt.ids) for prompt in prompts]
    trunk = Trunk(policy)
    whole = HFEngine(policy, prefill_tokens=sum(sizes)).generate(prompts, [2, 3, 2], sampling, 5)
    assert trunk.tokens[0] == sum(sizes)
    trunk.tokens.clear()
    budget = sizes[1] + sizes[2]
    parts = HFEngine(policy, prefill_tokens=budget).generate(prompts, [2, 3, 2], sampling, 5)
    assert trunk.tokens[:2] == [sizes[0], sizes[1] + sizes[2]]
    trunk.tokens.clear()
    alone = HFEngine(policy, prefill_tokens=1).generate(prompts, [2, 3, 2], sampling, 5)
    assert trunk.tokens[:3] == sizes
    for other in (parts, alone):
        assert all(same(a, b) for a, b in zip(flat(whole), flat(other), strict=True))


def test_a_group_over_the_limit_stays_whole() -> None:
    assert list(spans([2, 9, 2, 2], 4)) == [(0, 1), (1, 2), (2, 4)]


def test_finish_and_text(policy: Policy, prompts: list[Prompt], engine: HFEngine) -> None:
    end = policy.family.end_ids[0]
    wishing = wish(policy, [end], 50.0)
    (ended,) = flat(engine.generate(prompts[:1], [1], GREEDY, seed=0))
    wishing.remove()
    assert (ended.ids.tolist(), ended.text, ended.finish) == ([end], "", "stop")
    never_ending(policy)
    (cut,) = flat(engine.generate(prompts[:1], [1], GREEDY, seed=0))
    assert (len(cut.ids), cut.finish) == (LENGTH, "length")
    assert cut.text == policy.processor.tokenizer.decode(cut.ids)


def test_training_mode_is_left_as_it_was(
    policy: Policy, prompts: list[Prompt], engine: HFEngine
) -> None:
    for mode in (True, False):
        policy.model.train(mode)
        engine.generate(prompts[:1], [1], GREEDY, seed=0)
        assert policy.model.training is mode


# Hand-made distributions: probabilities 0.5, 0.3, 0.15, 0.05 in another order.
LOG = torch.tensor([[0.15, 0.5, 0.05, 0.3]]).log()


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, [0, 1, 2, 3]),
        ({"top_k": 1}, [1]),
        ({"top_k": 3}, [0, 1, 3]),
        ({"top_k": 9}, [0, 1, 2, 3]),
        ({"top_p": 0.4}, [1]),
        ({"top_p": 0.5000001}, [1, 3]),  # the smallest set that holds at least top_p
        ({"top_p": 0.79}, [1, 3]),
        ({"top_p": 0.81}, [0, 1, 3]),
        ({"top_p": 0.9999}, [0, 1, 2, 3]),
        # top_p counts within what top_k left: 0.5 / 0.8 = 0.625
        ({"top_k": 2, "top_p": 0.6}, [1]),
        ({"top_k": 2, "top_p": 0.7}, [1, 3]),
    ],
    ids=str,
)
def test_truncation(options: dict[str, float], kept: list[int]) -> None:
    cut = truncate(LOG, Sampling(1, **options))  # type: ignore[arg-type]
    assert cut[0].isfinite().nonzero()[:, 0].tolist() == kept
    assert torch.equal(cut[0, kept], LOG[0, kept])


def test_draws_follow_the_distribution() -> None:
    rows = 40_000
    log = LOG.index_fill(-1, torch.tensor([3]), float("-inf")).expand(rows, -1)
    drawn = draw(log, torch.Generator().manual_seed(0))
    shares = torch.bincount(drawn, minlength=4) / rows
    expected = torch.tensor([0.15, 0.5, 0.05, 0.0]) / 0.7
    assert shares[3] == 0
    # Four standard deviations of a share of 0.5 are 0.01.
    torch.testing.assert_close(shares, expected, atol=0.01, rtol=0)


def test_draws_at_the_edges_have_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the smallest nor the largest random number reaches an id without weight."""
    log = torch.tensor([[float("-inf"), 0.0, float("-inf"), 0.0, float("-inf")]])
    largest = 1 - 2.0**-53
    for number, expected in ((0.0, 3), (0.499, 3), (0.5, 1), (largest, 1)):
        monkeypatch.setattr(
            torch,
            "rand",
            lambda *size, number=number, dtype, **_: torch.full(size, number, dtype=dtype),
        )
        assert draw(log, torch.Generator()).tolist() == [expected]


def test_a_greedy_answer_comes_from_the_same_prefill(
    engine: HFEngine, policy: Policy, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_noisy(policy, 5)
    alone = engine.generate(prompts, [1, 1, 1], GREEDY, 0)
    prefills = 0
    prefill = Batch._prefill

    def counted(batch: Batch, tokens: int) -> object:
        nonlocal prefills
        prefills += 1
        return prefill(batch, tokens)

    monkeypatch.setattr(Batch, "_prefill", counted)
    sampling = Sampling(LENGTH, temperature=1.3, greedy_too=True)
    groups = engine.generate(prompts, [3, 0, 2], sampling, 0)
    assert prefills == 1
    assert [len(group) for group in groups] == [4, 1, 3]
    assert [g[-1].ids.tolist() for g in groups] == [a[0].ids.tolist() for a in alone]
    assert len({tuple(r.ids) for r in groups[0]}) > 1
