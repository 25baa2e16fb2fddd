"""The policy is the model's own distribution, whatever the model does after its LM head."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mmrl import plugins
from mmrl.engines.engine import Sampling
from mmrl.engines.hf import HFEngine
from mmrl.errors import UserError
from mmrl.model_config import LoraConfig, ModelConfig
from mmrl.policy.family import Limits
from mmrl.policy.head import lm_head
from mmrl.policy.logprobs import CHUNK_TOKENS
from mmrl.policy.policy import Policy, load_policy, wrap
from mmrl.policy.shared_prefix import SharedRow
from mmrl.train.measure import certainty, entropy, measured
from mmrl.types import Prompt, Response, TrainSample
from tests.families.after_head import CHANGES, UNUSUAL, change_logits, learn_after_head
from tests.families.cases import (
    Case,
    all_gradients,
    ask,
    cases,
    compare_gradients,
    picture,
    plain,
    processed,
    relative,
    responses,
    shared,
)
from tests.families.tiny import HIDDEN, TINY, VOCABULARY, build

TOLERANCE = 1e-5  # relative, float32

every_change = pytest.mark.parametrize("change", CHANGES)


Change = Callable[[Any, Tensor], Tensor]


def changed_pair(
    name: str, change: Change, family: str | None = None, dtype: torch.dtype = torch.float32
) -> tuple[Policy, Any]:
    """A policy whose model changes its logits so, and the same model by itself."""
    model, processor = build(name)
    with torch.no_grad():
        lm_head(model).weight.mul_(4)  # as large as trained ones: a cap bends them
    model = change_logits(learn_after_head(model), change).to(dtype)
    return pair(model, processor, family or TINY[name].family)


def pair(model: Any, processor: Any, family: str) -> tuple[Policy, Any]:
    reference = copy.deepcopy(model)
    module = plugins.load("family", family)
    return wrap(model, processor, module.build(model, processor, Limits(2000))), reference


def asked_rows(made: Policy, kinds: tuple[str, ...]) -> list[tuple[Any, SharedRow]]:
    lengths = [(5, 2, 9), (1,), (6, 6), (3, 8, 1), (4,), (2, 7), (3,), (5, 1)]
    asked = cases(kinds).values()
    return [
        (case, SharedRow(ask(made, case), responses(i, lengths[i]))) for i, case in enumerate(asked)
    ]


def by_hand(made: Policy, model: Any, asked: list[tuple[Any, SharedRow]]) -> Tensor:
    """Log-probs from the logits of the model's own forward."""
    return torch.cat(
        [
            plain(model, processed(made, case), row.prompt, row.responses, made.banned)
            for case, row in asked
        ]
    )


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("change", ["cap", "scale"])
def test_every_family_trains_the_models_own_distribution(
    name: str, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dtype = torch.float32
    if name == "gemma4":  # long sums over sounds, see `LONG_SUMS`
        monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
        dtype = torch.float64
    compare(*changed_pair(name, CHANGES[change], dtype=dtype), TINY[name].kinds)


@every_change
@pytest.mark.parametrize("family", ["qwen2_5_vl", "generic"])
def test_every_change_is_followed(change: str, family: str) -> None:
    made, reference = changed_pair("qwen2_5_vl", CHANGES[change], family)
    compare(made, reference, ("image",))


@pytest.mark.parametrize("name", UNUSUAL)
def test_models_of_the_library_that_change_their_logits(name: str) -> None:
    made, reference = pair(*UNUSUAL[name](), "gemma4" if name == "gemma4" else "generic")
    compare(made, reference, ("image",))
    with torch.no_grad():
        output = made.head.output(torch.ones(3, HIDDEN))
    assert not torch.equal(made.head.finish(output.clone()), output)


def compare(made: Policy, reference: Any, kinds: tuple[str, ...]) -> None:
    """Log-probs and every gradient equal those of the model's own logits."""
    asked = asked_rows(made, kinds)
    count = sum(len(r) for _, row in asked for r in row.responses)
    weights = torch.randn(count, generator=torch.Generator().manual_seed(0))
    found = shared(made, [row for _, row in asked])
    (found * weights).sum().backward()
    wanted = by_hand(made, reference, asked)
    (wanted * weights).sum().backward()
    assert relative(found, wanted) < TOLERANCE
    compare_gradients(made.model, reference)


@every_change
@pytest.mark.parametrize("family", ["qwen2_5_vl", "generic"])
def test_what_is_sampled_is_the_models_own(change: str, family: str) -> None:
    made, reference = changed_pair("qwen2_5_vl", CHANGES[change], family)
    for temperature in (1.0, 0.6):
        sampling = Sampling(max_new_tokens=30, temperature=temperature)
        prompt = ask(made, Case(("How many?",)))
        (group,) = HFEngine(made).generate([prompt], [3], sampling, seed=1)
        for response in group:
            logits = own_logits(reference, prompt, response.ids)[:, : made.head.vocabulary]
            own = (logits / temperature).index_fill(-1, made.banned, float("-inf"))
            wanted = own.log_softmax(-1)[range(len(response.ids)), response.ids]
            sampled = torch.from_numpy(response.logprobs).float()
            assert relative(sampled, wanted) < TOLERANCE


@torch.no_grad()
def own_logits(model: Any, prompt: Prompt, answer: np.ndarray) -> Tensor:
    """Logits [T, V] of an answer under a prompt of text, by the model's own forward."""
    ids = torch.from_numpy(np.concatenate([prompt.ids, answer]))[None]
    return model(input_ids=ids).logits[0, len(prompt.ids) - 1 : -1].float()


@pytest.mark.parametrize("family", ["qwen2_5_vl", "generic"])
def test_greedy_answers_are_those_of_generate(family: str) -> None:
    """A cut that removes the likeliest ids shows in what is chosen."""
    made, reference = changed_pair("qwen2_5_vl", lambda m, logits: -logits[..., :300], family)
    case = Case((picture(1), "What is this?"))
    prompt = ask(made, case)
    sampling = Sampling(max_new_tokens=8, temperature=0.0)
    ((found, *_),) = HFEngine(made).generate([prompt], [1], sampling, seed=0)
    ids = reference.generate(
        **processed(made, case),
        max_new_tokens=8,
        do_sample=False,
        suppress_tokens=list(made.family.banned_ids),
        eos_token_id=list(made.family.end_ids),
    )
    assert found.ids.tolist() == ids[0, len(prompt.ids) :].tolist()


@pytest.mark.parametrize("change", ["nothing", "cap", "scale", "bias", "cut"])
def test_measures_are_those_of_the_models_own_logits(change: str) -> None:
    made, reference = changed_pair("qwen2_5_vl", CHANGES[change])
    prompt, answer = ask(made, Case(("How many?",))), responses(3, (7,))[0]
    response = Response(answer, np.zeros(7), "", "stop")
    sample = TrainSample(prompt, response, np.ones(7), np.ones(7, dtype=bool), group=0)
    measures = {"h": entropy(made, 1.3), "c": certainty(made, 1.3)}
    found = {name: values[0] for name, values in measured(made, [sample], 99, measures).items()}
    chances = (own_logits(reference, prompt, answer) / 1.3).double()
    kept = np.delete(chances.numpy(), made.banned.numpy(), axis=1)
    logs = kept - np.log(np.exp(kept).sum(1, keepdims=True))
    assert found["h"] == pytest.approx(-(np.exp(logs) * logs).sum(1), abs=1e-4)
    assert found["c"] == pytest.approx(-logs.mean(1), abs=1e-4)  # KL(uniform || policy) + log V


@pytest.mark.parametrize("family", ["qwen2_5_vl", "generic"])
@torch.no_grad()
def test_half_precision_is_capped_to_its_rounding(family: str) -> None:
    exact, _ = changed_pair("qwen2_5_vl", CHANGES["cap"], family)
    made, reference = changed_pair("qwen2_5_vl", CHANGES["cap"], family, torch.bfloat16)
    asked = asked_rows(made, ("image",))
    wanted = shared(exact, [row for _, row in asked])
    found, own = shared(made, [row for _, row in asked]), by_hand(made, reference, asked)
    assert 0 < relative(own, wanted) < 0.02
    assert relative(found, wanted) < 1.5 * relative(own, wanted)


def test_tied_heads_learn_through_a_cap() -> None:
    model, processor = build("qwen2_5_vl")
    model.get_output_embeddings().weight = model.get_input_embeddings().weight
    change_logits(model, CHANGES["cap"])
    compare(*pair(model, processor, "qwen2_5_vl"), ("image",))


@pytest.mark.parametrize("name", ["gemma4", "muse_glimmer"])
def test_adapters_learn_through_a_cap(name: str, tmp_path: Path) -> None:
    """From a folder whose configuration sets the cap; gradients against PEFT's own model."""
    peft = pytest.importorskip("peft")
    model, processor = UNUSUAL[name]()
    for part in (model, processor):
        part.save_pretrained(tmp_path / "base")
    family = "gemma4" if name == "gemma4" else "generic"
    config = ModelConfig(
        path=str(tmp_path / "base"), family=family, lora=LoraConfig(rank=2, targets=("q_proj",))
    )
    made = load_policy(config, torch.device("cpu"), seed=3)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for key, parameter in made.model.named_parameters():
            if "lora_" in key:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    made.save(tmp_path / "adapter")
    adapted = peft.PeftModel.from_pretrained(model, str(tmp_path / "adapter"), is_trainable=True)
    compare(made, adapted.base_model.model, ("image",))
    asked = asked_rows(made, ("image",))
    with torch.no_grad(), adapted.disable_adapter():
        wanted = by_hand(made, adapted.base_model.model, asked)
        assert relative(shared(made.frozen_copy(), [row for _, row in asked]), wanted) < TOLERANCE


def test_a_later_pass_does_not_change_the_way_back() -> None:
    """Logits are computed again in the backward pass: as their own pass made them."""
    made, reference = changed_pair("qwen2_5_vl", CHANGES["learned scale"])
    asked = asked_rows(made, ("image",))
    found = shared(made, [row for _, row in asked])
    with torch.no_grad():
        shared(made, [asked[0][1]])
    found.sum().backward()
    by_hand(made, reference, asked).sum().backward()
    assert reference.after_scale.grad.abs() > 1e-3
    compare_gradients(made.model, reference)


def test_banned_ids_beyond_the_logits_are_no_ids_of_theirs() -> None:
    made, reference = changed_pair("qwen2_5_vl", CHANGES["cut"])
    made.family.banned_ids = (*made.family.banned_ids, VOCABULARY - 1)
    assert made.head.vocabulary is not None and made.head.vocabulary < VOCABULARY - 1
    compare(made, reference, ("image",))


def test_whole_logits_are_never_made() -> None:
    made, _ = changed_pair("qwen2_5_vl", CHANGES["cap"])
    rows: list[int] = []
    made.model.get_output_embeddings().register_forward_hook(
        lambda module, args, out: rows.append(out.shape[:-1].numel())
    )
    prompt = ask(made, Case(("How many?",)))
    shared(made, [SharedRow(prompt, responses(0, (700, 700, 700)))]).sum().backward()
    assert rows[0] == 0, "the model's own forward is spared the head"
    assert max(rows) == CHUNK_TOKENS and sum(rows) == 2 * 2100


class OnTheWayBack(torch.autograd.Function):
    """Hands values on and does something when their gradients come, as sharding does."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.detach()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


def watched(module: Any, args: Any, out: Any) -> Any:
    """A hook after a module, as sharding's: its outputs pass a function of their own."""
    if isinstance(out, Tensor):
        return OnTheWayBack.apply(out)
    out.logits = OnTheWayBack.apply(out.logits)
    return out


@pytest.mark.parametrize("family", ["qwen2_5_vl", "nemotron_h_omni"])
def test_hooks_around_the_head_are_not_taken_for_the_models(family: str) -> None:
    """The head may stand in a model inside, and every module around it have hooks."""
    made, wanted = (changed_pair(family, CHANGES["cap"])[0] for _ in range(2))
    head = lm_head(made.model)
    for module in made.model.modules():
        if any(inner is head for inner in module.modules()):
            module.register_forward_hook(watched)
    losses = []
    for one in (made, wanted):
        row = SharedRow(ask(one, Case(("How many?",))), responses(0, (3, 9)))
        losses.append(shared(one, [row]).sum())
        losses[-1].backward()
    assert torch.equal(*losses)
    assert torch.equal(*(all_gradients(one.model, wanted.model) for one in (made, wanted)))


def by_value(model: Any, logits: Tensor) -> Tensor:
    return logits * 2 if logits.numel() else logits


NOT_FOLLOWED: dict[str, Change] = {
    "another way to the logits": lambda model, logits: torch.from_numpy(logits.detach().numpy()),
    "a value for each token": lambda model, logits: (
        logits * torch.arange(1, 1 + logits.shape[1])[:, None]
    ),
    "a branch": by_value,
    "tokens that see each other": lambda model, logits: logits.cumsum(1),
}


@pytest.mark.parametrize("family", ["qwen2_5_vl", "generic"])
@pytest.mark.parametrize("change", NOT_FOLLOWED)
def test_what_cannot_be_followed_is_refused_when_it_is_loaded(change: str, family: str) -> None:
    with pytest.raises(UserError, match=r"Qwen2_5_VLForConditionalGeneration: ") as caught:
        changed_pair("qwen2_5_vl", NOT_FOLLOWED[change], family)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_checkpoints_settings_for_generation_change_nothing(temperature: float) -> None:
    """A penalty or a cut that `generation_config.json` asks for is no part of the policy."""
    found = []
    for settings in ({}, {"repetition_penalty": 3.0, "no_repeat_ngram_size": 1, "min_p": 0.5}):
        made, _ = changed_pair("qwen2_5_vl", CHANGES["nothing"], "generic")
        for key, value in settings.items():
            setattr(made.model.generation_config, key, value)
        prompt = ask(made, Case(("How many?",)))
        sampling = Sampling(max_new_tokens=12, temperature=temperature)
        (group,) = HFEngine(made).generate([prompt], [4], sampling, seed=1)
        found.append([response.ids.tolist() for response in group])
        assert [getattr(made.model.generation_config, key) for key in settings] == [
            *settings.values()
        ]
    assert found[0] == found[1]
