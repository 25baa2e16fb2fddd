"""What a model family knows, and nothing else in the package does: how it takes media.

A module in `mmrl.policy.families` exposes `MODEL_TYPES` (transformers model types it serves) and
`build(model, processor, limits) -> Family`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from mmrl.types import EncodedMedium, Media, Prompt, Sample, Space


@dataclass(frozen=True)
class Limits:
    """Budgets a run sets: pixels of an image, tokens of an expanded prompt."""

    max_prompt_tokens: int
    min_pixels: int | None = None
    max_pixels: int | None = None


class Family(Protocol):
    """Placement of media among tokens, their positions, and the coordinate convention."""

    space: Space
    placeholder_ids: tuple[int, ...]
    """Tokens that stand for feature rows."""
    banned_ids: tuple[int, ...]
    """Placeholders and the markers around them: never sampled, no probability."""
    end_ids: tuple[int, ...]
    """Tokens that end a response; the first is the one that targets end with."""

    def encode_medium(self, media: Media) -> EncodedMedium:
        """Run the model's own processor on one medium; raises MediaError if it does not fit."""
        ...

    def encode(self, sample: Sample, media: Sequence[EncodedMedium]) -> Prompt:
        """Make both views of the prompt; raises MediaError if it is longer than the limit."""
        ...

    def towers(self) -> Sequence[nn.Module]:
        """The media encoders, for freezing and for counting their calls."""
        ...

    def features(self, media: Sequence[EncodedMedium]) -> list[Tensor]:
        """Run the towers once on these media: one [tokens, hidden] tensor each."""
        ...

    def media_inputs(
        self, media: Sequence[EncodedMedium], features: Sequence[Tensor]
    ) -> Mapping[str, Any]:
        """Keyword arguments that hand features, in prompt order, to the model's forward."""
        ...
