"""JSON values against a schema and against a gold value, leaf by leaf.

A closed part of JSON Schema 2020-12 that every check of is linear: no `pattern` (a regular
expression over model text can take exponential time) and no remote references. A schema with
anything else is refused when it is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

_TYPES: Mapping[str, Callable[[Any], bool]] = {
    "object": lambda v: isinstance(v, dict),
    "array": lambda v: isinstance(v, list),
    "string": lambda v: isinstance(v, str),
    "boolean": lambda v: isinstance(v, bool),
    "null": lambda v: v is None,
    "number": lambda v: isinstance(v, int | float) and not isinstance(v, bool),
    "integer": lambda v: _TYPES["number"](v) and v == int(v),
}
_ANNOTATIONS = frozenset(
    ("title", "description", "default", "examples", "format", "$schema", "$id", "$comment",
     "$defs", "definitions")
)  # fmt: skip
_LIMITS: Mapping[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "minimum": ("number", lambda v, limit: v >= limit),
    "maximum": ("number", lambda v, limit: v <= limit),
    "exclusiveMinimum": ("number", lambda v, limit: v > limit),
    "exclusiveMaximum": ("number", lambda v, limit: v < limit),
    "minLength": ("string", lambda v, limit: len(v) >= limit),
    "maxLength": ("string", lambda v, limit: len(v) <= limit),
    "minItems": ("array", lambda v, limit: len(v) >= limit),
    "maxItems": ("array", lambda v, limit: len(v) <= limit),
    "minProperties": ("object", lambda v, limit: len(v) >= limit),
    "maxProperties": ("object", lambda v, limit: len(v) <= limit),
}
_SUBSCHEMAS = frozenset(("items", "additionalProperties", "not"))
_LISTS = frozenset(("anyOf", "oneOf", "allOf"))
_KNOWN = (
    _ANNOTATIONS | _SUBSCHEMAS | _LISTS | frozenset(_LIMITS)
    | frozenset(("type", "enum", "const", "properties", "required", "$ref"))
)  # fmt: skip
MAX_DEPTH = 16


def check_schema(schema: Any, depth: int = 0) -> None:
    """Raise ValueError at the first keyword, type or depth that `is_valid` does not know."""
    if isinstance(schema, bool):
        return
    if not isinstance(schema, dict) or depth > MAX_DEPTH:
        raise ValueError("a schema is an object or a boolean, nested at most 16 deep")
    unknown = sorted(set(schema) - _KNOWN)
    if unknown:
        raise ValueError(f"schema keywords that are not supported: {', '.join(unknown)}")
    for name in _type_names(schema):
        if name not in _TYPES:
            raise ValueError(f"unknown JSON type {name!r}")
    if "$ref" in schema and not str(schema["$ref"]).startswith("#"):
        raise ValueError(f"reference {schema['$ref']!r} leaves the schema")
    children = [schema[key] for key in _SUBSCHEMAS & schema.keys()]
    children += [child for key in _LISTS & schema.keys() for child in schema[key]]
    for key in ("properties", "$defs", "definitions"):
        children += list(schema.get(key, {}).values())
    for child in children:
        check_schema(child, depth + 1)


def is_valid(value: Any, schema: Any, root: Any = None, depth: int = 0) -> bool:
    """Whether a value obeys a schema that `check_schema` accepts; endless references do not."""
    root = schema if root is None else root
    if isinstance(schema, bool) or depth > 2 * MAX_DEPTH:
        return schema is True and depth <= 2 * MAX_DEPTH

    def valid(child: Any, part: Any = value) -> bool:
        return is_valid(part, child, root, depth + 1)

    if "$ref" in schema and not valid(_resolve(schema["$ref"], root)):
        return False
    names = _type_names(schema)
    if names and not any(_TYPES[name](value) for name in names):
        return False
    return (
        ("enum" not in schema or any(equal(value, option) for option in schema["enum"]))
        and ("const" not in schema or equal(value, schema["const"]))
        and all(_within(value, key, schema[key]) for key in _LIMITS.keys() & schema.keys())
        and all(valid(child) for child in schema.get("allOf", ()))
        and ("anyOf" not in schema or any(valid(child) for child in schema["anyOf"]))
        and ("oneOf" not in schema or sum(valid(child) for child in schema["oneOf"]) == 1)
        and ("not" not in schema or not valid(schema["not"]))
        and all(valid(child, part) for part, child in _members(value, schema))
        and (not isinstance(value, dict) or all(k in value for k in schema.get("required", ())))
    )


def equal(a: Any, b: Any) -> bool:
    """JSON equality: 1 equals 1.0, and neither equals true."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(equal, a, b))
    return type(a) is type(b) and a == b if isinstance(a, str) or isinstance(b, str) else a == b


def field_accuracy(value: Any, gold: Any) -> float:
    """Share of leaves that agree, over the larger number of leaves, so that extras cost.

    A leaf is a scalar or an empty container, named by its keys and positions.
    """
    ours, theirs = dict(_leaves(value)), dict(_leaves(gold))
    agreed = sum(path in ours and equal(ours[path], leaf) for path, leaf in theirs.items())
    return agreed / max(len(ours), len(theirs))


def _type_names(schema: Mapping[str, Any]) -> list[str]:
    names = schema.get("type", [])
    return [names] if isinstance(names, str) else list(names)


def _within(value: Any, key: str, limit: Any) -> bool:
    kind, holds = _LIMITS[key]
    return not _TYPES[kind](value) or holds(value, limit)


def _members(value: Any, schema: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    """Parts of a container with the schema that each must obey."""
    if isinstance(value, list) and "items" in schema:
        return [(item, schema["items"]) for item in value]
    if isinstance(value, dict):
        named, others = schema.get("properties", {}), schema.get("additionalProperties", True)
        return [(part, named.get(key, others)) for key, part in value.items()]
    return []


def _resolve(reference: str, root: Any) -> Any:
    """The subschema at `#/a/b`; a reference to nothing accepts nothing."""
    schema = root
    for step in reference.removeprefix("#").strip("/").split("/"):
        if step:
            if not isinstance(schema, dict) or step not in schema:
                return False
            schema = schema[step]
    return schema


def _leaves(
    value: Any, path: tuple[str | int, ...] = ()
) -> list[tuple[tuple[str | int, ...], Any]]:
    if isinstance(value, dict) and value:
        return [leaf for key in value for leaf in _leaves(value[key], (*path, key))]
    if isinstance(value, list) and value:
        return [leaf for i, item in enumerate(value) for leaf in _leaves(item, (*path, i))]
    return [(path, value)]
