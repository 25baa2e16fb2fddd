"""Reward functions of the user's own, in TRL's form: f(prompts, completions, **columns)."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

from mmrl.errors import ConfigError

RewardFunction = Callable[..., list[float | None]]


def load_function(name: str) -> RewardFunction:
    """Import `package.module:function` or `file.py:function`.

    Raises ConfigError if the module or the function does not exist. An error inside the module
    passes on as it is.
    """
    return load_callable(name, "reward function")


def load_callable(name: str, role: str) -> Callable[..., Any]:
    """Import `package.module:function` or `file.py:function`; messages call it by its role."""
    module_name, _, attribute = name.rpartition(":")
    if not module_name or not attribute:
        raise ConfigError(
            f"{role} '{name}': write it as package.module:function or file.py:function"
        )
    file = Path(module_name).absolute()
    if module_name.endswith(".py") and not file.is_file():
        raise ConfigError(f"{role} '{name}': no file at {file}")
    try:
        if module_name.endswith(".py"):
            module = _of_file(file)
        else:
            module = importlib.import_module(module_name)
    except (ModuleNotFoundError, TypeError) as error:
        raise ConfigError(
            f"{role} '{name}': {error}; install it, put its folder on PYTHONPATH, or write "
            "file.py:function"
        ) from None
    function = getattr(module, attribute, None)
    if not callable(function):
        raise ConfigError(f"{role} '{name}': {module_name} has no function '{attribute}'")
    return function  # type: ignore[no-any-return]


def name_of(function: Callable[..., Any]) -> str:
    """The name by which another process finds a function of a module or of a script.

    Raises ConfigError for one that has none: a lambda, a method, one of a notebook.
    """
    name = getattr(function, "__qualname__", repr(function))
    place = getattr(function, "__module__", "")
    module = sys.modules.get(place)
    if getattr(module, name, None) is function and place == "__main__":
        place = str(Path(getattr(module, "__file__", None) or "").absolute())
        module = module if place.endswith(".py") else None
    if getattr(module, name, None) is not function:
        raise ConfigError(
            f"reward function '{name}': workers find no function of that name; write it at the "
            "top of a .py file"
        )
    return f"{place}:{name}"


_running: list[str] = []
"""Files that are being run for the functions in them."""


def refuse_inside_file(call: str) -> None:
    """Raise ConfigError where a file that is run for its functions would start `call` itself."""
    if _running:
        raise ConfigError(
            f"{_running[-1]} calls {call} whenever it is imported, as scoring workers do: put it "
            'under `if __name__ == "__main__":`'
        )


def _of_file(path: Path) -> ModuleType:
    """The module of a file, run once a process; what lies beside it can be imported."""
    main = sys.modules["__main__"]
    if Path(getattr(main, "__file__", None) or "").absolute() == path:
        return main
    name = f"{path.stem}_{sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None, "a name that ends in .py has a loader"
    module = importlib.util.module_from_spec(spec)
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    sys.modules[name] = module
    _running.append(path.name)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        _running.pop()
    return module


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
