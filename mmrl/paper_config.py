"""What the file of a paper's system says besides its run: the sections `paper` and `small`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from mmrl.errors import ConfigError
from mmrl.validation import Section, validate

PaperGroup = Literal["multimodal", "relative", "text", "preference"]
"""Systems that see or hear, relatives of GRPO, text tasks, preference and value methods."""

PaperModality = Literal["image", "screenshot", "video", "audio", "text"]

PaperStatus = Literal["works", "parts", "nothing"]
"""All that the paper claims runs; what `lacks` names does not; nothing of it is here."""


class PaperConfig(Section):
    """Which paper a file is of, what of it is here, and what is not."""

    name: str = Field(description="as the authors call it")
    also: tuple[str, ...] = Field((), description="other names, such as its method's")
    namesakes: tuple[str, ...] = Field(
        (), description="other methods of its name that are not here, with their source"
    )
    title: str = Field(description="of the paper")
    source: str = Field(description="such as arXiv 2503.12937")
    year: int = Field(gt=1990, description="of its first version")
    group: PaperGroup
    modality: tuple[PaperModality, ...] = Field(min_length=1)
    summary: str = Field(description="what is new in it, in a line")
    status: PaperStatus
    lacks: tuple[str, ...] = Field((), description="what is missing, and why")
    differs: tuple[str, ...] = Field((), description="otherwise than in the authors' code")
    not_published: tuple[str, ...] = Field(
        (), description="options of this file that are ours: nothing published was found"
    )
    needs: tuple[str, ...] = Field((), description="besides a GPU: judges, records, programs")
    evaluation: Mapping[str, Any] = Field(
        default_factory=dict, description="options of `mmrl eval` that its own numbers need"
    )
    code: str | None = Field(None, description="the authors' repository, owner/name on GitHub")

    @model_validator(mode="after")
    def _says_what_it_lacks(self) -> PaperConfig:
        if (self.status == "works") == bool(self.lacks):
            raise ValueError("paper.lacks names what is missing, unless the status is works")
        return self

    @property
    def names(self) -> frozenset[str]:
        """What it is called, without regard to case."""
        return frozenset(name.casefold() for name in (self.name, *self.also))


def run_sections(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The sections of a run, without `paper` and `small`, which are checked.

    A file with neither is given back as it is; one that holds no run raises ConfigError with what
    is missing.
    """
    about = paper_of(values, where)
    if about is not None and about.status == "nothing":
        raise ConfigError(f"{where}: {about.name} is not here: {'; '.join(about.lacks)}")
    small_of(values, where)
    return {key: value for key, value in values.items() if key not in ("paper", "small")}


def paper_of(values: Mapping[str, Any], where: str) -> PaperConfig | None:
    """The section `paper`, or None."""
    given = values.get("paper")
    return None if given is None else validate(PaperConfig, given, f"{where}: paper")


def small_of(values: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """The section `small`: what its small form has otherwise than the rule says."""
    given = values.get("small") or {}
    if not isinstance(given, dict):
        raise ConfigError(f"{where}: small holds sections of a run")
    return given
