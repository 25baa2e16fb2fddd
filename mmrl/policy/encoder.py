"""Sample -> Prompt: each medium is decoded and processed once, then shared by reference."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np

from mmrl import plugins
from mmrl.errors import MediaError, PromptTooLong, UserError
from mmrl.modalities import options as opts
from mmrl.policy.family import EnvironmentTokens, Family
from mmrl.policy.media_threads import media_threads
from mmrl.policy.overflow import shrunk
from mmrl.types import (
    EncodedMedium,
    Media,
    MediaRef,
    Observation,
    Prompt,
    Sample,
    Text,
)

MAX_KEPT_BYTES = 512 << 20
MAX_SHRINKS = 4

Overflow: TypeAlias = Literal["quarantine", "shrink", "fail"]
Encoded: TypeAlias = "list[Prompt] | MediaError"
Heard: TypeAlias = "EnvironmentTokens | MediaError"


class Encodes(Protocol):
    """What makes prompts of samples, in one process or many."""

    def encode(self, variants: Sequence[Sequence[Sample]]) -> list[Encoded]:
        """Prompts of every sample's variants, or why a sample is unusable."""
        ...

    def prompt(self, sample: Sample) -> Prompt:
        """Make one prompt; raises MediaError with the reason if a medium is unusable."""
        ...

    def prefetch(self, samples: Sequence[Sample]) -> None:
        """Start decoding the media of samples that will be asked for soon."""
        ...

    def decoded(self, prompt: Prompt, wanted: Callable[[EncodedMedium], bool]) -> dict[str, Media]:
        """The wanted media of a prompt by hash, decoded again."""
        ...

    def close(self) -> None:
        """Stop decoding."""
        ...


class Observes(Encodes, Protocol):
    """What makes prompts and episodes' later turns, in one process."""

    def observe(self, asked: Sequence[tuple[Prompt, Observation]]) -> list[Heard]:
        """What stands between a prompt that ends with the model's turn and its next turn."""
        ...

    def with_defaults(self, ref: MediaRef) -> MediaRef:
        """The medium with the run's options under its own."""
        ...


