"""Which tokens belong to media, found in configuration, processor and tokenizer by their names."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

from mmrl.errors import UserError
from mmrl.policy.families import composed
from mmrl.policy.family import READING, Reading

WORDS = "image|img|picture|vision|visual|video|frame|audio|sound|speech|media|patch|tile|slice"
TEXT = re.compile(rf"{WORDS}|thumbnail|(^|[^a-z])vid([^a-z]|$)", re.IGNORECASE)
"""What the text of a special token says that belongs to media."""
NAME = re.compile(rf"{WORDS}|(^|_)(im|vid|bo[aiv]|eo[aiv])(_|$)")
"""What the name of a setting says; `<|im_start|>` opens a turn, `im_start_id` a picture."""
IDS = re.compile(r"_ids?$|token_(index|indices)$")
"""How the name of a number ends that is an id; `num_image_tokens` is a count."""
TOKENS = re.compile(r"(^|_)tokens?$")
"""How the name of a token's text ends."""


def named(model: Any, processor: Any) -> frozenset[int]:
    """Ids of every placeholder and marker of media that anything beside the weights names."""
    tokenizer = processor.tokenizer
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    told = [
        *_settings(model.config.to_dict()),
        *_attributes(processor),
        *(v for key, v in tokenizer.special_tokens_map.items() if _says(key, v)),
        *(
            index
            for index, token in tokenizer.added_tokens_decoder.items()
            if token.special and TEXT.search(token.content)
        ),
    ]
    found = {id_ for value in told for id_ in _ids(value, vocabulary)}
    return frozenset(found - set(composed.end_ids(model, tokenizer)) - _ordinary(tokenizer))


def reading(model: Any) -> Reading:
    """Where a model reads its prompts, by its forward's arguments."""
    config, set_ = model.config, model.generation_config
    parts = (config, config.get_text_config())
    if not any(getattr(part, "is_encoder_decoder", False) for part in parts):
        return READING
    starts = [getattr(part, "decoder_start_token_id", None) for part in (set_, *parts)]
    starts += [getattr(part, "bos_token_id", None) for part in (set_, *parts)]
    start = next((int(i) for i in starts if i is not None), None)
    if start is None:
        raise UserError(f"{type(model).__name__}: nothing says what its decoder starts with")
    taken = inspect.signature(type(model).forward).parameters
    encoded = "input_ids" in taken and model.main_input_name == "input_ids"
    return Reading("decoder_input_ids", encoded, start)


def texts(processor: Any) -> tuple[str, ...]:
    """Strings that a processor takes for media, whether they are tokens or not."""
    return tuple(v for v in _attributes(processor) if isinstance(v, str) and v.strip())


def _ordinary(tokenizer: Any) -> set[int | None]:
    return {tokenizer.bos_token_id, tokenizer.unk_token_id, tokenizer.pad_token_id}


def _says(name: str, value: Any) -> bool:
    first = value[0] if isinstance(value, list | tuple) and value else value
    ends = TOKENS.search(name) if isinstance(first, str) else IDS.search(name)
    return bool(NAME.search(name) and ends)


def _settings(settings: Mapping[str, Any]) -> Iterator[Any]:
    """Values of a configuration and those inside it."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _settings(value)
        elif _says(str(key), value):
            yield value


def _attributes(processor: Any) -> Iterator[Any]:
    """A processor's own, and constants of its classes."""
    for owner in (*type(processor).__mro__, processor):
        for key, value in vars(owner).items():
            if isinstance(value, str | int | list | tuple) and _says(key.lower(), value):
                yield value


def _ids(value: Any, vocabulary: Mapping[str, int]) -> Iterator[int]:
    if isinstance(value, list | tuple):
        for each in value:
            yield from _ids(each, vocabulary)
    elif isinstance(value, bool):
        return
    elif isinstance(value, int):
        if value >= 0:
            yield value
    elif str(value) in vocabulary:
        yield vocabulary[str(value)]
