"""What a run changes of its model first: tokens of its own, and other language weights."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from mmrl.config import RunConfig, StartConfig
from mmrl.errors import ConfigError
from mmrl.model_config import ModelConfig
from mmrl.policy.policy import Policy, load_policy
from mmrl.train.phases import phases_of
from mmrl.train.run import train
from mmrl.train.start import add_tokens, take_language
from mmrl.validation import validate
from tests.conftest import TINY
from tests.runs import make_digits, run_config

NEW = ("<short>", "<think>")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_digits(tmp_path_factory.mktemp("digits"), train=4, test=2)


def loaded(path: str | Path = TINY) -> Policy:
    return load_policy(ModelConfig(path=str(path)))


def test_a_new_token_starts_as_the_mean_of_its_pieces() -> None:
    policy = loaded()
    tokenizer = policy.processor.tokenizer
    table = policy.model.get_input_embeddings().weight.detach().clone()
    pieces = tokenizer("<short>", add_special_tokens=False)["input_ids"]
    known = tokenizer.convert_ids_to_tokens(pieces[0])
    assert len(pieces) > 1
    assert add_tokens(policy.model, tokenizer, ("<short>", known)) == ["<short>"]
    (place,) = tokenizer("<short>", add_special_tokens=False)["input_ids"]
    after = policy.model.get_input_embeddings().weight.detach()
    torch.testing.assert_close(after[place], table[pieces].mean(0))
    kept = [i for i in range(len(table)) if i != place]
    assert torch.equal(after[kept], table[kept]), "nothing else moves"
    head = policy.model.get_output_embeddings().weight.detach()
    assert len(head) == len(after) >= len(tokenizer)
    assert tokenizer.decode([place], skip_special_tokens=True) == "<short>", "it is text"


def test_a_run_starts_with_its_tokens_and_its_checkpoints_have_them(
    tmp_path: Path, digits: Path
) -> None:
    values = run_config(tmp_path / "run", digits, trainer={"steps": 2, "checkpoint_every": 1})
    config = validate(RunConfig, {**values, "start": {"add_tokens": NEW}}, "test")
    train(config)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run" / "checkpoints" / "step_2")
    assert all(len(tokenizer(t, add_special_tokens=False)["input_ids"]) == 1 for t in NEW)
    before = load_file(tmp_path / "run" / "checkpoints" / "step_2" / "model.safetensors")
    # Killed after the first step, it goes on with the model it wrote, and ends as the same.
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step_2")
    train(config, resume=True)
    after = load_file(tmp_path / "run" / "checkpoints" / "step_2" / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)


def changed_copy(folder: Path) -> Path:
    """The shipped model with every weight of it another."""
    policy = loaded()
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.add_(1.0)
    policy.save(folder)
    return folder


def test_language_weights_are_exchanged_and_no_others(tmp_path: Path) -> None:
    other = changed_copy(tmp_path / "other")
    policy, before, after = loaded(), loaded(), loaded(other)
    take_language(policy, StartConfig(language=str(other)))
    family = policy.family
    media = {id(p) for p in (*family.tower_parameters(), *family.projector_parameters())}
    parts = zip(
        policy.model.named_parameters(),
        before.model.parameters(),
        after.model.parameters(),
        strict=True,
    )
    seen = set()
    for (name, now), old, new in parts:
        assert torch.equal(now, old if id(now) in media else new), name
        seen.add(id(now) in media)
    assert seen == {True, False}


def text_model(folder: Path, **changes: Any) -> Path:
    """The shipped model's language layers as a model of text alone, under its own names."""
    wide = AutoConfig.from_pretrained(Path(str(loaded().model.name_or_path))).get_text_config()
    settings = AutoConfig.for_model(
        "qwen2", **{**{k: getattr(wide, k) for k in KEPT}, "tie_word_embeddings": False, **changes}
    )
    torch.manual_seed(1)
    AutoModelForCausalLM.from_config(settings).save_pretrained(folder)
    return folder


KEPT = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
)


def test_a_language_model_by_itself_gives_its_weights(tmp_path: Path) -> None:
    folder, policy = text_model(tmp_path / "text"), loaded()
    take_language(policy, StartConfig(language=str(folder)))
    given = load_file(folder / "model.safetensors")
    layers = {n: p for n, p in policy.model.named_parameters() if "layers.0.mlp.up_proj" in n}
    (found,) = (p for n, p in layers.items() if "visual" not in n)
    assert torch.equal(found.detach(), given["model.layers.0.mlp.up_proj.weight"])


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    wide = text_model(tmp_path / "wide", intermediate_size=24)
    with pytest.raises(ConfigError, match="same architecture"):
        take_language(loaded(), StartConfig(language=str(wide)))
    whole = text_model(tmp_path / "less")
    less = load_file(whole / "model.safetensors")
    gone = next(name for name in less if "down_proj" in name)
    del less[gone]
    save_file(less, whole / "model.safetensors")
    with pytest.raises(ConfigError, match="has no 'layers"):
        take_language(loaded(), StartConfig(language=str(whole)))


def test_phases_have_parts_that_stay_and_weights_of_their_own(tmp_path: Path, digits: Path) -> None:
    other = changed_copy(tmp_path / "other")
    values = run_config(
        tmp_path / "run",
        digits,
        trainer={"steps": 1, "keep_checkpoints": 9},
        optimizer={"learning_rate": 1e-2},
    )
    sft = {"algorithm": {"name": "sft"}, "rollout": {"engine": "targets"}}
    frozen = {"freeze_tower": True, "freeze_language": True}
    values["phases"] = [
        {"name": "connect", "model": frozen, **sft},
        {"name": "reason", "language": str(other), "optimizer": {"learning_rate": 1e-9}, **sft},
    ]
    config = validate(RunConfig, values, "test")
    first, second = phases_of(config)
    assert first.config.model.freeze_language and not second.config.model.freeze_language
    train(config)
    start, step_1, step_2, given = (
        dict(loaded(folder).model.named_parameters())
        for folder in (
            TINY,
            tmp_path / "run" / "checkpoints" / "step_1",
            tmp_path / "run" / "checkpoints" / "step_2",
            other,
        )
    )
    moved = {name for name in start if not torch.equal(start[name], step_1[name])}
    assert moved and all("merger" in name for name in moved), "the projector alone has learnt"
    for name in start:
        kept = step_1 if "visual" in name else given
        torch.testing.assert_close(step_2[name], kept[name], rtol=0, atol=1e-6)


def test_an_optimiser_is_not_kept_for_other_parts(tmp_path: Path, digits: Path) -> None:
    values = run_config(tmp_path / "run", digits)
    values["phases"] = [
        {"name": "a", "model": {"freeze_language": True}},
        {"name": "b", "keep": ["state", "optimizer"]},
    ]
    with pytest.raises(ConfigError, match="other parts learn"):
        phases_of(validate(RunConfig, values, "test"))
