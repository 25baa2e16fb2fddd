"""What a reader takes in at a glance: sizes of files and functions, shapes of arrays in words."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

from tests.house.test_layout import PACKAGE, modules

LONGEST_FILE, LONGEST_FUNCTION = 400, 60
ARRAYS = {"Tensor", "Ints", "Floats", "Bools", "Pixels", "NDArray", "ndarray"}
SHAPE = re.compile(r"\[[^\]]+\]|\bscalar\b|\bshapes?\b")


@dataclass(frozen=True)
class Function:
    """A function or method, with the classes around it."""

    where: str
    node: ast.FunctionDef | ast.AsyncFunctionDef
    owners: tuple[ast.ClassDef, ...]

    @property
    def is_public(self) -> bool:
        return not any(n.name.startswith("_") for n in (self.node, *self.owners))

    @property
    def said(self) -> str:
        """Its docstring, and those of its classes."""
        return "\n".join(ast.get_docstring(n) or "" for n in (self.node, *self.owners))

    @property
    def has_arrays(self) -> bool:
        given = self.node.args
        arguments = (*given.posonlyargs, *given.args, *given.kwonlyargs)
        annotations = [a.annotation for a in arguments if a.annotation]
        annotations += [self.node.returns] if self.node.returns else []
        return any(ARRAYS & set(re.findall(r"\w+", ast.unparse(each))) for each in annotations)


def functions() -> list[Function]:
    return [
        found
        for path in modules()
        for found in _within(ast.parse(path.read_text("utf-8")), str(path.relative_to(PACKAGE)))
    ]


def _within(
    node: ast.AST, file: str, owners: tuple[ast.ClassDef, ...] = (), *, nested: bool = False
) -> Iterator[Function]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            yield from _within(child, file, (*owners, child), nested=nested)
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) and not nested:
            yield Function(f"{file}:{child.lineno} {child.name}", child, owners)


def test_files_are_one_subject() -> None:
    sizes = {str(p.relative_to(PACKAGE)): len(p.read_text("utf-8").splitlines()) for p in modules()}
    assert not {file: size for file, size in sizes.items() if size > LONGEST_FILE}


def test_functions_are_taken_in_at_a_glance() -> None:
    sizes = {f.where: (f.node.end_lineno or 0) - f.node.lineno + 1 for f in functions()}
    assert not {where: size for where, size in sizes.items() if size > LONGEST_FUNCTION}


def test_public_functions_of_arrays_say_their_shapes() -> None:
    """A method without words of its own carries out what another class says of that name."""
    public = [f for f in functions() if f.is_public and f.has_arrays]
    promised = {f.node.name for f in public if f.owners and SHAPE.search(f.said)}
    silent = [
        f.where
        for f in public
        if not SHAPE.search(f.said)
        and not (f.owners and not ast.get_docstring(f.node) and f.node.name in promised)
    ]
    assert len(public) > 200
    assert not silent
