"""The files of configs/papers by their names: what each says of its paper, and its run."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmrl.config import RunConfig
from mmrl.errors import ConfigError
from mmrl.paper_config import PaperConfig, paper_of, run_sections, small_of
from mmrl.papers.small_form import small_values
from mmrl.validation import apply_override, read_values, validate

FOLDER = Path(__file__).with_name("files")
"""configs/papers, linked."""
MADE = "made/"
"""Where records are that small forms take in place of a task's own."""


@dataclass(frozen=True)
class PaperFile:
    """One file: the name it goes by here, what it says of its paper, and its sections."""

    id: str
    path: Path
    about: PaperConfig
    values: Mapping[str, Any]

    @property
    def runs(self) -> bool:
        """False for a system of which nothing is here: its file only says why."""
        return self.about.status != "nothing"

    def config(self) -> RunConfig:
        """The run as the paper has it."""
        return validate(RunConfig, run_sections(self.values, self.id), self.id)

    def small(self) -> dict[str, Any]:
        """The sections of its small form."""
        made = small_values(run_sections(self.values, self.id), small_of(self.values, self.id))
        return dict(_placed(made, self.path.parent))


def _placed(values: Any, folder: Path) -> Any:
    """Sections with what stands beside the papers' files (`made/...`) where it is."""
    if isinstance(values, dict):
        return {key: _placed(value, folder) for key, value in values.items()}
    if isinstance(values, list):
        return [_placed(value, folder) for value in values]
    if isinstance(values, str) and values.startswith(MADE):
        return str(folder.resolve() / values)
    return values


def read_paper(path: Path) -> PaperFile:
    """Read a file; raises ConfigError where it says nothing of a paper."""
    values = read_values(path)
    about = paper_of(values, path.name)
    if about is None:
        raise ConfigError(f"{path}: no section `paper`, which says what system it is of")
    return PaperFile(path.stem, path, about, values)


def all_papers() -> list[PaperFile]:
    """Every file, in the order of the names."""
    return [read_paper(path) for path in sorted(FOLDER.glob("*.yaml"))]


def find_papers(names: Sequence[str]) -> list[PaperFile]:
    """The files that go by these names, or all for none.

    A name is a file's, or one that authors gave a system. Raises ConfigError for an unknown name,
    with its nearest, and for one that several systems have, with their files.
    """
    papers = all_papers()
    return [_named(name, papers) for name in names] if names else papers


def _named(name: str, papers: Sequence[PaperFile]) -> PaperFile:
    for paper in papers:
        if name == paper.id:
            return paper
    found = [paper for paper in papers if name.casefold() in paper.about.names]
    if len(found) == 1:
        return found[0]
    if found:
        which = "; ".join(f"{p.id} ({p.about.title}, {p.about.source})" for p in found)
        raise ConfigError(f"{len(found)} systems are called '{name}': {which}")
    known = [paper.id for paper in papers]
    known += [name for paper in papers for name in (paper.about.name, *paper.about.also)]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    raise ConfigError(
        f"no paper '{name}': " + (f"did you mean '{near[0]}'?" if near else "see `mmrl papers`")
    )


def small_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The small form of a file, with overrides `a.b=c` over it."""
    values = read_paper(path).small()
    for override in overrides:
        apply_override(values, override)
    return validate(RunConfig, values, f"{path} (small)")
