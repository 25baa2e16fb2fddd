"""Types without a family: shared rows equal the model's own forward, or nothing is shared."""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from torch import Tensor

from mmrl.engines.engine import Sampling
from mmrl.engines.hf import HFEngine
from mmrl.errors import MediaError
from mmrl.policy import recurrent_layers
from mmrl.policy.families import (
    generic,
    generic_mended,
    generic_sharing,
    generic_tokens,
    survey,
)
from mmrl.policy.families.generic_probe import in_float32
from mmrl.policy.families.generic_tensors import Join, joins
from mmrl.policy.family import Limits
from mmrl.policy.policy import Policy, wrap
from mmrl.policy.shared_prefix import SharedRow
from tests.families import other_types
from tests.families.cases import (
    LARGE_SCORES,
    Case,
    ask,
    make,
    picture,
    relative,
    responses,
    shared,
    tone,
)
from tests.families.other_recipes import Recipe

TOLERANCE = 1e-5  # relative, float32

# One of each kind: padded pictures, those of a prompt in one tensor, blocks of pictures, a prompt
# that sees itself both ways, windows and a cap after the head, places counted through the prompt,
# rope of three axes with markers told of, latent attention and experts.
QUICK = ("mistral3", "idefics3", "molmo2", "paligemma", "muse_glimmer", "paddleocr_vl", "kimi_k25")
SHARED = [row["type"] for row in survey.rows() if row["verdict"] == "shared"]


def policy(name: str) -> Policy:
    if not other_types.installed(name):
        pytest.skip(f"transformers {transformers.__version__} has no {name}")
    if "architecture" in other_types.RECIPES[name].vision:
        pytest.importorskip("timm")
    model, processor = other_types.make(name)
    return wrap(model, processor, generic.build(model, processor, Limits(max_prompt_tokens=20_000)))


CASES = (
    Case((picture(1), "What is this?")),
    Case(("Compare", picture(2, 112, 56), picture(3, 84, 112), "please, which is larger?")),
)
ANSWERS = (responses(0, (4, 1, 6)), responses(1, (5, 2)))


def rows_of(made: Policy) -> list[SharedRow]:
    return [
        SharedRow(ask(made, case), answers) for case, answers in zip(CASES, ANSWERS, strict=True)
    ]


def reference(model: Any, processor: Any, case: Case, answers: Any, banned: Tensor) -> Tensor:
    """Each answer alone behind what the library's processor makes of the whole conversation."""
    content = [
        {"type": "text", "text": part} if isinstance(part, str) else {"type": "image"}
        for part in case.parts
    ]
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    pictures = [Image.fromarray(part.array) for part in case.media]
    out = dict(
        processor(text=[text], images=[pictures], return_tensors="pt", add_special_tokens=False)
    )
    taken = set(inspect.signature(model.forward).parameters)
    start = out["input_ids"].shape[1]
    pieces = []
    for answer in answers:
        more = {
            key: value.float() if value.is_floating_point() else value
            for key, value in out.items()
            if key in taken - {"labels"} and isinstance(value, Tensor)
        }
        more |= {
            key: torch.nn.functional.pad(value, (0, len(answer)), value=LATER.get(key, 0))
            for key, value in more.items()
            if value.shape == (1, start)
        }
        more["input_ids"][0, start:] = torch.from_numpy(answer)
        more["attention_mask"] = torch.ones_like(more["input_ids"])
        logits = model(use_cache=False, **more).logits[0, start - 1 : -1].float()
        logits = logits.index_fill(-1, banned, float("-inf"))
        pieces.append(logits.log_softmax(-1)[range(len(answer)), answer])
    return torch.cat(pieces)


LATER = {"token_type_ids": 1}
"""What tokens of an answer are: PaliGemma's say 0 of the prompt."""


@pytest.mark.parametrize("name", QUICK)
def test_shared_rows_equal_the_models_own_forward(name: str) -> None:
    made = policy(name)
    assert made.family.declaration.shared_prefix, made.family.declaration.notes
    own, processor = other_types.make(name)
    found = shared(made, rows_of(made))
    weights = torch.randn(len(found), generator=torch.Generator().manual_seed(0))
    (found * weights).sum().backward()
    wanted = torch.cat(
        [
            reference(own, processor, case, answers, made.banned)
            for case, answers in zip(CASES, ANSWERS, strict=True)
        ]
    )
    (wanted * weights).sum().backward()
    assert relative(found, wanted) < TOLERANCE
    assert relative(slopes(made.model), slopes(own)) < TOLERANCE


def slopes(model: torch.nn.Module) -> Tensor:
    """All gradients, as one vector."""
    return torch.cat(
        [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in model.parameters()]
    )


