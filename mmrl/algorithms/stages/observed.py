"""Media of an episode's later turns as JSON, for whatever keeps responses beyond their step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from mmrl.corpus.references import part_of, part_values
from mmrl.errors import UserError
from mmrl.frame import Frame
from mmrl.types import EncodedMedium, MediaRef, Observed


def observed_values(observed: Observed | None) -> dict[str, Any] | None:
    """Plain data that `observed_of` reads back; encoded media are in it, in base64.

    Raises UserError for what another process was shown, whose media are there alone.
    """
    if observed is None:
        return None
    if any(medium.source is None for medium in observed.media):
        raise UserError(
            "an episode that is kept for later steps needs what it was shown, which in a run of "
            "several processes one of them has: start one, or take an algorithm that keeps none, "
            "with rollout.max_staleness=0"
        )
    return {
        "positions": observed.positions.tolist(),
        "blocks": None if observed.blocks is None else observed.blocks.tolist(),
        "media": [_medium_values(medium) for medium in observed.media],
        "turns": list(observed.turns),
    }


def observed_of(values: Mapping[str, Any] | None) -> Observed | None:
    """The media and places of what `observed_values` made."""
    if values is None:
        return None
    blocks = values["blocks"]
    return Observed(
        np.array(values["positions"]),
        None if blocks is None else np.array(blocks, dtype=np.int64),
        tuple(map(_medium, values["media"])),
        tuple(values["turns"]),
    )


def _medium_values(medium: EncodedMedium) -> dict[str, Any]:
    return {
        "kind": medium.kind,
        "hash": medium.hash,
        "num_tokens": medium.num_tokens,
        "frame": asdict(medium.frame),
        "expansion": medium.expansion,
        "source": None if medium.source is None else part_values(medium.source),
    }


def _medium(values: Mapping[str, Any]) -> EncodedMedium:
    source = None if values["source"] is None else part_of(values["source"])
    assert source is None or isinstance(source, MediaRef)
    return EncodedMedium(
        **{**values, "tensors": {}, "frame": Frame.read(values["frame"]), "source": source}
    )
