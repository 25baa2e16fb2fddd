"""A thinker that vLLM serves as part of its whole model: whose configuration, under whose names.

vLLM's classes for the Omni models read the whole model's configuration and weights and leave the
talker out; what is trained is the thinker alone, whatever its folder holds.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

SUFFIX = "_thinker"
PREFIX = "thinker."


def whole_configuration(settings: Any) -> Path | None:
    """A new folder with the whole model's config.json around a thinker's settings.

    None where `settings`, a transformers configuration, are no thinker's.
    """
    if not settings.model_type.endswith(SUFFIX):
        return None
    from transformers import CONFIG_MAPPING

    kind = CONFIG_MAPPING[settings.model_type.removesuffix(SUFFIX)]
    name = f"{kind.__name__.removesuffix('Config')}ForConditionalGeneration"
    whole = kind(thinker_config=settings.to_dict(), architectures=[name])
    folder = Path(tempfile.mkdtemp(prefix="mmrl-thinker-"))
    whole.save_pretrained(folder)
    return folder


def thinker_of(settings: Any) -> Any:
    """The thinker's configuration of a whole model's; any other as it is."""
    return getattr(settings, "thinker_config", settings)


def named(settings: Any, weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Weights of a thinker, of any shapes, under their names in a checkpoint of the model."""
    prefix = "" if thinker_of(settings) is settings else PREFIX
    return ((prefix + name.removeprefix(prefix), weight) for name, weight in weights)