@pytest.mark.parametrize("name", ["mistral3", "molmo2"])
def test_rollouts_are_what_is_trained(name: str) -> None:
    made = policy(name)
    prompts = [row.prompt for row in rows_of(made)]
    groups = HFEngine(made).generate(prompts, [3, 2], Sampling(max_new_tokens=12), seed=1)
    rows = [
        SharedRow(p, tuple(r.ids for r in group)) for p, group in zip(prompts, groups, strict=True)
    ]
    with torch.no_grad():
        trained = shared(made, rows)
    sampled = np.concatenate([r.logprobs for group in groups for r in group])
    assert relative(trained, torch.from_numpy(sampled).float()) < TOLERANCE
    drawn = np.concatenate([r.ids for group in groups for r in group])
    assert not np.isin(drawn, made.family.banned_ids).any()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("llama4", "chunked_attention"),
        ("minimax_m3_vl", "minimax_m3_sparse"),
        ("lfm2_vl", r"recurrent layers \(conv\)|shared"),
    ],
)
def test_what_a_short_trial_cannot_see_is_known_by_rule(name: str, why: str) -> None:
    made = policy(name)
    notes = made.family.declaration.notes
    if "shared" not in why:
        assert not made.family.declaration.shared_prefix
    assert re.search(why, notes), notes
    with torch.no_grad():
        own, processor = other_types.make(name)
        generic_mended.mend(own)
        found = shared(made, rows_of(made)[:1])
        wanted = reference(own, processor, CASES[0], ANSWERS[0], made.banned)
    assert relative(found, wanted) < TOLERANCE


def test_what_the_rule_misses_is_refused_by_the_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the rule, a layer that picks blocks of keys asks for what shared rows do not do."""
    monkeypatch.setattr(generic_sharing, "objection", lambda model: "")
    recipe = other_types.RECIPES["minimax_m3_vl"]
    wider = {**recipe.text, "index_topk_blocks": 16}  # 256 keys, more than a trial prompt has
    monkeypatch.setitem(other_types.RECIPES, "minimax_m3_vl", replace(recipe, text=wider))
    made = policy("minimax_m3_vl")
    assert not made.family.declaration.shared_prefix
    assert "attends with block_indices" in made.family.declaration.notes


def test_a_model_that_takes_no_positions_shares_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Positions from the flat row: the second prompt's would go on from the first's."""
    model, processor = other_types.make("mistral3")
    inner = model.model.language_model
    forward = inner.forward

    def flat(*args: Any, position_ids: Any = None, **kwargs: Any) -> Any:
        return forward(*args, **kwargs)

    monkeypatch.setattr(inner, "forward", flat)
    family = generic.build(model, processor, Limits(2000))
    assert not family.declaration.shared_prefix
    assert "log-probs would be off" in family.declaration.notes


def test_gradients_are_tried_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A prompt that no gradient reaches from its answers: the same log-probs, no sharing."""
    from mmrl.policy import tiled

    model, processor = other_types.make("mistral3")
    whole = tiled.Plan.attend

    def detached(self: Any, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        return whole(self, query, key.detach(), value, scale)

    monkeypatch.setattr(tiled.Plan, "attend", detached)
    family = generic.build(model, processor, Limits(2000))
    assert "gradients would be off" in family.declaration.notes


def test_every_marker_is_banned() -> None:
    model, processor = other_types.make("idefics3")
    family = generic.build(model, processor, Limits(2000))
    wanted = ["<image>", "<fake_token_around_image>", "<global-img>", "<row_1_col_1>"]
    ids = processor.tokenizer.convert_tokens_to_ids(wanted)
    assert set(ids) <= set(family.banned_ids)
    assert not set(family.end_ids) & set(family.banned_ids)
    model, processor = other_types.make("qwen3_5")
    family = generic.build(model, processor, Limits(2000))
    marks = ["<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"]
    assert set(processor.tokenizer.convert_tokens_to_ids(marks)) <= set(family.banned_ids)


def test_a_count_of_tokens_is_no_id() -> None:
    model, processor = other_types.make("paligemma")
    model.config.text_config.num_image_tokens = 76
    banned = generic_tokens.named(model, processor)
    assert 76 not in banned
    assert set(processor.tokenizer.convert_tokens_to_ids(["<image>"])) <= banned


def test_a_checkpoints_penalties_do_not_reach_rollouts() -> None:
    """Plain rollouts call the model's `generate`, which fills in from its generation_config."""
    made = policy("llama4")
    prompt = rows_of(made)[0].prompt
    greedy = Sampling(max_new_tokens=8, temperature=0.0)
    ((wanted,),) = HFEngine(made).generate([prompt], [1], greedy, seed=0)
    settings = made.model.generation_config
    settings.repetition_penalty, settings.no_repeat_ngram_size = 5.0, 1
    settings.num_beams, settings.min_new_tokens = 3, 8
    settings.forced_bos_token_id = settings.forced_eos_token_id = 70
    ((found,),) = HFEngine(made).generate([prompt], [1], greedy, seed=0)
    assert found.ids.tolist() == wanted.ids.tolist()


def test_sounds() -> None:
    made = policy("glmasr")
    assert made.family.declaration.takes == ("audio",)
    assert made.family.declaration.shared_prefix, made.family.declaration.notes
    with pytest.raises(MediaError, match="does not take image"):
        made.family.encode_medium(picture(1))
    prompt = ask(made, Case((tone(1), "What is said?")))
    assert prompt.media[0].num_tokens == np.isin(prompt.ids, made.family.placeholder_ids).sum() > 0


