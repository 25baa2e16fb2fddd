"""Reward functions of the user's own, by the name that another process finds them by."""

from __future__ import annotations

import importlib
import importlib.util
import pickle
import sys
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

from mmrl.errors import ConfigError

RewardFunction = Callable[..., Any]


def load_function(name: str) -> RewardFunction:
    """Import `package.module:function` or `file.py:function`.

    Raises ConfigError if the module or the function does not exist. An error inside the module
    passes on as it is.
    """
    return load_callable(name, "reward function")


def load_callable(name: str, role: str) -> Callable[..., Any]:
    """Import `package.module:function` or `file.py:function`; messages call it by its role.

    A file is sought in the current folder, then where modules are (`plugins.importable_from`).
    """
    module_name, _, attribute = name.rpartition(":")
    if not module_name or not attribute:
        raise ConfigError(
            f"{role} '{name}': write it as package.module:function or file.py:function"
        )
    if module_name.startswith(GIVEN):
        return _by_value(module_name, attribute)
    file = _sought(module_name) if module_name.endswith(".py") else None
    if file is not None and not file.is_file():
        raise ConfigError(f"{role} '{name}': no file at {file}")
    try:
        module = importlib.import_module(module_name) if file is None else _of_file(file)
    except (ModuleNotFoundError, TypeError) as error:
        raise ConfigError(
            f"{role} '{name}': {error}; install it, put its folder on PYTHONPATH, or write "
            "file.py:function"
        ) from None
    function = getattr(module, attribute, None)
    if not callable(function):
        raise ConfigError(f"{role} '{name}': {module_name} has no function '{attribute}'")
    return function  # type: ignore[no-any-return]


def _sought(name: str) -> Path:
    """The file of a name: where it is found first, else in the current folder."""
    places = [(Path(folder) / name).absolute() for folder in (".", *sys.path)]
    return next((place for place in places if place.is_file()), places[0])


def name_of(function: Callable[..., Any]) -> str:
    """The name by which another process of the run finds a function.

    One without a name of its own (of a notebook, a lambda, one made by another) is given to scoring
    workers by value, with what it uses. Raises ConfigError where that cannot be done.
    """
    name = getattr(function, "__qualname__", type(function).__name__)
    place = getattr(function, "__module__", None) or ""
    module = sys.modules.get(place)
    named = getattr(module, name, None) is function
    if named and place == "__main__":
        place = str(Path(getattr(module, "__file__", None) or "").absolute())
        named = place.endswith(".py")
    return f"{place}:{name}" if named else _give(function, name.rpartition(".")[2])


GIVEN = "given-"
_given: dict[str, bytes] = {}
"""Functions without a name that others find, by value; never on a disk, where others may write."""


def given() -> Mapping[str, bytes]:
    """Functions by value, for a process that this one starts."""
    return dict(_given)


def take(functions: Mapping[str, bytes]) -> None:
    """Know the functions of the process that started this one."""
    _given.update(functions)


def _give(function: Callable[..., Any], name: str) -> str:
    try:
        import cloudpickle  # type: ignore[import-untyped]
    except ImportError:
        raise ConfigError(
            f"reward function '{name}': workers find no function of that name; write it at the "
            "top of a .py file, or `pip install cloudpickle`"
        ) from None
    try:
        held: bytes = cloudpickle.dumps(function)
    except Exception as error:  # whatever the function holds
        raise ConfigError(
            f"reward function '{name}' cannot be given to workers ({error}): write it at the top "
            "of a .py file"
        ) from None
    key = f"{GIVEN}{sha256(held).hexdigest()[:12]}"
    _given[key] = held
    return f"{key}:{name}"


def _by_value(key: str, name: str) -> Callable[..., Any]:
    """A function that this process was given by itself or by the one that started it."""
    if key not in _given:
        raise ConfigError(
            f"reward function '{name}' was given by a program, not by its name: start the run from "
            "there again, or write it at the top of a .py file"
        )
    return pickle.loads(_given[key])  # type: ignore[no-any-return]


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
