"""What a model family knows, and nothing else in the package does: how it takes media.

A module in `mmrl.policy.families` exposes `DECLARATION` and
`build(model, processor, limits) -> Family`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import transformers
from torch import Tensor, nn

from mmrl.frame import Space
from mmrl.types import EncodedMedium, Ints, Media, MediaKind, Observation, Prompt, Sample

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Declaration:
    """What a family says of itself: listed by `mmrl families`, checked by the tests.

    `towers` are the names, inside the model, of the media encoders and what projects from them;
    `projectors` those of what projects from them alone, as part of a tower or beside it;
    `language` is that of the language layers. `lora_targets` are the linears of a language layer
    that adapters go to, `lora_parameters` the fused expert weights that need naming as such.
    `loader` is the transformers class that reads a checkpoint, `text_loader` the one that reads
    those of types without media, where the family serves them. `apart` are kinds of media that the
    towers take one at a time. `shared_prefix` False means that every response is trained and
    sampled with its own copy of the prompt.
    """

    model_types: tuple[str, ...]
    takes: tuple[MediaKind, ...]
    space: Space
    towers: tuple[str, ...]
    projectors: tuple[str, ...]
    language: str
    lora_targets: tuple[str, ...] = LINEAR
    lora_parameters: tuple[str, ...] = ()
    loader: str = "AutoModelForImageTextToText"
    text_loader: str = ""
    video_sound: bool = False
    apart: tuple[MediaKind, ...] = ()
    shared_prefix: bool = True
    vllm: tuple[MediaKind, ...] = ()
    notes: str = ""

    def loader_of(self, settings: Any) -> Any:
        """The transformers class that reads a checkpoint with these settings."""
        found = getattr(transformers, self.loader)
        own_code = self.loader in (getattr(settings, "auto_map", None) or {})
        if own_code or not self.text_loader or type(settings) in found._model_mapping:
            return found
        return getattr(transformers, self.text_loader)

    @property
    def lora_pattern(self) -> str:
        """A regular expression for the full names of the language layers' linears."""
        return (
            rf"{self.language.replace('.', chr(92) + '.')}\.\d+\..*({'|'.join(self.lora_targets)})"
        )


@dataclass(frozen=True)
class Limits:
    """Budgets a run sets: pixels of an image or video, tokens of an expanded prompt.

    A video's pixels are those of one frame or of all, as the family's own processor counts.
    """

    max_prompt_tokens: int
    min_pixels: int | None = None
    max_pixels: int | None = None
    min_video_pixels: int | None = None
    max_video_pixels: int | None = None


@dataclass(frozen=True)
class Reading:
    """Where a model reads a prompt, of its own forward and `generate`.

    `name` is the argument of the sequence that a response ends. `encoded`: an encoder reads the
    prompt, and that sequence is the response alone. `start` is the token that a decoder's sequence
    starts with, None for models without an encoder.
    """

    name: str = "input_ids"
    encoded: bool = False
    start: int | None = None

    def front(self, ids: Ints) -> Ints:
        """What stands in front of a response to a prompt of these ids [P], in its sequence."""
        if self.start is None:
            return ids
        first = np.array([self.start])
        if self.encoded:
            return first
        return ids if ids[0] == self.start else np.concatenate([first, ids])


READING = Reading()
"""Of a model without an encoder."""


@dataclass(frozen=True)
class EnvironmentTokens:
    """What stands between two turns of the model: ids [T], where they are, and their media.

    `positions` [axes, T]; `blocks` [T] numbered from 1, None without any; `media` in the order of
    the tokens.
    """

    ids: Ints
    positions: npt.NDArray[Any]
    blocks: Ints | None = None
    media: tuple[EncodedMedium, ...] = ()

    @property
    def features(self) -> int:
        """Feature rows that its media have."""
        return sum(medium.num_tokens for medium in self.media)


class Family(Protocol):
    """Placement of media among tokens, their positions, and the coordinate convention."""

    declaration: Declaration
    limits: Limits
    placeholder_ids: tuple[int, ...]
    """Tokens that stand for feature rows."""
    banned_ids: tuple[int, ...]
    """Placeholders and the markers around them: never sampled, no probability."""
    end_ids: tuple[int, ...]
    """Tokens that end a response; the first is the one that targets end with."""

    @property
    def space(self) -> Space:
        """The coordinate convention of the model's answers."""
        ...

    def encode_medium(self, media: Media) -> EncodedMedium:
        """Run the model's own processor on one medium; raises MediaError if it does not fit."""
        ...

    def encode(self, sample: Sample, media: Sequence[EncodedMedium]) -> Prompt:
        """Make both views of the prompt; raises MediaError if it is longer than the limit."""
        ...

    def trial(self) -> Prompt:
        """A short prompt for trying the model out, whatever the limits are."""
        ...

    def environment_tokens(
        self, before: Prompt, observation: Observation, media: Sequence[EncodedMedium] = ()
    ) -> EnvironmentTokens:
        """Make the tokens between two turns: the one that tells of it, and what opens the next.

        `before` ends with what the model wrote; the end of its turn is written once, by it or here.
        Nothing before changes: `media` are encoded as if they were alone in the conversation.
        """
        ...

    def towers(self) -> Sequence[nn.Module]:
        """The media encoders and projectors, encoders first, for counting their calls."""
        ...

    def tower_parameters(self) -> Sequence[nn.Parameter]:
        """Those of the media encoders, without what projects from them."""
        ...

    def projector_parameters(self) -> Sequence[nn.Parameter]:
        """Those of what projects from the media encoders: features depend on them, too."""
        ...

    def features(self, media: Sequence[EncodedMedium]) -> list[Tensor]:
        """Run the towers once on these media: one [tokens, width] tensor each."""
        ...

    def feeding(
        self, ids: Tensor, media: Sequence[EncodedMedium], features: Sequence[Tensor]
    ) -> AbstractContextManager[Mapping[str, Any]]:
        """Put features, in placeholder order, in the place of the flat tokens [N] during a forward.

        Gives the keyword arguments that the forward needs besides.
        """
        ...

    def plain_inputs(self, ids: Tensor, prompt: Prompt) -> Mapping[str, Tensor]:
        """What the model's own forward gets of rows [copies, L] of a prompt, besides their ids.

        Its media, one copy for each row, and what each token is. Asked for on the path without
        sharing only.
        """
        ...

    @property
    def reading(self) -> Reading:
        """Where the model reads a prompt, on that path."""
        ...

    @property
    def one_by_one(self) -> bool:
        """Copies of a prompt do not go through the model side by side, on that path."""
        ...
