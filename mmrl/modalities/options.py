"""Settings of a modality: declared as a section, filled in by a configuration or a reference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import Field, ValidationError

from mmrl.errors import ConfigError, MediaError
from mmrl.types import MediaRef
from mmrl.validation import Section, explain

Declared = TypeVar("Declared", bound="Options")


class Options(Section):
    """What every modality takes: whether a URL may be fetched, and how long reading may last."""

    allow_remote: bool = Field(False, description="fetch http(s) URLs")
    private_hosts: tuple[str, ...] = Field(
        (), description="hosts that URLs may name although their addresses are not public"
    )
    max_bytes: int = Field(1 << 30, gt=0, description="size limit of a file or download")
    timeout_seconds: float = Field(60.0, gt=0, description="deadline for fetching or decoding")


def of(ref: MediaRef, declared: type[Declared]) -> Declared:
    """The options of a reference; an unknown or impossible one raises MediaError."""
    try:
        return declared.model_validate(dict(ref.options))
    except ValidationError as error:
        raise MediaError(f"{ref.kind} options: {explain(error, declared)}") from None


def check(kind: str, values: Mapping[str, Any], declared: type[Options]) -> None:
    """Check a configuration's defaults for a modality; a mistake raises ConfigError."""
    try:
        declared.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(f"media.{kind}: {explain(error, declared)}") from None
