"""The house as ARCHITECTURE.md says it is: contracts at the top, one name for one file."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from mmrl import plugins

PACKAGE = Path(__file__).parents[2] / "mmrl"
DOORS = {"api", "cli"}
CONTRACTS = {
    "alarm",
    "algorithm",
    "config",
    "data_config",
    "model_config",
    "errors",
    "frame",
    "objective",
    "paper_config",
    "plugins",
    "records",
    "rollout_config",
    "stage",
    "task",
    "types",
    "validation",
}
LINKED = ("tasks", "data_recipes")  # plug-ins: a folder or a file each, named by what they are


def modules() -> list[Path]:
    """Every module of the package but the plug-ins that stand outside of it."""
    found = sorted(PACKAGE.rglob("*.py"))
    return [p for p in found if p.relative_to(PACKAGE).parts[0] not in LINKED]


def test_only_contracts_and_doors_stand_at_the_top() -> None:
    assert {p.stem for p in PACKAGE.glob("*.py")} - {"__init__"} == CONTRACTS | DOORS


def test_a_file_name_says_which_file_it_is() -> None:
    places = defaultdict(list)
    for path in modules():
        places[path.stem].append(str(path.relative_to(PACKAGE)))
    places.pop("__init__")
    assert not {stem: found for stem, found in places.items() if len(found) > 1}


def test_every_room_says_what_it_is_for() -> None:
    rooms = {path.parent for path in modules()} - {PACKAGE}
    silent = [r for r in rooms if not (r / "__init__.py").read_text("utf-8").startswith('"""')]
    assert not silent


def test_every_room_is_in_the_architecture() -> None:
    text = (PACKAGE.parent / "ARCHITECTURE.md").read_text("utf-8")
    rooms = {p.name for p in PACKAGE.iterdir() if (p / "__init__.py").is_file()}
    assert not {room for room in rooms if f"`{room}`" not in text and f"`{room}/" not in text}


@pytest.mark.parametrize(
    ("kind", "exposed"),
    [
        ("algorithm", ("SUMMARY", "Params", "build")),
        ("task", ("Task",)),
        ("modality", ("Options", "decode")),
        ("family", ("DECLARATION", "build")),
        ("recipe", ("build",)),
    ],
)
def test_what_stands_among_plugins_is_one(
    kind: plugins.PluginKind, exposed: tuple[str, ...]
) -> None:
    for name in plugins.available(kind):
        module = plugins.load(kind, name)
        assert all(hasattr(module, each) for each in exposed), f"{kind} {name}"
