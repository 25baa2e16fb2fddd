"""Values from outside -> a pydantic model; a mistake is one line that names the key."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from mmrl.errors import ConfigError

M = TypeVar("M", bound=BaseModel)


class Section(BaseModel):
    """Base of every section: immutable, unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def read_values(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Read the sections of a YAML file and apply `a.b=c` overrides to them (values are YAML)."""
    if not path.is_file():
        raise ConfigError(f"no config file at {path}")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML ({' '.join(str(error).split())})") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected sections, found {type(values).__name__}")
    for override in overrides:
        apply_override(values, override)
    return values


def apply_override(values: dict[str, Any], override: str) -> None:
    """Set what `a.b=c` names to the YAML value c; raises ConfigError where it cannot be set."""
    key, found, raw = override.partition("=")
    if not found:
        raise ConfigError(f"override '{override}': write it as section.key=value")
    *sections, last = key.split(".")
    node: Any = values
    for section in sections:
        if isinstance(node, list) and section.isdigit() and int(section) < len(node):
            node = node[int(section)]
        elif isinstance(node, dict):
            node = node.setdefault(section, {})
    if not isinstance(node, dict):
        raise ConfigError(f"override '{override}': {'.'.join(sections)} is not a section")
    try:
        node[last] = yaml.safe_load(raw)
    except yaml.YAMLError:
        raise ConfigError(f"override '{override}': the value is not YAML") from None


def validate(model: type[M], values: Any, where: str) -> M:
    """Build a pydantic model; the first error becomes one line with the nearest known key.

    Args:
        model: what the values are of, such as `RunConfig`.
        values: the keys and what they hold.
        where: what the line begins with, such as the file's name.

    Raises:
        ConfigError: that line.

    Example:
        >>> from mmrl.config import OptimizerConfig
        >>> validate(OptimizerConfig, {"learning_rat": 1e-5}, "my.yaml")
        Traceback (most recent call last):
        mmrl.errors.ConfigError: my.yaml: unknown key 'learning_rat': did you mean 'learning_rate'?
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{where}: {explain(error, model)}") from None


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Say the first validation error in one line; an unknown key names its nearest neighbour."""
    first = error.errors()[0]
    location = [str(part) for part in first["loc"]]
    name = ".".join(location)
    if first["type"] == "extra_forbidden":
        known = sorted(_keys_beside(model, first["loc"]))
        return f"unknown key '{name}': {nearest(location[-1], known, 'known keys')}"
    if first["type"] == "missing":
        return f"'{name}' is required"
    if first["type"] == "value_error":  # a validator's own words, which name what they are about
        return f"'{name}': {first['ctx']['error']}" if name else str(first["ctx"]["error"])
    return f"'{name}': {first['msg'].lower()} (got {first.get('input')!r:.80})"


def nearest(name: str, known: Sequence[str], what: str) -> str:
    """Ask whether the known name nearest to an unknown one was meant, or list all that are."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean '{near[0]}'?" if near else f"{what}: {', '.join(known)}"


def _keys_beside(model: type[BaseModel], location: Iterable[str | int]) -> set[str]:
    fields = model.model_fields
    for part in list(location)[:-1]:
        if isinstance(part, int) or part not in fields:
            continue
        inner = _section_of(fields[part].annotation)
        if inner is None:
            break
        fields = inner.model_fields
    return set(fields)


def _section_of(annotation: Any) -> type[BaseModel] | None:
    for candidate in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None
