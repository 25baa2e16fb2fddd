"""Name -> module, and nothing else: no registry to fill, no list to keep.

`load("algorithm", "grpo")` imports `mmrl.algorithms.grpo`. Other packages add names through the
entry-point groups `mmrl.algorithms`, `mmrl.tasks`, `mmrl.modalities`, `mmrl.families` and
`mmrl.recipes`; a value there is the module's import path.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import pkgutil
import sys
from importlib.metadata import entry_points
from types import ModuleType
from typing import Literal

from mmrl.errors import UserError

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
    """Import the module that `name` stands for; an unknown name raises UserError with the nearest.

    A package names the modules beside its plugins that are not plugins in `SHARED`.

    Args:
        kind: algorithm, task, modality, family or recipe.
        name: what a configuration says.

    Returns:
        The module, which exposes what the contract of its kind says.

    Example:
        `load("algorithm", "grpo").SUMMARY`
    """
    return importlib.import_module(find(kind, name))


def find(kind: PluginKind, name: str) -> str:
    """The import path of what `name` stands for; an unknown name raises UserError as `load` does.

    Nothing is imported: a family's module brings torch.

    Args:
        kind: algorithm, task, modality, family or recipe.
        name: what a configuration says.

    Returns:
        Such as `mmrl.algorithms.grpo`.
    """
    modules = available(kind)
    if name not in modules:
        near = difflib.get_close_matches(name, modules, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(sorted(modules))}"
        raise UserError(f"unknown {kind} '{name}': {hint}")
    return modules[name]


def available(kind: PluginKind) -> dict[str, str]:
    """List plugin names and their import paths without importing them.

    Args:
        kind: algorithm, task, modality, family or recipe.

    Returns:
        Import paths by name: ours, then those that other packages add, which go before.
    """
    package = importlib.import_module(PACKAGES[kind])
    modules = {
        info.name: f"{package.__name__}.{info.name}"
        for info in pkgutil.iter_modules(package.__path__)
        if not info.name.startswith("_") and info.name not in getattr(package, "SHARED", ())
    }
    return {**modules, **_entries(_GROUPS[kind], tuple(sys.path))}


@functools.cache
def _entries(group: str, path: tuple[str, ...]) -> dict[str, str]:
    """Entry points of the packages on a path; to read them all takes milliseconds."""
    return {entry.name: entry.value for entry in entry_points(group=group)}
