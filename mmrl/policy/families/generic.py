"""Any other model of pictures, video, sound or text: all that is needed is found by looking.

A prompt's media go through the model's own processor together, and the model runs its own towers on
what comes out. Whether rows may share a prompt is settled when the model is loaded: by what is
known of its kinds of layer, and by trying (`generic_sharing`). Where they may not, every response
is trained and sampled with its own copy of the prompt, and the reason is said.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mmrl.errors import MediaError, PromptTooLong, UserError, one_line
from mmrl.modalities import sound
from mmrl.policy import attention, recurrent_layers
from mmrl.policy.families import (
    generic_media,
    generic_noise,
    generic_sharing,
    generic_tensors,
    generic_tokens,
    generic_towers,
)
from mmrl.policy.families.composed import Composed, Encoded
from mmrl.policy.families.generic_media import PARTS, TROUBLE
from mmrl.policy.families.generic_probe import Shape, shape_of
from mmrl.policy.families.generic_tensors import Join
from mmrl.policy.family import Declaration, Family, Limits
from mmrl.types import EncodedMedium, Ints, Media, MediaKind, Prompt, Sample

DECLARATION = Declaration(
    model_types=(),
    takes=("image", "screenshot", "video", "audio"),
    space="unit",
    towers=(),
    projectors=(),
    language=r"model.language_model.layers",
    loader="AutoModelForMultimodalLM",
    text_loader="AutoModelForCausalLM",
    shared_prefix=False,
    notes="any other type of AutoModelForMultimodalLM, as far as its own processor goes; prompts "
    "are shared where a check on loading finds the same numbers",
)

TEXT_KEYS = ("input_ids", "attention_mask", "labels")
Asked = tuple[Sequence[Media], str, int]
"""Media, words beside them, and how many copies of the prompt."""


def build(model: Any, processor: Any, limits: Limits) -> Family:
    """Bind the family to a loaded model and its processor."""
    banned = tuple(sorted(generic_tokens.named(model, processor)))
    family = Generic(model, processor, limits, DECLARATION, {}, (), banned)
    family.look()
    generic_sharing.settle(family)
    return family


@dataclass
class Generic(Composed):
    """A family that hands the model what its processor makes of a prompt as a whole.

    `kinds` are, for each input that says of every token what it is, the ids for which that is not
    0. `together` and `copied` say how tensors of the prompts in one row, and of copies of one
    prompt, stand one after the other. `nested`: the processor takes pictures in a list for each
    text. `seen_ids` are the placeholders of pictures and clips; `answers_are` what the tokens of a
    response are by `token_type_ids`. `places` are the inputs that differ between equal tokens, and
    `unmarked` the kinds of media that no token stands for. `not_taken` are the kinds of media in
    prompts on which the forward fails, with what it says. `form` says which tokens see each other
    both ways.
    """

    kinds: dict[str, dict[int, int]] = field(default_factory=dict)
    together: dict[str, Join] = field(default_factory=dict)
    copied: dict[str, Join] = field(default_factory=dict)
    nested: bool = True
    seen_ids: tuple[int, ...] = ()
    answers_are: int = 0
    places: list[str] = field(default_factory=list)
    unmarked: tuple[MediaKind, ...] = ()
    not_taken: dict[Shape, str] = field(default_factory=dict)
    form: generic_sharing.Form = generic_sharing.CAUSAL

    def __post_init__(self) -> None:
        super().__post_init__()
        self._escaped |= dict.fromkeys(generic_tokens.texts(self.processor))
        self._escaped.pop(None, None)  # an id without a token
        self._taken = inspect.signature(type(self.model).forward).parameters.keys()
        self.reading = generic_tokens.reading(self.model)
        self._window = getattr(self.model.config.get_text_config(), "sliding_window", None)

    @property
    def takes(self) -> tuple[MediaKind, ...]:
        """The kinds of media that this model takes."""
        return self.declaration.takes

    def look(self) -> None:
        """Find out what the model takes; raises UserError where its processor fails on all."""
        found: dict[MediaKind, int | None] = {}
        failed: dict[MediaKind, str] = {}
        for kind, parts in PARTS.items():
            if any(getattr(self.processor, part, None) is not None for part in parts):
                try:
                    found[kind] = self._placeholder(kind)
                except TROUBLE as error:
                    failed[kind] = one_line(error)
        if failed and not found:
            kind, why = next(iter(failed.items()))
            raise UserError(
                f"the generic family does not serve {type(self.model).__name__}: its processor "
                f"fails on a trial {kind}: {why}"
            )
        takes = [kind for kind in PARTS if kind in found]
        for one in takes:
            self._learn_joins(one)
        if "image" in found:
            takes.insert(1, "screenshot")
        marked = {kind: i for kind, i in found.items() if i is not None}
        self.unmarked = tuple(kind for kind in found if kind not in marked)
        self.placeholder_ids = tuple(dict.fromkeys(marked.values()))
        self.seen_ids = tuple(i for kind, i in marked.items() if kind != "audio")
        self.declaration = dataclasses.replace(self.declaration, takes=tuple(takes))

    def _placeholder(self, kind: MediaKind) -> int | None:
        """The id that stands for features of a kind: of what a medium adds, the most frequent.

        It is banned, and so is all else that a medium adds and that is no word. None where features
        go to the model beside its text.
        """
        bare = self.processor.tokenizer(self.chat_text(generic_media.asking(())))["input_ids"]
        media = (generic_media.trial(kind, 0),)
        try:
            whole = self._run(self.chat_text(generic_media.asking(media)), media)
        except TROUBLE:
            self.nested = False
            whole = self._run(self.chat_text(generic_media.asking(media)), media)
        ids = whole["input_ids"].numpy()
        added, counts = np.unique(ids[~np.isin(ids, bare)], return_counts=True)
        if not len(added):
            if self._tensors(whole):
                return None
            raise ValueError("the chat template has no place for it")
        tokens = self.processor.tokenizer.added_tokens_decoder
        placeholder = int(max(zip(counts, np.isin(added, list(tokens)), added, strict=True))[2])
        marks = {i for i in added.tolist() if i in tokens and tokens[i].special}
        banned = {*self.banned_ids, *marks, placeholder} - set(self.end_ids)
        self.banned_ids = tuple(sorted(banned))
        marks = {*marks, placeholder}
        self._escaped |= dict.fromkeys(self.processor.tokenizer.convert_ids_to_tokens(list(marks)))
        return placeholder

    def _learn_joins(self, kind: MediaKind) -> None:
        """How the processor puts media together, and what it says of every place."""
        media = (generic_media.trial(kind, 0),)
        alone = self._outputs([(media, "b", 1), (media, "Is it so? " * 3, 1)])
        found = generic_tensors.by_place(*alone) if alone else []
        self.places += [key for key in found if key not in self.places]
        together, copied = generic_tensors.learned(self, kind)
        self.together |= together
        self.copied |= copied

    def made(self, asked: Sequence[Asked]) -> list[dict[str, Tensor]]:
        """Tensors [n, ...] for towers, of media, words and copies; none where any fails."""
        return [self._tensors(out) for out in self._outputs(asked)]

    def _outputs(self, asked: Sequence[Asked]) -> list[dict[str, Any]]:
        """What the processor makes of media, words and copies; nothing where it fails on any."""
        try:
            return [
                self._run(self.chat_text(generic_media.asking(media, words)), media, copies)
                for media, words, copies in asked
            ]
        except TROUBLE:
            return []

    def _run(self, text: str, media: Sequence[Media], copies: int = 1) -> dict[str, Any]:
        """What the processor makes of a chat and its media."""
        out = generic_media.processed(self._own_processor(), text, media, self.nested, copies)
        ids = out["input_ids"]
        key = "mm_token_type_ids"
        if key in self._taken and key not in out and hasattr(self.processor, f"create_{key}"):
            out[key] = torch.tensor(self.processor.create_mm_token_type_ids(ids.tolist()))
        return out

    def _tensors(self, out: Mapping[str, Any]) -> dict[str, Tensor]:
        """What the towers get of the processor's output."""
        shape = out["input_ids"].shape
        return {
            key: value
            for key, value in out.items()
            if key in self._taken and key not in TEXT_KEYS
            if isinstance(value, Tensor) and (value.shape != shape or key in self.places)
        }

    def encode_medium(self, media: Media) -> EncodedMedium:
        """Keep a medium as it is, with the tokens that it fills where it is alone."""
        if not self.takes:
            raise UserError(
                f"a model of type '{self.model.config.model_type}' has no encoder of pictures or "
                "sound, and the data have some: take a vision-language or audio model"
            )
        if media.kind not in self.takes:
            raise MediaError(f"this model does not take {media.kind}")
        try:
            out = self._run(self.chat_text(generic_media.asking((media,))), (media,))
        except TROUBLE as error:
            raise MediaError(f"{media.kind}: {one_line(error)}") from None
        num_tokens = self._features_in(out["input_ids"].numpy())
        if not num_tokens and media.kind not in self.unmarked:
            raise MediaError(f"{media.kind} is too short: the model has no token for it")
        frame = dataclasses.replace(media.frame, processed_size=media.frame.source_size)
        raw, rate = media.array, media.rate
        if media.kind == "audio":
            rate = generic_media.rate_of(self.processor)
            raw = sound.resample(raw, media.rate, rate)
        tensors = {generic_media.RAW: torch.tensor(raw), "rate": torch.tensor(rate)}
        return EncodedMedium(media.kind, media.hash, tensors, num_tokens, frame)

    def encode(self, sample: Sample, media: Encoded) -> Prompt:
        """Run the processor on the whole prompt; the first medium carries what it makes of all."""
        shape = shape_of(media)
        if shape in self.not_taken:
            kinds = " and ".join(sorted(shape)) or "text alone"
            raise MediaError(f"this model takes no prompt of {kinds}: {self.not_taken[shape]}")
        text = self.chat_text(sample)
        compact: list[int] = self.processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        try:
            out = self._run(text, [generic_media.decoded(medium) for medium in media])
        except TROUBLE as error:
            raise MediaError(f"the processor fails on the prompt: {one_line(error)}") from None
        ids: Ints = out["input_ids"][0].numpy().astype(np.int64)
        if len(ids) > self.limits.max_prompt_tokens:
            raise PromptTooLong(len(ids), self.limits.max_prompt_tokens)
        self._note_kinds(out)
        blocks = self.form.numbers(self, ids)
        if blocks is not None and self._window and np.bincount(blocks)[1:].max() > self._window:
            raise MediaError(f"more than {self._window} tokens, the model's window, see each other")
        tensors = self._tensors(out)
        positions = self._positions_of(out, tensors)
        placed = generic_media.placed(media, tensors, self._features_in(ids), self.unmarked)
        return Prompt(
            sample=sample,
            compact_ids=tuple(compact),
            ids=ids,
            positions=positions,
            next_position=(positions.max() + 1).item(),
            media=tuple(placed),
            space=self.space,
            blocks=blocks,
            blocks_slide_only=self.form.slide_only,
        )

    def _features_in(self, ids: Ints) -> int:
        return int(np.isin(ids, self.placeholder_ids).sum())

    def _note_kinds(self, out: Mapping[str, Any]) -> None:
        """Learn what the model is told of each id.

        What it is told of places is no use to rows that share prompts: raises UserError in them.
        """
        ids = out["input_ids"][0].tolist()
        for key, value in out.items():
            if key in TEXT_KEYS or key not in self._taken or not isinstance(value, Tensor):
                continue
            if value.shape != out["input_ids"].shape or key in self.places:
                continue
            kinds = [int(kind) for kind in value[0].tolist()]
            known = self.kinds.setdefault(key, {})
            known |= {i: kind for i, kind in zip(ids, kinds, strict=True) if kind}
            if self._told(out["input_ids"])[key][0].tolist() != kinds:
                del self.kinds[key]
                self.places.append(key)
                if not self.declaration.shared_prefix:
                    continue
                raise UserError(
                    f"the generic family does not serve {type(self.model).__name__}: its "
                    f"processor's '{key}' says different things of equal tokens"
                )

    def _positions_of(
        self, out: Mapping[str, Any], tensors: Mapping[str, Tensor]
    ) -> npt.NDArray[Any]:
        """Positions [axes, L] by the model's own function where it has one, else 0, 1, 2 ..."""
        ids = out["input_ids"]
        owner = next((m for m in self.model.modules() if hasattr(m, "get_rope_index")), None)
        if owner is None:
            return np.arange(ids.shape[1])[None]
        known = {**tensors, **{key: out[key] for key in self.kinds}}
        known |= {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        taken = inspect.signature(owner.get_rope_index).parameters
        found = owner.get_rope_index(**{k: v for k, v in known.items() if k in taken})
        positions = found[0] if isinstance(found, tuple) else found
        numbers: npt.NDArray[Any] = positions[:, 0].numpy()
        return numbers

    def trial(self) -> Prompt:
        """A medium and a few words: some models take no text by itself."""
        if (found := next(self.trials(), None)) is None:
            alone = min(self.not_taken, key=str, default=frozenset())
            why = self.not_taken.get(alone, "no prompt")
            raise UserError(f"{type(self.model).__name__}: a first forward fails: {why}")
        return found

    def trials(self) -> Iterator[Prompt]:
        """Short prompts of every shape that the processor takes, one with a medium first."""
        whole = self.unlimited()
        for number, media in enumerate(generic_media.trials(self.takes)):
            asked = generic_media.asking(media, "Is it so? " * (number + 1))
            try:
                yield whole.encode(asked, [whole.encode_medium(m) for m in media])
            except MediaError:
                continue  # several clips of different lengths, or text alone

    def take(self, found: generic_sharing.Finding, checked: str) -> None:
        """Share prompts, or say why not, as was found and `checked` in words."""
        self.not_taken, self.one_by_one = dict(found.not_taken), found.one_by_one
        self.form, self.answers_are = found.form, found.answers_are
        if found.noisy:
            generic_noise.hold_still(self.model)
        left_out = {kind for shape in self.not_taken if len(shape) == 1 for kind in shape}
        left_out |= {"screenshot"} if "image" in left_out else set()
        self.declaration = dataclasses.replace(
            self.declaration,
            takes=tuple(kind for kind in self.takes if kind not in left_out),
            shared_prefix=not found.reason,
            notes=generic_sharing.told(found.reason, checked),
        )
        if not found.reason:
            self._set_attention(attention.NAME)

    def declared(self, **said: Any) -> Self:
        """The same family with another declaration."""
        return dataclasses.replace(self, declaration=dataclasses.replace(self.declaration, **said))

    @contextmanager
    def attending(self, name: str) -> Iterator[None]:
        """Let the model's language layers attend by another function of the library meanwhile."""
        before = self.model.config.get_text_config()._attn_implementation
        self._set_attention(name)
        try:
            yield
        finally:
            self._set_attention(before)

    def _set_attention(self, name: str) -> None:
        config = self.model.config
        text = config.get_text_config()
        inside = [key for key in config.sub_configs if getattr(config, key, None) is text]
        self.model.set_attn_implementation({inside[0]: name} if inside else name)
        (recurrent_layers.share if name == attention.NAME else recurrent_layers.leave)(self.model)

    def features(self, media: Encoded) -> list[Tensor]:
        """Empty ones [0]: the model runs its own towers."""
        return [torch.zeros(0, device=self.model.device) for _ in media]

    @contextmanager
    def feeding(
        self, ids: Tensor, media: Encoded, features: Sequence[Tensor]
    ) -> Iterator[Mapping[str, Any]]:
        """Give the model what the processor made of the prompts of these media; `ids` are [N]."""
        carried = [m.tensors for m in media if m.tensors]
        flat = ids[None]
        words = dict.fromkeys(self.kinds, torch.zeros_like(flat))
        given = generic_tensors.joined(self.model, carried, self.together)
        with generic_towers.each_apart(self.model, given):
            yield (self._told(flat) if carried else words) | given.whole

    def plain_inputs(self, ids: Tensor, prompt: Prompt) -> Mapping[str, Tensor]:
        carried = [m.tensors for m in prompt.placed if m.tensors] * len(ids)
        told = self._told(ids)
        if self.answers_are:
            told["token_type_ids"][:, len(prompt.ids) :] = self.answers_are
        joins = {key: Join() for tensors in carried for key in tensors} | self.copied
        media = generic_tensors.joined(self.model, carried, joins).whole
        for key in media.keys() & set(self.places):
            media[key] = generic_tensors.longer(media[key], ids.shape[1])
        return {**told, **media}

    def _told(self, ids: Tensor) -> dict[str, Tensor]:
        """What the model is told of each of the tokens [rows, L]."""
        found = {}
        for key, known in self.kinds.items():
            make = getattr(self._own_processor(), f"create_{key}", None)
            if make is not None:
                found[key] = torch.tensor(make(ids.tolist()), device=ids.device)
                continue
            found[key] = torch.zeros_like(ids)
            for id_, kind in known.items():
                found[key][ids == id_] = kind
        return found