class Encoder:
    """Encodes samples; keeps the most recently used media so that variants and epochs share.

    At most `max_kept_bytes` of their tensors are kept, however many media that are.
    `defaults` are options by modality, under those of each reference; `overflow` says what becomes
    of a prompt over the family's token limit. How small a sample had to become is remembered, so
    that it is encoded whole once only. `prefetch` starts decoding
    ahead of need in worker threads; its media count towards what is kept, so that memory stays
    bounded however far ahead is asked for. `process` makes media in the family's stead.
    """

    def __init__(
        self,
        family: Family,
        max_kept_bytes: int = MAX_KEPT_BYTES,
        defaults: Mapping[str, Mapping[str, Any]] | None = None,
        workers: int = 2,
        overflow: Overflow = "quarantine",
        process: Callable[[Media], EncodedMedium] | None = None,
    ) -> None:
        self._family, self._overflow = family, overflow
        self._process = process or family.encode_medium
        self._max_kept_bytes = max_kept_bytes
        self._defaults = dict(defaults or {})
        for kind, values in self._defaults.items():
            opts.check(kind, values, plugins.load("modality", kind).Options)
        self._fits: dict[Hashable, tuple[Mapping[str, Any], ...]] = {}
        self._kept: OrderedDict[Hashable, Future[EncodedMedium]] = OrderedDict()
        self._bytes: dict[Hashable, int] = {}
        self._lock = threading.Lock()
        self._pool = media_threads(workers)

    def prompt(self, sample: Sample) -> Prompt:
        """Both views of a sample; raises MediaError with the reason if a medium is unusable.

        A prompt over the token limit shrinks, raises PromptTooLong, or ends the run, as the
        overflow policy says; media are never cut short.
        """
        asked = self._as_it_fits(sample)
        for attempt in range(MAX_SHRINKS):
            media = [self._encoded(part) for part in asked.parts if isinstance(part, MediaRef)]
            try:
                prompt = self._prompt(asked, media)
            except PromptTooLong as error:
                if self._overflow == "fail":
                    raise UserError(f"sample {sample.id}: {error}") from error
                if self._overflow == "quarantine" or attempt == MAX_SHRINKS - 1:
                    raise
                asked = shrunk(asked, media, error)
            else:
                if asked is not sample:
                    refs = [part for part in asked.parts if isinstance(part, MediaRef)]
                    self._fits[_asked(sample)] = tuple(ref.options for ref in refs)
                return replace(prompt, shrunk=asked is not sample)
        raise AssertionError("unreachable")

    def _as_it_fits(self, sample: Sample) -> Sample:
        """A sample that had to shrink before, as small as it then was."""
        fits = self._fits.get(_asked(sample)) if self._fits else None
        if fits is None:
            return sample
        left = iter(fits)
        parts = (
            replace(part, options=next(left)) if isinstance(part, MediaRef) else part
            for part in sample.parts
        )
        return replace(sample, parts=tuple(parts))

    def _prompt(self, sample: Sample, media: Sequence[EncodedMedium]) -> Prompt:
        """Placeholders equal features, or the sample never reaches a forward pass."""
        prompt = self._family.encode(sample, media)
        placeholders = int(np.isin(prompt.ids, self._family.placeholder_ids).sum())
        features = sum(medium.num_tokens for medium in prompt.media)
        assert placeholders == features, (
            f"sample {sample.id}: {placeholders} placeholders for {features} feature rows"
        )
        return prompt

    def encode(self, variants: Sequence[Sequence[Sample]]) -> list[Encoded]:
        """Prompts of every sample's variants, or why a sample is unusable."""
        return [self._all_or_none(sample) for sample in variants]

    def _all_or_none(self, variants: Sequence[Sample]) -> Encoded:
        try:
            return [self.prompt(variant) for variant in variants]
        except MediaError as error:
            return error

    def observe(self, asked: Sequence[tuple[Prompt, Observation]]) -> list[Heard]:
        """What stands between a prompt that ends with the model's turn and its next turn.

        Its media have no tensors: they belong to one response each, and are made again of their
        source, under this run's options, when a pass needs them.
        """
        return list(self._pool.map(lambda each: self._heard(*each), asked))

    def _heard(self, before: Prompt, observation: Observation) -> Heard:
        refs = [self.with_defaults(p) for p in observation.parts if isinstance(p, MediaRef)]
        try:
            media = [replace(self._process(decode(ref)), source=ref) for ref in refs]
            turn = self._family.environment_tokens(before, observation, media)
        except MediaError as error:
            return error
        placeholders = int(np.isin(turn.ids, self._family.placeholder_ids).sum())
        assert placeholders == turn.features, (
            f"sample {before.sample.id}, a later turn: {placeholders} placeholders for "
            f"{turn.features} feature rows"
        )
        return replace(turn, media=tuple(replace(medium, tensors={}) for medium in turn.media))

    def prefetch(self, samples: Iterable[Sample]) -> None:
        """Start decoding and processing the media of samples that will be asked for soon.

        What goes wrong is raised when the sample is encoded, not here.
        """
        for sample in samples:
            for part in self._as_it_fits(sample).parts:
                if isinstance(part, MediaRef):
                    self._start(part, self._pool)

    def decoded(self, prompt: Prompt, wanted: Callable[[EncodedMedium], bool]) -> dict[str, Media]:
        """The wanted media of a prompt by hash, decoded again: arrays are not kept.

        They are for showing: one that has gone since the model saw it is left out.
        """
        refs = [part for part in prompt.sample.parts if isinstance(part, MediaRef)]
        lacking = {
            encoded.hash: self.with_defaults(ref)
            for encoded, ref in zip(prompt.media, refs, strict=True)
            if wanted(encoded)
        }
        return decoded_again(lacking)

    def close(self) -> None:
        """Stop the worker threads; media that nobody waits for any more are not begun."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _encoded(self, ref: MediaRef) -> EncodedMedium:
        key, future = self._start(ref, None)
        try:
            return future.result()
        except BaseException:
            # A failure is not kept: the next reader meets the file as it then is.
            with self._lock:
                self._forget(key)
            raise

    def _start(
        self, ref: MediaRef, pool: ThreadPoolExecutor | None
    ) -> tuple[Hashable, Future[EncodedMedium]]:
        """The medium's future, begun in the pool or, without one, here and now."""
        ref = self.with_defaults(ref)
        key = _reference(ref)
        with self._lock:
            future = self._kept.get(key)
            begun = future is not None
            future = future or Future()
            self._kept[key] = future
            self._kept.move_to_end(key)
        if not begun:
            if pool is None:
                self._fill(key, future, ref)
            else:
                pool.submit(self._fill, key, future, ref)
        return key, future

    def _fill(self, key: Hashable, future: Future[EncodedMedium], ref: MediaRef) -> None:
        try:
            encoded = self._process(decode(ref))
        except BaseException as error:
            future.set_exception(error)
            return
        future.set_result(encoded)
        with self._lock:
            if self._kept.get(key) is future:
                self._bytes[key] = _held(encoded)
            while self._bytes and sum(self._bytes.values()) > self._max_kept_bytes:
                self._forget(next(each for each in self._kept if each in self._bytes))

    @property
    def kept_bytes(self) -> int:
        """Bytes of the tensors that are kept now."""
        with self._lock:
            return sum(self._bytes.values())

    def _forget(self, key: Hashable) -> None:
        self._kept.pop(key, None)
        self._bytes.pop(key, None)

    def with_defaults(self, ref: MediaRef) -> MediaRef:
        """The medium with the run's options under its own."""
        options = {**self._defaults.get(ref.kind, {}), **ref.options}
        return MediaRef(ref.kind, ref.source, options)


def _held(medium: EncodedMedium) -> int:
    """Bytes that a medium's tensors keep from being freed; a view keeps what it is a view of."""
    return sum(tensor.untyped_storage().nbytes() for tensor in medium.tensors.values())


def _asked(sample: Sample) -> Hashable:
    """What tells a question from others, whatever their ids."""
    parts = (p.text if isinstance(p, Text) else _reference(p) for p in sample.parts)
    return sample.history, tuple(parts)


def _reference(ref: MediaRef) -> Hashable:
    """What tells a medium from others; of encoded bytes a hash, so that they are not kept."""
    sources = ref.source if isinstance(ref.source, tuple) else (ref.source,)
    named = [sha256(s).digest() if isinstance(s, bytes) else s for s in sources]
    return ref.kind, tuple(named), repr(sorted(ref.options.items()))


def decoded_again(refs: Mapping[str, MediaRef]) -> dict[str, Media]:
    """Media by name, without those that cannot be read any more."""
    found: dict[str, Media] = {}
    for name, ref in refs.items():
        with contextlib.suppress(MediaError):
            found[name] = decode(ref)
    return found


def decode(ref: MediaRef) -> Media:
    """Decode a medium with the modality named by its kind."""
    module = plugins.load("modality", ref.kind)
    media: Media = module.decode(ref)
    return media


def whole(medium: EncodedMedium, family: Family) -> EncodedMedium:
    """A medium with its tensors: those that it came without are made of its source."""
    if medium.tensors or medium.source is None:
        return medium
    made = family.encode_medium(decode(medium.source))
    assert (made.hash, made.num_tokens) == (medium.hash, medium.num_tokens), "another medium"
    return replace(medium, tensors=made.tensors)
