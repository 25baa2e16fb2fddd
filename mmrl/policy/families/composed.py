"""A family put together from parts: the processor's own expansion, a tower call, positions.

The model's processor runs once on each medium, alone, and says both what the tower gets and which
text stands for the medium; a prompt is its chat text with those texts in place, tokenized once.
That is what the processor does with the whole conversation, so the ids are the same.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import re
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from mmrl.errors import MediaError, PromptTooLong, UserError
from mmrl.frame import Frame, Space
from mmrl.modalities import sound
from mmrl.policy.families import chat
from mmrl.policy.families.splice import splice
from mmrl.policy.family import READING, Declaration, EnvironmentTokens, Limits, Reading
from mmrl.rewards.thoughts import opening_of
from mmrl.types import (
    EncodedMedium,
    Ints,
    Media,
    MediaKind,
    Observation,
    Prompt,
    Sample,
    Text,
)

Encoded = Sequence[EncodedMedium]
Tower = Callable[[Encoded], list[Tensor]]
Positions = Callable[[Ints, Encoded], npt.NDArray[Any]]

TOKEN_KINDS = ("mm_token_type_ids", "token_type_ids")
TEXT_KEYS = {"input_ids", "attention_mask", *TOKEN_KINDS}


@dataclass(frozen=True)
class Intake:
    """How media of one kind pass the processor and the tower.

    `placeholder` stands for one medium in a chat; `around` is the text without which the processor
    does not expand it. `arguments` are what the processor is called with for one medium. `tower`
    gives [tokens, width] for each of several media in one call; kinds with the same tower share
    it. `size` is the width and height that the model sees, where coordinates need it; `more` are
    tensors that the processor does not make.
    """

    placeholder: str
    arguments: Callable[[Media], dict[str, Any]]
    tower: Tower
    around: tuple[str, str] = ("", "")
    size: Callable[[Mapping[str, Tensor]], tuple[int, int]] | None = None
    more: Callable[[Media], Mapping[str, Tensor]] = lambda media: {}


@dataclass
class Composed:
    """A family bound to one model and its processor.

    `adapt` changes media that depend on what else is in their prompt; `positions` and `blocks`
    are those of an expanded prompt; `more_inputs` what a forward needs besides the splice.
    """

    model: Any
    processor: Any
    limits: Limits
    declaration: Declaration
    intakes: Mapping[MediaKind, Intake]
    placeholder_ids: tuple[int, ...]
    banned_ids: tuple[int, ...]
    positions: Positions = lambda ids, media: np.arange(len(ids))[None]
    blocks: Callable[[Ints], Ints | None] = lambda ids: None
    blocks_slide_only: bool = False
    one_by_one: bool = False
    reading: Reading = READING
    adapt: Callable[[Encoded], Encoded] = lambda media: media
    more_inputs: Callable[[Encoded, Sequence[Tensor]], Mapping[str, Any]] = lambda m, f: {}
    end_ids: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        tokenizer = self.processor.tokenizer
        self.end_ids = end_ids(self.model, tokenizer)
        self._named = [attrgetter(name)(self.model) for name in self.declaration.towers]
        self._projectors = [attrgetter(name)(self.model) for name in self.declaration.projectors]
        self._escaped = dict.fromkeys(
            [
                *tokenizer.all_special_tokens,
                *(intake.placeholder for intake in self.intakes.values()),
                *tokenizer.convert_ids_to_tokens(list(self.banned_ids)),
            ]
        )
        self._here = threading.local()
        self._builder = threading.get_ident()
        self._hidden: int = self.model.config.get_text_config().hidden_size

    @property
    def space(self) -> Space:
        """The coordinate convention of the family's answers."""
        return self.declaration.space

    def encode_medium(self, media: Media) -> EncodedMedium:
        """Run the processor on one medium; `tensors` are what it makes for the tower."""
        intake = self.intakes.get(media.kind)
        if intake is None:
            raise MediaError(f"this model family does not take {media.kind}")
        before, after = intake.around
        try:
            out = self._own_processor()(
                text=[before + intake.placeholder + after],
                return_tensors="pt",
                add_special_tokens=False,
                **intake.arguments(media),
            )
        # Aspect ratios, sounds under a window's length.
        except (ArithmeticError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise MediaError(f"{media.kind}: {reason}") from None
        ids = out["input_ids"][0]
        num_tokens = int(np.isin(ids.numpy(), self.placeholder_ids).sum())
        if not num_tokens:
            raise MediaError(f"{media.kind} is too short: the model has no token for it")
        text: str = self.processor.tokenizer.decode(ids, skip_special_tokens=False)
        tensors = {
            key: value
            for key, value in out.items()
            if key not in TEXT_KEYS and isinstance(value, Tensor)
        }
        size = intake.size(tensors) if intake.size else media.frame.source_size
        return EncodedMedium(
            kind=media.kind,
            hash=media.hash,
            tensors={**tensors, **intake.more(media)},
            num_tokens=num_tokens,
            frame=dataclasses.replace(media.frame, processed_size=size),
            expansion=text.removeprefix(before).removesuffix(after),
        )

    def _own_processor(self) -> Any:
        """This thread's processor: a fast tokenizer must not be used by two at a time."""
        if threading.get_ident() == self._builder:
            return self.processor
        if not hasattr(self._here, "processor"):
            self._here.processor = copy.deepcopy(self.processor)
        return self._here.processor

    def encode(self, sample: Sample, media: Encoded) -> Prompt:
        """Render the chat template, expand placeholders, compute positions."""
        media = self.adapt(media)
        text = self.chat_text(sample)
        tokenizer = self.processor.tokenizer
        expanded, order = self._expand(text, media)
        compact: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        ids = np.array(tokenizer(expanded, add_special_tokens=False)["input_ids"], dtype=np.int64)
        if len(ids) > self.limits.max_prompt_tokens:
            raise PromptTooLong(len(ids), self.limits.max_prompt_tokens)
        positions = self.positions(ids, [media[i] for i in order])
        return Prompt(
            sample=sample,
            compact_ids=tuple(compact),
            ids=ids,
            positions=positions,
            next_position=(positions.max() + 1).item(),
            media=tuple(media),
            space=self.space,
            blocks=self.blocks(ids),
            blocks_slide_only=self.blocks_slide_only,
            order=tuple(order),
            opening=opening_of(text),
        )

    def trial(self) -> Prompt:
        """A few words."""
        return self.unlimited().encode(Sample("s", "trial", (Text("A"),), gold=None), [])

    def unlimited(self) -> Self:
        """The same family without a limit on prompts."""
        return dataclasses.replace(self, limits=Limits(sys.maxsize))

    def chat_text(self, sample: Sample) -> str:
        """Render the chat template, a placeholder in the place of each medium."""
        return chat.rendered(self.processor, sample, list(self._escaped))

    def environment_tokens(
        self, before: Prompt, observation: Observation, media: Encoded = ()
    ) -> EnvironmentTokens:
        """Render the turn by the chat template, less its end of the turn before if that is there.

        Another end, such as that of the text, does not close a turn: the template's own follows.
        """
        if any(medium.kind not in self.intakes for medium in media):
            raise UserError(
                f"a model of type '{self.model.config.model_type}' takes media in the first turn "
                "only: take a model with a family of its own (`mmrl families`)"
            )
        processor = self._own_processor()
        between = chat.turn_after(processor, observation, list(self._escaped))
        expanded, order = self._expand(between, media)
        found: list[int] = processor.tokenizer(expanded, add_special_tokens=False)["input_ids"]
        closed = found[0] in self.end_ids and found[0] == before.ids[-1]
        ids = np.array(found[1:] if closed else found, dtype=np.int64)
        placed = tuple(media[i] for i in order)
        positions = self.positions(ids, placed) + before.next_position
        return EnvironmentTokens(ids, positions, self.blocks(ids), placed)

    def towers(self) -> Sequence[nn.Module]:
        return [part for part in self._named if isinstance(part, nn.Module)]

    def tower_parameters(self) -> Sequence[nn.Parameter]:
        projecting = set(map(id, self.projector_parameters()))
        return [p for p in _parameters(self._named) if id(p) not in projecting]

    def projector_parameters(self) -> Sequence[nn.Parameter]:
        return list(_parameters(self._projectors))

    def features(self, media: Encoded) -> list[Tensor]:
        """One call for each distinct tower among the media's kinds: [tokens, width] a medium."""
        groups: dict[Tower, list[int]] = {}
        for i, medium in enumerate(media):
            groups.setdefault(self.intakes[medium.kind].tower, []).append(i)
        found: dict[int, Tensor] = {}
        for tower, members in groups.items():
            outputs = tower([media[i] for i in members])
            found |= dict(zip(members, outputs, strict=True))
        return [found[i] for i in range(len(media))]

    @contextmanager
    def feeding(
        self, ids: Tensor, media: Encoded, features: Sequence[Tensor]
    ) -> Iterator[Mapping[str, Any]]:
        if not media:
            yield {}
            return
        wanted = torch.tensor(self.placeholder_ids, device=ids.device)
        places = torch.isin(ids, wanted).nonzero()[:, 0]
        rows = torch.cat([f[:, : self._hidden] for f in features])
        assert len(places) == len(rows), f"{len(places)} placeholders for {len(rows)} feature rows"
        with splice(self.model.get_input_embeddings(), places, rows):
            yield self.more_inputs(media, features)

    def plain_inputs(self, ids: Tensor, prompt: Prompt) -> Mapping[str, Tensor]:
        raise AssertionError("rows of this family share their prompt")

    def _expand(self, text: str, media: Encoded) -> tuple[str, list[int]]:
        """Put expansions in place; also which medium stands at each place, in the text's order."""
        waiting: dict[str, deque[int]] = {}
        for intake in self.intakes.values():
            waiting.setdefault(intake.placeholder, deque())
        for i, medium in enumerate(media):
            waiting[self.intakes[medium.kind].placeholder].append(i)
        order: list[int] = []

        def expansion(found: re.Match[str]) -> str:
            queue = waiting[found[0]]
            if not queue:
                raise MediaError("more media placeholders than media in the prompt")
            order.append(queue.popleft())
            return media[order[-1]].expansion

        expanded = re.sub("|".join(map(re.escape, waiting)), expansion, text)
        left = sum(map(len, waiting.values()))
        if left:
            raise MediaError(f"{left} media without a placeholder in the chat template")
        return expanded, order


def _parameters(parts: Sequence[Any]) -> Iterator[nn.Parameter]:
    """Parameters of modules and parameters that stand alone."""
    for part in parts:
        if isinstance(part, nn.Module):
            yield from part.parameters()
        elif isinstance(part, nn.Parameter):
            yield part


def end_ids(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """Tokens that end a response: the tokenizer's, then those that generation is set to."""
    configured = model.generation_config.eos_token_id
    listed = configured if isinstance(configured, list) else [configured]
    ids = [i for i in (tokenizer.eos_token_id, *listed) if i is not None]
    return tuple(dict.fromkeys(ids))


def token_ids(processor: Any, *tokens: str) -> tuple[int, ...]:
    """Ids of those of the tokens that the vocabulary has."""
    vocabulary = processor.tokenizer.get_vocab()
    return tuple(vocabulary[token] for token in tokens if token in vocabulary)


def images(media: Media) -> dict[str, Any]:
    """Processor arguments for one image."""
    return {"images": [Image.fromarray(media.array)]}


TICKS = 1000
"""Of the clock, a second, by which frames are numbered whose rate varies."""
PUNCTUAL_SECONDS = 0.01


def is_even(frame: Frame) -> bool:
    """Whether a clip's frame numbers over its rate are the times at which they are shown."""
    return all(
        abs(second - index / frame.fps) <= PUNCTUAL_SECONDS
        for second, index in zip(frame.seconds, frame.indices, strict=True)
    )


def clocked(frame: Frame) -> tuple[list[int], float, int]:
    """Numbers of a clip's frames, their rate, and how many the clip lasts.

    Processors say `number / rate` of a frame. Where the rate varies that is not when it is shown:
    there frames are numbered by a clock.
    """
    indices = list(frame.indices)
    if is_even(frame):
        return indices, frame.fps, max(indices[-1] - indices[0] + 1, 1)
    first, last = frame.seconds[0], frame.seconds[-1]
    # The last is shown about as long as the others.
    lasts = (last - first) * len(indices) / max(len(indices) - 1, 1) or 1 / frame.fps
    numbers = [round(second * TICKS) for second in frame.seconds]
    return numbers, float(TICKS), max(round(lasts * TICKS), 1)


def videos(media: Media, settings: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Processor arguments for one clip whose frames are chosen already."""
    height, width = media.array.shape[1:3]
    indices, rate, total = clocked(media.frame)
    metadata = {
        "total_num_frames": total,
        "fps": rate,
        "width": width,
        "height": height,
        "duration": total / rate,
        "video_backend": media.frame.reader,
        "frames_indices": indices,
    }
    return {
        "videos": [media.array],
        "videos_kwargs": {
            "video_metadata": [metadata],
            "do_sample_frames": False,
            **(settings or {}),
        },
    }


def audio(media: Media, rate: int, max_seconds: float = math.inf) -> dict[str, Any]:
    """Processor arguments for a sound, or a clip's own, at its feature extractor's rate.

    Raises MediaError above `max_seconds`, where the extractor would cut the sound and not say so.
    """
    samples = media.array if media.track is None else media.track
    seconds = len(samples) / media.rate
    if seconds > max_seconds:
        hint = "" if media.kind == "video" else ", or set max_seconds and too_long: cut"
        raise MediaError(
            f"audio of {seconds:g} s: this family hears {max_seconds:g} s, give a segment{hint}"
        )
    return {"audio": [sound.resample(samples, media.rate, rate)], "sampling_rate": rate}


def stacked(media: Encoded, key: str, device: torch.device) -> Tensor:
    """A tensor [n, ...] of every medium, one after the other along the first axis."""
    return torch.cat([medium.tensors[key] for medium in media]).to(device)


def split(rows: Tensor | Sequence[Tensor], media: Encoded) -> list[Tensor]:
    """Tower output, in media order however it is grouped, as [tokens, width] for each medium."""
    flat = rows if isinstance(rows, Tensor) else torch.cat([r.flatten(0, -2) for r in rows])
    return list(flat.flatten(0, -2).split([medium.num_tokens for medium in media]))


def runs(ids: Ints, members: Sequence[int]) -> Ints | None:
    """Number the runs of tokens in `members` from 1, 0 elsewhere [L]; None without any."""
    inside = np.isin(ids, members)
    if not inside.any():
        return None
    starts = inside & ~np.concatenate([[False], inside[:-1]])
    numbers: Ints = np.where(inside, np.cumsum(starts), 0)
    return numbers
