"""Tiny models of types that have no family: real classes, random weights, a tokenizer of bytes.

A configuration starts from its class's own defaults; sizes with a name that is known here are
shrunk, ids are those of the tokens with the same name, and a recipe adds what no rule gives.
`make(name)` is a fresh model in float32 and evaluation mode with its processor.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

import torch
import transformers as tf
from transformers.models.auto import (
    feature_extraction_auto,
    image_processing_auto,
    modeling_auto,
    processing_auto,
    video_processing_auto,
)

from tests.families import newer_recipes, older_recipes, other_recipes, sound_recipes
from tests.families.other_recipes import Recipe, Settings
from tests.families.tiny import HIDDEN, chat, text_config, tokenizer

RECIPES: dict[str, Recipe] = {
    **other_recipes.RECIPES,
    **older_recipes.OLDER_RECIPES,
    **sound_recipes.SOUND_RECIPES,
    **newer_recipes.NEWER_RECIPES,
}

LANGUAGE: Settings = {
    "first_k_dense_replace": 1,
    "kv_lora_rank": 32,
    "moe_intermediate_size": 48,
    "moe_k": 2,
    "moe_num_experts": 4,
    "moe_num_shared_experts": 1,
    "moe_topk": 2,
    "n_group": 1,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "num_local_experts": 4,
    "q_lora_rank": 32,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 16,
    "shared_expert_intermediate_size": 48,
    "topk_group": 1,
    "v_head_dim": 32,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_value_head_dim": 24,
}
"""Sizes of language models, beside those of every tiny one."""
ENCODER: Settings = {
    "depth": 2,
    "head_dim": 32,
    "hidden_size": 64,
    "image_size": 56,
    "intermediate_size": 128,
    "num_attention_heads": 2,
    "num_heads": 2,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "num_position_embeddings": 64,
    "out_hidden_size": HIDDEN,
    "patch_size": 14,
    "text_hidden_size": HIDDEN,
    "vision_use_head": False,
}
"""Sizes of encoders."""


def installed(name: str) -> bool:
    """Whether the installed transformers has a type: models come with its releases."""
    known = modeling_auto.MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES
    return name in known or "model" in RECIPES[name].classes


def make(name: str) -> tuple[Any, Any]:
    """A fresh tiny model, in float32 and evaluation mode, and its processor."""
    recipe = RECIPES[name]
    torch.manual_seed(0)
    tokens = tokenizer(dict(recipe.names), recipe.others)
    if recipe.spaced:
        tokens.__class__ = Spaced
    processor = _processor(name, recipe, tokens)
    model = _class(modeling_auto.MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES, name, recipe, "model")(
        _configuration(name, recipe, tokens)
    )
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            # Small or zero weights make outputs that no difference shows in.
            if not parameter.any():
                parameter.normal_(std=0.05)
            elif parameter.dim() > 1 and "conv" not in key and parameter.std() < 0.1:
                parameter.mul_(3)
    model.generation_config.eos_token_id = tokens.eos_token_id
    model.generation_config.pad_token_id = tokens.pad_token_id
    return model.float().eval(), processor


class Spaced(tf.PreTrainedTokenizerFast):
    """A tokenizer that puts a space in front of every text, whatever stands there."""

    def __call__(self, text: Any, **options: Any) -> Any:
        """Encode one text or several [n] of them."""
        spaced = f" {text}" if isinstance(text, str) else [f" {one}" for one in text]
        return super().__call__(spaced, **options)


def _class(table: Mapping[str, Any], name: str, recipe: Recipe, part: str) -> Any:
    found = recipe.classes.get(part) or table[name]
    if isinstance(found, Mapping):
        found = found.get("torchvision") or next(iter(found.values()))
    found = found[0] if isinstance(found, tuple | list) else found
    return getattr(tf, found)


def _processor(name: str, recipe: Recipe, tokens: Any) -> Any:
    made = _class(processing_auto.PROCESSOR_MAPPING_NAMES, name, recipe, "processor")
    taken = inspect.signature(made.__init__).parameters
    tables = {
        "image_processor": (image_processing_auto.IMAGE_PROCESSOR_MAPPING_NAMES, recipe.image),
        "video_processor": (video_processing_auto.VIDEO_PROCESSOR_MAPPING_NAMES, recipe.video),
        "feature_extractor": (
            feature_extraction_auto.FEATURE_EXTRACTOR_MAPPING_NAMES,
            recipe.sound,
        ),
        "audio_processor": (
            feature_extraction_auto.FEATURE_EXTRACTOR_MAPPING_NAMES,
            recipe.sound,
        ),
    }
    parts = {
        part: _class(table, name, recipe, part)(**settings)
        for part, (table, settings) in tables.items()
        if part in taken
    }
    for another in {"qformer_tokenizer", "alignment_tokenizer"} & set(taken):
        parts[another] = copy.deepcopy(tokens)
    processor = made(tokenizer=tokens, **parts, **recipe.processor)
    processor.chat_template = recipe.first + chat(**recipe.marks)
    return processor


def _configuration(name: str, recipe: Recipe, tokens: Any) -> Any:
    cls = _config_class(recipe.classes.get("config", name))
    parts: dict[str, Any] = {}
    for key, inner in cls.sub_configs.items():
        own, more, sizes = _part(key, recipe)
        kind = own or _type_of(cls, key, inner)
        if not kind:
            parts |= {key: _filled(more, tokens)} if more else {}
            continue
        base = {**text_config(tokens), **LANGUAGE} if key == "text_config" else sizes
        kept = _fields(_config_class(kind))
        made = {k: v for k, v in base.items() if k in kept}
        if key == "text_config":
            made |= {k: v for k, v in base.items() if k.endswith("_token_id")}
            made["tie_word_embeddings"] = False
        parts[key] = {"model_type": kind, **made, **_filled(more, tokens)}
    alone = {} if "text_config" in parts else {**text_config(tokens), **LANGUAGE}
    outer = {k: v for k, v in alone.items() if k in _fields(cls)}
    outer |= {k: i for k in _fields(cls) if (i := _id(k, recipe, tokens)) is not None}
    flat = {k: v for k, v in recipe.config.items() if k not in parts}
    return cls(**{**parts, **outer, **_filled(flat, tokens)})


def _part(key: str, recipe: Recipe) -> tuple[str, Settings, Settings]:
    """The type of an inner configuration where a recipe says so, its settings, and usual sizes."""
    if key == "text_config":
        return recipe.language, recipe.text, {}
    if key == "vision_config":
        return recipe.encoder, recipe.vision, ENCODER
    return "", recipe.config.get(key, {}), ENCODER


def _type_of(cls: Any, key: str, inner: Any) -> str | None:
    default = getattr(cls(), key, None)
    return getattr(default, "model_type", None) or getattr(inner, "model_type", None)


def _config_class(kind: str) -> Any:
    return type(tf.AutoConfig.for_model(kind))


def _fields(cls: Any) -> set[str]:
    named = {f.name for f in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else set()
    return named | set(inspect.signature(cls.__init__).parameters)


def _id(key: str, recipe: Recipe, tokens: Any) -> int | None:
    """The id of the token that a setting names."""
    for end in ("_id", "_index"):
        name = key.removesuffix(end)
        for wanted in (name, name.removesuffix("_token"), f"{name}_token"):
            if name != key and wanted in recipe.names:
                return int(tokens.convert_tokens_to_ids(recipe.names[wanted]))
    return None


def _filled(settings: Any, tokens: Any) -> Any:
    """Settings with ids in the place of `{"token": NAME}`."""
    if isinstance(settings, Mapping):
        if set(settings) == {"token"}:
            return tokens.convert_tokens_to_ids(settings["token"])
        return {key: _filled(value, tokens) for key, value in settings.items()}
    if isinstance(settings, list):
        return [_filled(value, tokens) for value in settings]
    return settings