def test_joins_are_learned_from_what_the_processor_does() -> None:
    a, b = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0], [4.0]])
    assert Join().of([a, b]).tolist() == [[1, 2], [3, 0], [4, 0]]
    filled = {"x": Join(fills=True)}
    assert joins([{"x": a}, {"x": b}], {"x": Join().of([a, b])}) == filled
    assert joins([{"x": a}, {"x": a}], {"x": torch.cat([a, a])}) == {"x": Join()}
    assert Join().takes([a, a]) and not Join().takes([a, b]) and Join(fills=True).takes([a, b])
    assert Join(1).takes([torch.ones(1, 2), torch.ones(1, 5)])
    nested = [torch.ones(1, 1, 2), torch.ones(1, 2, 3)]
    whole = torch.tensor([[[1.0, 1, 0], [1, 1, 1], [1, 1, 1]]])
    assert joins([{"x": n} for n in nested], {"x": whole}) == {"x": Join(1, fills=True)}
    places = [torch.tensor([[0, 1], [2, -1]]), torch.tensor([[1, 0]])]
    counted = torch.tensor([[0, 1], [2, -1], [4, 3]])
    assert joins([{"x": p} for p in places], {"x": counted}) == {"x": Join(0, counts=True)}
    assert joins([{"x": a}, {"x": a}], {"x": torch.zeros(2, 2)}) == {}


def test_a_trial_leaves_the_weights_as_they_were() -> None:
    model = torch.nn.Linear(3, 2).to(torch.bfloat16)
    before = [p.clone() for p in model.parameters()]
    with in_float32(model):
        assert all(p.dtype == torch.float32 for p in model.parameters())
    for p, was in zip(model.parameters(), before, strict=True):
        assert p.dtype == torch.bfloat16 and torch.equal(p, was)


SENTENCE = "What is this? Look at it and answer. "


def long_row(made: Policy, length: int) -> SharedRow:
    """A medium and words of so many tokens or a few more, with answers of ragged lengths."""
    one, two = (len(made.processor.tokenizer(SENTENCE * n)["input_ids"]) for n in (1, 2))
    medium = make(made.family.declaration.takes[0], 1)
    prompt = ask(made, Case((medium, SENTENCE * (length // (two - one) + 1))))
    assert length <= len(prompt.ids)
    return SharedRow(prompt, responses(0, (5, 2)))


def copies(made: Policy, row: SharedRow) -> Tensor:
    """Log-probs of a row's answers by the model as the library made it, each behind its own prompt.

    One after the other, so that nothing is padded: masks over long rows are slow.
    """
    family: Any = made.family
    alone = replace(made, family=family.declared(shared_prefix=False))
    recurrent_layers.leave(made.model)
    with family.attending("sdpa"):
        return torch.cat([shared(alone, [SharedRow(row.prompt, (a,))]) for a in row.responses])


def windowed(name: str, size: int) -> Recipe:
    """The recipe of a type with windows of this size in all layers of its language that slide."""
    recipe = other_types.RECIPES[name]
    sizes = {key: size for key in ("sliding_window", "sliding_window_size") if key in recipe.text}
    return replace(recipe, text={**recipe.text, **sizes})


@pytest.mark.slow
@pytest.mark.parametrize("length", [4096, 8192])
@pytest.mark.parametrize("name", SHARED)
def test_long_prompts(name: str, length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows are an eighth of the prompt: as in released models, no trial prompt fills one.

    Gradients are compared behind the shorter prompts.
    """
    monkeypatch.setitem(other_types.RECIPES, name, windowed(name, length // 8))
    made = policy(name)
    assert made.family.declaration.shared_prefix, made.family.declaration.notes
    row = long_row(made, length)
    with torch.set_grad_enabled(length == 4096):
        found = shared(made, [row])
        gradient = slope(made.model, found)
        wanted = copies(made, row)
        tolerance = LARGE_SCORES.get(name, TOLERANCE)
        assert relative(found, wanted) < tolerance
        assert relative(gradient, slope(made.model, wanted)) < tolerance


def slope(model: torch.nn.Module, values: Tensor) -> Tensor:
    """The gradient of a weighted sum of values [M], one 1 where none is asked for."""
    if not torch.is_grad_enabled():
        return torch.ones(1)
    model.zero_grad()
    values.backward(torch.randn(len(values), generator=torch.Generator().manual_seed(0)))
    return slopes(model)


def test_the_survey_counts() -> None:
    rows = survey.rows()
    verdicts = [row["verdict"] for row in rows]
    assert verdicts.count("differs") == 0
    assert verdicts.count("shared") >= 38
    assert verdicts.count("refused") <= 10 and "not tried" not in verdicts
    text = survey.listing(as_json=False)
    assert all(row["type"] in text for row in rows)
    assert json.loads(survey.listing(as_json=True))["types"] == rows
