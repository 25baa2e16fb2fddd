"""Write docs/configuration.md from the configuration's own models.

    python tools/config_reference.py --write docs/configuration.md

Without --write the page is printed. A test keeps the page equal to the models.
"""

from __future__ import annotations

import argparse
import re
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from mmrl import plugins
from mmrl.config import RunConfig
from mmrl.scoring.judges.judge_config import JudgeConfig
from mmrl.train.reference_config import ReferenceConfig

ROOT = Path(__file__).resolve().parent.parent
_PAGE = re.compile(r"\bdocs/(\w+\.md)")

HEAD = """# Configuration

Written by `python tools/config_reference.py --write docs/configuration.md`; a test keeps it true.

A run is one YAML file. Every key can be overridden on the command line as `section.key=value`,
where the value is YAML; a source of several is named by its number (`data.0.limit=100`). An unknown
key is an error that names its nearest neighbour. `mmrl train CONFIG --print-config` shows the rest.
Options of an algorithm are in `mmrl algorithms NAME`, those of a task in `mmrl tasks NAME`.
"""


def page() -> str:
    """The whole page as Markdown."""
    pieces = [HEAD, *_section("The run", "", RunConfig)]
    pieces += _section("judges.NAME", "judges.NAME.", JudgeConfig)
    pieces += _section("reference", "reference.", ReferenceConfig)
    for kind in sorted(plugins.available("modality")):
        options = plugins.load("modality", kind).Options
        pieces += _section(f"media.{kind}", f"media.{kind}.", options)
    return "\n".join(pieces).rstrip() + "\n"


def _section(title: str, prefix: str, model: type[BaseModel]) -> Iterator[str]:
    """A table of a section's own keys, then the sections in it."""
    yield f"## {title}\n"
    said = (model.__doc__ or "").strip().splitlines()
    if said and said[0] != (BaseModel.__doc__ or "").strip().splitlines()[0]:
        yield f"{said[0]}\n"
    yield "| key | values | default | meaning |\n|---|---|---|---|"
    inner = {}
    for name, field in model.model_fields.items():
        section = section_of(field.annotation)
        if section is model:  # an ensemble's judges are judges
            section = None
        if section is not None:
            inner[name] = section
        yield _row(prefix + name, field, section)
    yield ""
    for name, section in inner.items():
        yield from _section(prefix + name, f"{prefix}{name}.", section)


def _row(key: str, field: FieldInfo, section: type[BaseModel] | None) -> str:
    values = f"[a section](#{key.replace('.', '')})" if section else _spelt(field.annotation, field)
    meaning = _PAGE.sub(_linked, (field.description or "").replace("|", "\\|"))
    return f"| `{key}` | {values} | {_default(field)} | {meaning} |"


def _linked(named: re.Match[str]) -> str:
    """A page that a description names, by its title and as a link."""
    title = (ROOT / named[0]).read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
    return f"[{title}]({named[1]})"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default_factory is not None or isinstance(field.default, BaseModel):
        return ""
    if field.default is PydanticUndefined or field.default is None:
        return "none"
    if field.default == "":
        return '`""`'
    if isinstance(field.default, tuple):
        return f"`{list(field.default)}`"
    return f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`"


def _spelt(annotation: Any, field: FieldInfo) -> str:
    """A type as a user would write its values."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        named = (str(v).lower() if isinstance(v, bool) else v for v in arguments)
        return ", ".join(f"`{value}`" for value in named)
    if origin in (typing.Union, types.UnionType):
        known = [a for a in arguments if a is not type(None)]
        return " or ".join(_spelt(a, field) for a in known)
    if origin is typing.Annotated:
        return _spelt(arguments[0], field)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "a mapping"
    if origin is tuple:
        return "a list"
    named = {
        int: "whole number",
        float: "number",
        str: "text",
        bool: "`true`, `false`",
        Path: "path",
        Any: "as in the run",
    }
    return named.get(annotation, "see there") + _bounds(field)


def _bounds(field: FieldInfo) -> str:
    signs = {"gt": "> ", "ge": ">= ", "lt": "< ", "le": "<= "}
    found = [
        f"{sign}{getattr(limit, name):g}"
        for limit in field.metadata
        for name, sign in signs.items()
        if getattr(limit, name, None) is not None
    ]
    return f" {', '.join(found)}" if found else ""


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The section that a field holds, also one of a list or an optional one."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (section_of(inner) for inner in typing.get_args(annotation))
    return next((section for section in found if section), None)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", type=Path)
    target = parser.parse_args().write
    if target:
        target.write_text(page(), encoding="utf-8")
    else:
        print(page(), end="")
