"""The site: `make docs` builds it with Sphinx, MyST and Furo, without a network."""

from __future__ import annotations

import re
import typing
from typing import Any

import mmrl
import mmrl.stage
import mmrl.types

project = "mmrl"
author = "the mmrl authors"
copyright = "the mmrl authors, Apache-2.0"
release = version = mmrl.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
myst_heading_anchors = 4
# Docstrings are written for readers of the code: a word in single backticks is code.
default_role = "literal"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
add_module_names = False
napoleon_google_docstring = True
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = f"mmrl {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_theme_options = {"top_of_page_buttons": []}

_OUTSIDE = re.compile(r"(?<!!)\[([^\]]+)\]\(\.\./([^)\s]+)\)")
"""A link to a file of the repository that is no page."""


def _name_files(app: Any, page: str, source: list[str]) -> None:
    """Write a link that leaves the site as its words and the file's path."""
    source[0] = _OUTSIDE.sub(_words_and_path, source[0])


def _words_and_path(link: re.Match[str]) -> str:
    words, path = link.groups()
    return f"`{path}`" if words.strip("`") in path else f"{words} (`{path}`)"


_AS_WRITTEN: dict[str, list[str]] = {}


def _keep(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Remember what is said of a value: Napoleon takes words in front of a colon for its type."""
    if what in ("attribute", "data", "property"):
        _AS_WRITTEN[name] = list(lines)


def _indented_is_code(
    app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]
) -> None:
    """Show the indented examples of docstrings as code, and keep the backslashes of words in it."""
    lines[:] = [_BACKSLASHED.sub(r"``\1``", line) for line in _AS_WRITTEN.pop(name, lines)]
    for number in range(len(lines) - 1, 0, -1):
        before, line = lines[number - 1], lines[number]
        if line.startswith("    ") and not before.strip() and not _in_section(lines, number):
            lines[number - 1 : number] = ["", ".. code-block:: text", ""]


def _in_section(lines: list[str], number: int) -> bool:
    """Whether the last line that is not indented above a line opens a section or a block."""
    above = [line for line in lines[:number] if line.strip() and not line.startswith("    ")]
    return bool(above) and (above[-1].startswith((":", "..")) or above[-1].endswith("::"))


_CODE = re.compile(r'(?<=<span class="pre">)[^<]+(?=</span>)')
_JOINT = re.compile(r"(?<=\w)([_/=]|::|\.(?!(?:py|json|jsonl|yaml|md|\d)\b|\d))(?=\w)")
_BACKSLASHED = re.compile(r"(?<!`)`([^`]*\\[^`]*)`(?!`)")


def _mark_joints(app: Any, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
    """Let long names in a text break behind a point, a slash, an underscore, as on a phone."""
    if "body" in context:
        context["body"] = _CODE.sub(lambda m: _JOINT.sub(r"\1<wbr>", m[0]), context["body"])


_SHORT = (
    (re.compile(r"~?\b(?:[a-z_]\w*\.)+(?=[A-Za-z_])"), ""),
    (re.compile(r"ndarray\[tuple\[Any, \.\.\.\], dtype\[float64\]\]"), "Floats"),
    (re.compile(r"ndarray\[tuple\[Any, \.\.\.\], dtype\[int64\]\]"), "Ints"),
    (re.compile(r"ndarray\[tuple\[Any, \.\.\.\], dtype\[bool\]\]"), "Bools"),
    (re.compile(r"ndarray\[tuple\[Any, \.\.\.\], dtype\[Any\]\]"), "Array"),
    (re.compile(r"= (?:<factory>|<function \w+>)"), "= ..."),
    (re.compile(r"Annotated\[(\w+), FieldInfo\(.*?\)\](?= ?[|=,])"), r"\1"),
)
"""How long types are written; the names are those of `mmrl.types`."""


def _shorten(
    app: Any, what: str, name: str, thing: Any, options: Any, signature: str, returned: str
) -> tuple[str | None, str | None]:
    """Write a signature as its source does: aliases by name, modules left out."""
    return _short(signature), _short(returned)


def _short(text: str | None) -> str | None:
    for pattern, short in (*_ALIASES.items(), *_SHORT) if text else ():
        text = pattern.sub(short, text)
    return text


def _aliases() -> dict[re.Pattern[str], str]:
    """The closed sets of words in `mmrl.types` and `mmrl.stage`, by what they unfold to."""
    closed = {
        name: value
        for module in (mmrl.types, mmrl.stage)
        for name, value in vars(module).items()
        if typing.get_origin(value) is typing.Literal
    }
    spelled = {name: ", ".join(map(repr, typing.get_args(value))) for name, value in closed.items()}
    return {
        re.compile(rf"(?:~typing\.)?Literal\[{re.escape(words)}\]"): name
        for name, words in spelled.items()
    }


_ALIASES = _aliases()


def setup(app: Any) -> None:
    app.connect("html-page-context", _mark_joints)
    app.connect("autodoc-process-signature", _shorten)
    app.connect("source-read", _name_files)
    app.connect("autodoc-process-docstring", _keep, priority=100)
    app.connect("autodoc-process-docstring", _indented_is_code, priority=900)
