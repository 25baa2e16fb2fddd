"""Reward functions of the user's own, in TRL's form: f(prompts, completions, **columns)."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from mmrl.errors import ConfigError

RewardFunction = Callable[..., list[float | None]]


def load_function(name: str) -> RewardFunction:
    """Import `package.module:function`; the name must be importable, not a path.

    Raises ConfigError if the module or the function does not exist. An error inside the module
    passes on as it is.
    """
    return load_callable(name, "reward function")


def load_callable(name: str, role: str) -> Callable[..., Any]:
    """Import `package.module:function`, which messages call by its role; as `load_function`."""
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise ConfigError(f"{role} '{name}': write it as package.module:function")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{role} '{name}': {error}; install it or put its folder on PYTHONPATH"
        ) from None
    function = getattr(module, attribute, None)
    if not callable(function):
        raise ConfigError(f"{role} '{name}': {module_name} has no function '{attribute}'")
    return function  # type: ignore[no-any-return]


def call_reward(
    function: RewardFunction, prompt: Any, completion: str, columns: Mapping[str, Any]
) -> float | None:
    """Reward one completion, as a batch of one; None means that the function does not judge it.

    A prompt that is a list of messages makes the completion one too, as in TRL. Raises ValueError
    if the function does not return one number or None.
    """
    conversational = isinstance(prompt, list)
    spoken = [{"role": "assistant", "content": completion}] if conversational else completion
    batch = {name: [value] for name, value in columns.items()}
    rewards = function(prompts=[prompt], completions=[spoken], **batch)
    if len(rewards) != 1:
        raise ValueError(f"reward function returned {len(rewards)} rewards for one completion")
    return None if rewards[0] is None else float(rewards[0])
