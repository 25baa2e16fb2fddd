"""The one table of objectives: what stands in this room's files, and in those of other packages."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from mmrl import plugins
from mmrl.objective import Objective


def _own() -> dict[str, Objective]:
    """What every file of this room lists; a name that two of them take is a mistake of ours."""
    found: dict[str, Objective] = {}
    for path in plugins.modules("mmrl.objectives").values():
        listed: Mapping[str, Objective] = importlib.import_module(path).OBJECTIVES
        assert not found.keys() & listed.keys(), f"{path} takes a name again"
        found |= listed
    return found


OBJECTIVES: Mapping[str, Objective] = plugins.Named("mmrl.objectives", _own(), Objective)
"""Objectives by the name a config uses, with their default options."""
