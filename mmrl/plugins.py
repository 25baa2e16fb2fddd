"""Name -> module, and nothing else: no registry to fill, no list to keep.

`load("algorithm", "grpo")` imports `mmrl.algorithms.grpo`. Other packages add names through the
entry-point groups `mmrl.algorithms`, `mmrl.tasks`, `mmrl.modalities`, `mmrl.families` and
`mmrl.recipes`; a value there is the module's import path. The stages of an algorithm are single
objects (`Named`), several to a module; there, a value is `module:object`.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import pkgutil
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, TypeVar, cast

from mmrl.errors import ConfigError

T = TypeVar("T")
PluginKind = Literal["algorithm", "task", "modality", "family", "recipe"]

PACKAGES: dict[PluginKind, str] = {
    "algorithm": "mmrl.algorithms",
    "task": "mmrl.tasks",
    "modality": "mmrl.modalities",
    "family": "mmrl.policy.families",
    "recipe": "mmrl.data_recipes",
}
_GROUPS: dict[PluginKind, str] = {
    "algorithm": "mmrl.algorithms",
    "task": "mmrl.tasks",
    "modality": "mmrl.modalities",
    "family": "mmrl.families",
    "recipe": "mmrl.recipes",
}


def load(kind: PluginKind, name: str) -> ModuleType:
    """Import the module that `name` stands for; an unknown one raises ConfigError with the nearest.

    A package names the modules beside its plugins that are not plugins in `SHARED`.

    Args:
        kind: algorithm, task, modality, family or recipe.
        name: what a configuration says.

    Returns:
        The module, which exposes what the contract of its kind says.

    Example:
        >>> load("algorithm", "rloo").build.__module__
        'mmrl.algorithms.rloo'
    """
    return importlib.import_module(find(kind, name))


def find(kind: PluginKind, name: str) -> str:
    """The import path of what `name` stands for; an unknown name raises ConfigError as `load` does.

    Nothing is imported: a family's module brings torch.

    Args:
        kind: algorithm, task, modality, family or recipe.
        name: what a configuration says.

    Returns:
        What Python imports.

    Example:
        >>> find("algorithm", "grpo")
        'mmrl.algorithms.grpo'
    """
    modules = available(kind)
    if name not in modules:
        near = difflib.get_close_matches(str(name).lower(), modules, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(sorted(modules))}"
        raise ConfigError(f"unknown {kind} '{name}': {hint}")
    return modules[name]


def available(kind: PluginKind) -> dict[str, str]:
    """List plugin names and their import paths without importing them.

    Args:
        kind: algorithm, task, modality, family or recipe.

    Returns:
        Import paths by name, ours and those that other packages add, which go before.

    Example:
        >>> available("modality")["image"]
        'mmrl.modalities.image'
    """
    return {**modules(PACKAGES[kind]), **_entries(_GROUPS[kind], tuple(sys.path))}


def importable_from(folder: Path) -> None:
    """Let modules in a folder be imported by name, here and in workers, after all others."""
    place = str(folder.absolute())
    if place not in sys.path:
        sys.path.append(place)


def modules(name: str) -> dict[str, str]:
    """List the modules of a package that are its plugins, with their import paths."""
    package = importlib.import_module(name)
    return {
        info.name: f"{name}.{info.name}"
        for info in pkgutil.iter_modules(package.__path__)
        if not info.name.startswith("_") and info.name not in getattr(package, "SHARED", ())
    }


class Named(Mapping[str, T]):
    """Stages by the name a config uses: our own, and those that other packages add to `group`.

    An entry point's value is `module:object`, imported when its name is asked for; a class stands
    for what it makes of its defaults. One that is no `kind` raises UserError, and so does one that
    takes a name of ours.
    """

    def __init__(self, group: str, own: Mapping[str, T], kind: type | None = None) -> None:
        self._group, self._own, self._kind = group, own, kind

    def __getitem__(self, name: str) -> T:
        path = self._others().get(name)
        if path is None:
            return self._own[name]
        if name in self._own:
            raise ConfigError(
                f"'{name}' is mmrl's own, and {path} takes it again among the entry points "
                f"'{self._group}': uninstall the package, or let it choose another name"
            )
        return self._loaded(name, path)

    def __iter__(self) -> Iterator[str]:
        return iter({**self._own, **self._others()})

    def __len__(self) -> int:
        return len({**self._own, **self._others()})

    def _others(self) -> dict[str, str]:
        return _entries(self._group, tuple(sys.path))

    def _loaded(self, name: str, path: str) -> T:
        module, _, attribute = path.partition(":")
        found: Any = getattr(importlib.import_module(module), attribute or name, None)
        made = found() if isinstance(found, type) else found
        if not (callable(made) if self._kind is None else isinstance(made, self._kind)):
            wanted = "stage" if self._kind is None else self._kind.__name__
            raise ConfigError(
                f"'{name}' of the entry points '{self._group}': {path} is no {wanted}"
            )
        return cast(T, made)


@functools.cache
def _entries(group: str, path: tuple[str, ...]) -> dict[str, str]:
    """Entry points of the packages on a path; to read them all takes milliseconds."""
    return {entry.name: entry.value for entry in entry_points(group=group)}
