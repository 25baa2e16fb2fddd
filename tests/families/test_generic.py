"""A model that no family knows: what is shared is checked and said, and its numbers are right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from PIL import Image

from mmrl.engines.engine import Sampling
from mmrl.engines.hf import HFEngine
from mmrl.errors import UserError
from mmrl.model_config import ModelConfig
from mmrl.policy.families import chat, generic
from mmrl.policy.family import Limits
from mmrl.policy.policy import Policy, load_policy, wrap
from mmrl.policy.shared_prefix import SharedRow
from tests.families import tiny
from tests.families.cases import (
    Case,
    ask,
    cases,
    compare_gradients,
    picture,
    plain,
    policy,
    relative,
    responses,
)
from tests.families.cases import shared as logprobs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny LLaVA, for which there is no family."""
    tokens = tiny.tokenizer({"image_token": "<image>"})
    processor = tf.LlavaProcessor(
        image_processor=tf.CLIPImageProcessor(
            size={"height": 56, "width": 56}, crop_size={"height": 56, "width": 56}
        ),
        tokenizer=tokens,
        patch_size=14,
        vision_feature_select_strategy="full",
        chat_template=tiny.chat(image="<image>\n"),
    )
    config = tf.LlavaConfig(
        text_config={"model_type": "llama", **tiny.text_config(tokens)},
        vision_config=tiny.SIGLIP,
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
        image_token_index=tokens.image_token_id,
        image_token_id=tokens.image_token_id,
    )
    torch.manual_seed(0)
    model = tf.LlavaForConditionalGeneration(config)
    model.generation_config.eos_token_id = tokens.eos_token_id
    model.generation_config.pad_token_id = tokens.pad_token_id
    path = tmp_path_factory.mktemp("llava")
    model.save_pretrained(path)
    processor.save_pretrained(path)
    return path


@pytest.fixture
def made(folder: Path) -> Policy:
    with pytest.warns(UserWarning, match="no family serves model type 'llava'"):
        policy = load_policy(ModelConfig(path=str(folder)), torch.device("cpu"))
    policy.model.eval()
    return policy


def processed(made: Policy, case: Case) -> dict[str, Any]:
    """What the library's own processor makes of the whole conversation at once."""
    text = made.processor.apply_chat_template(
        chat.messages(case.sample, []), tokenize=False, add_generation_prompt=True
    )
    pictures = [Image.fromarray(part.array) for part in case.media] or None
    return dict(
        made.processor(text=[text], images=pictures, return_tensors="pt", add_special_tokens=False)
    )


def reference(folder: Path) -> Any:
    return tf.LlavaForConditionalGeneration.from_pretrained(folder).eval()


def test_numbers_are_those_of_the_model(made: Policy, folder: Path) -> None:
    other = reference(folder)
    asked = cases(("image",))
    rows = [
        SharedRow(ask(made, case), responses(i, (4, 1, 6))) for i, case in enumerate(asked.values())
    ]
    found = logprobs(made, rows)
    found.sum().backward()
    wanted = torch.cat(
        [
            plain(other, processed(made, case), row.prompt, row.responses, made.banned)
            for case, row in zip(asked.values(), rows, strict=True)
        ]
    )
    wanted.sum().backward()
    assert relative(found, wanted) < 1e-5
    compare_gradients(made.model, other)


def test_rollout(made: Policy, folder: Path) -> None:
    prompt = ask(made, Case((picture(1), "What is this?")))
    engine = HFEngine(made)
    greedy = Sampling(max_new_tokens=6, temperature=0.0)
    ((one, _),) = engine.generate([prompt], [2], greedy, seed=0)
    wanted = reference(folder).generate(
        **processed(made, Case((picture(1), "What is this?"))),
        max_new_tokens=6,
        do_sample=False,
        suppress_tokens=list(made.family.banned_ids),
    )
    assert one.ids.tolist() == wanted[0, len(prompt.ids) :].tolist()
    sampling = Sampling(max_new_tokens=20, temperature=1.0)
    first, again = (engine.generate([prompt], [3], sampling, seed=5) for _ in range(2))
    assert [r.ids.tolist() for r in first[0]] == [r.ids.tolist() for r in again[0]]
    with torch.no_grad():
        trained = logprobs(made, [SharedRow(prompt, tuple(r.ids for r in first[0]))])
    sampled = torch.from_numpy(np.concatenate([r.logprobs for r in first[0]])).float()
    assert relative(trained, sampled) < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@torch.no_grad()
def test_pictures_come_in_the_models_dtype(made: Policy, dtype: torch.dtype) -> None:
    """Not every model casts what its processor gives."""
    made.model.to(dtype)
    seen: list[torch.dtype] = []
    made.model.model.vision_tower.register_forward_pre_hook(
        lambda module, args: seen.append(args[0].dtype)
    )
    prompt = ask(made, Case((picture(1), "What is this?")))
    HFEngine(made).generate([prompt], [2], Sampling(max_new_tokens=1), seed=0)
    assert seen == [dtype]  # once for both answers


@pytest.mark.parametrize("name", ["gemma3", "internvl", "qwen2_audio", "qwen3_vl", "smolvlm"])
def test_a_known_model_has_the_numbers_of_its_own_family(name: str) -> None:
    """By the generic family, with rows shared or not, gradients too."""
    own, (model, processor) = policy(name), tiny.build(name)
    family = generic.build(model, processor, Limits(max_prompt_tokens=2000))
    assert family.declaration.shared_prefix, family.declaration.notes
    family.banned_ids = own.family.banned_ids = tuple(
        sorted({*own.family.banned_ids, *family.banned_ids})
    )
    made = wrap(model, processor, family)
    kinds = [kind for kind in own.family.declaration.takes if kind in family.declaration.takes]
    rows = []
    for policy_ in (made, own):
        asked = cases([kind for kind in kinds if kind != "screenshot"])
        asked.pop("mixed", None)
        rows.append(
            [
                SharedRow(ask(policy_, case), responses(i, (4, 1, 6)))
                for i, case in enumerate(asked.values())
            ]
        )
    found, wanted = logprobs(made, rows[0]), logprobs(own, rows[1])
    assert relative(found, wanted) < 1e-5
    found.sum().backward()
    wanted.sum().backward()
    compare_gradients(made.model, own.model)


def test_towers_cannot_be_frozen(folder: Path) -> None:
    config = ModelConfig(path=str(folder), family="generic", freeze_tower=True)
    with pytest.raises(UserError, match="does not know the model's towers"):
        load_policy(config, torch.device("cpu"))
