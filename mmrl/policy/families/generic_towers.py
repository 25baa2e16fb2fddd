"""Towers of a model that run once for each prompt, where inputs of several do not go together.

Clips of different lengths, pictures in different numbers of tiles: a model takes them in one tensor
each, which its own processor makes of equal ones only. Its methods that make features are called
for every prompt instead, and what they make is put one after the other.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers.utils import ModelOutput

from mmrl.policy.families.generic_tensors import Given

FEATURES = re.compile(r"get_\w+_features")


@contextmanager
def each_apart(model: Any, given: Given) -> Iterator[None]:
    """Let a call for the features of one prompt's inputs, where they are apart, be for all's."""
    changed: list[tuple[Any, str]] = []
    busy: list[bool] = []  # the model's method calls that of the model inside
    for module in model.modules() if given.apart else ():
        for name in filter(FEATURES.fullmatch, dir(type(module))):
            setattr(module, name, _over_all(getattr(module, name), given, busy))
            changed.append((module, name))
    try:
        yield
    finally:
        for module, name in changed:
            delattr(module, name)


def _over_all(own: Callable[..., Any], given: Given, busy: list[bool]) -> Callable[..., Any]:
    names = {_place(value): key for key, value in given.whole.items()}

    @functools.wraps(own)
    def features(*args: Any, **kwargs: Any) -> Any:
        asked = {names[_place(v)] for v in (*args, *kwargs.values()) if _place(v) in names}
        if busy or not asked & given.apart:
            return own(*args, **kwargs)
        busy.append(True)
        try:
            return _merged(
                [
                    own(
                        *(_own(v, names, tensors) for v in args),
                        **{k: _own(v, names, tensors) for k, v in kwargs.items()},
                    )
                    for tensors in given.each
                    if asked & given.apart <= tensors.keys()
                ]
            )
        finally:
            busy.clear()

    return features


def _place(value: Any) -> Any:
    """What tells a tensor that is handed on, as it is or by its only row."""
    return (value.data_ptr(), value.shape) if isinstance(value, Tensor) else None


def _own(value: Any, names: dict[Any, str], tensors: dict[str, Tensor]) -> Any:
    """One prompt's own in the place of what a forward was given of all."""
    place = _place(value)
    return tensors.get(names[place], value) if place in names else value


def _merged(outputs: Sequence[Any]) -> Any:
    """Features of several calls as of one: rows [n, tokens, H], lists of them, or what has them."""
    first = outputs[0]
    if isinstance(first, Tensor):
        if all(out.shape[1:] == first.shape[1:] for out in outputs):
            return torch.cat(list(outputs))
        return torch.cat([out.flatten(0, -2) for out in outputs])[None]
    if isinstance(first, ModelOutput):
        named = {name: [out[name] for out in outputs] for name in first}
        return type(first)(**{name: _merged(values) for name, values in named.items()})
    return [row for out in outputs for row in out]
