"""The API page: every function on it says what it takes, and has an example that runs."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docs.docs_pages import DOCS, ROOT

SLOW = {"train", "evaluate", "load_policy"}
"""They load a model."""
SELF_EVIDENT = 1
"""Arguments that a docstring's first sentence may leave unnamed."""


def functions() -> Iterator[Callable[..., Any]]:
    """The functions that the page lists, those of whole modules among them."""
    page = (DOCS / "api.md").read_text("utf-8")
    for name, options in re.findall(r"^\.\. automodule:: (\S+)\n((?: {3}.*\n)*)", page, re.M):
        module = importlib.import_module(name)
        named = re.search(r":members: ?(.*)", options)
        members = [word.strip() for word in named[1].split(",")] if named and named[1] else []
        for member in members or [n for n in vars(module) if not n.startswith("_")]:
            thing = getattr(module, member)
            if inspect.isfunction(thing) and (members or thing.__module__ == name):
                yield thing
    for path in re.findall(r"^\.\. autofunction:: (\S+)", page, re.M):
        module_name, _, member = path.rpartition(".")
        yield getattr(importlib.import_module(module_name), member)


FUNCTIONS = list(functions())
EXAMPLES = [
    pytest.param(f, id=f.__name__, marks=[pytest.mark.slow] if f.__name__ in SLOW else [])
    for f in FUNCTIONS
]


def test_the_page_lists_what_plug_ins_call() -> None:
    names = {f.__name__ for f in FUNCTIONS}
    assert {"media_source", "interleave", "task", "parse_integer", "scorable", "load"} <= names
    assert len(FUNCTIONS) >= 30


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_every_function_says_what_it_takes_and_shows_it(function: Callable[..., Any]) -> None:
    said = inspect.getdoc(function) or ""
    parameters = [p for p in inspect.signature(function).parameters if p not in ("self", "context")]
    if len(parameters) > SELF_EVIDENT:
        named = [p for p in parameters if re.search(rf"\b{p}\b", said)]
        assert named == parameters, f"without a word: {set(parameters) - set(named)}"
    assert doctest.DocTestParser().get_examples(said), "no example"


@pytest.mark.parametrize("function", EXAMPLES)
def test_examples_run(
    function: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(function, tmp_path, monkeypatch)


@pytest.mark.parametrize(
    "path", ["grammar.TagAnswer", "grammar.BoxedAnswer", "parsed.Parsed.then"], ids=str
)
def test_examples_of_grammars_run(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, *names = path.split(".")
    thing: Any = importlib.import_module(f"mmrl.rewards.{module}")
    for name in names:
        thing = getattr(thing, name)
    run(thing, tmp_path, monkeypatch)


def run(thing: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Carry out the examples of a docstring in a folder that has the configurations."""
    monkeypatch.chdir(folder)
    (folder / "configs").symlink_to(ROOT / "configs")
    said: list[str] = []
    names = dict(vars(inspect.getmodule(thing)))
    test = doctest.DocTestParser().get_doctest(
        inspect.getdoc(thing) or "", names, thing.__name__, None, None
    )
    assert test.examples
    assert doctest.DocTestRunner(verbose=False).run(test, out=said.append).failed == 0, "".join(
        said
    )
