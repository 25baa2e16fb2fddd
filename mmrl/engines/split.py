"""Work on prompts and answers, split over the processes of a run and put together again.

Every process ends with all groups, so that what sees the whole batch (baselines over it, editors,
refills, denominators) is computed alike everywhere. Media stay where they were decoded: a prompt
from elsewhere has its tokens and its media's frames, not their tensors.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

from mmrl.backend.world import World
from mmrl.engines.engine import Engine, Sampling
from mmrl.errors import MediaError
from mmrl.policy.encoder import Encoded, Encoder
from mmrl.policy.weights import Weights
from mmrl.scoring.pool import OUTSIDE, ScoreJob, Workers
from mmrl.task import Moment
from mmrl.types import EncodedMedium, Media, Prompt, Response, Sample, Score

Gathered = Callable[[], AbstractContextManager[None]]


class SplitEncoder:
    """Encodes this process's share of the samples and takes over the others' prompts."""

    def __init__(self, encoder: Encoder, world: World) -> None:
        self._encoder, self._world = encoder, world

    @property
    def world(self) -> World:
        """The processes that share the work."""
        return self._world

    @property
    def own(self) -> Encoder:
        """The encoder of this process."""
        return self._encoder

    @property
    def kept_bytes(self) -> int:
        """Bytes of media that this process keeps."""
        return self._encoder.kept_bytes

    def encode(self, variants: Sequence[Sequence[Sample]]) -> list[Encoded]:
        """Prompts of every sample's variants, or why a sample is unusable."""
        rank, size = self._world.rank, self._world.size
        own = [_at_home(e, rank) for e in self._encoder.encode(self._world.share(variants))]
        merged = self._world.merge([_light(encoded) for encoded in own])
        found = [_asked(e, samples) for e, samples in zip(merged, variants, strict=True)]
        found[rank::size] = own
        return found

    def prompt(self, sample: Sample) -> Prompt:
        """Make one prompt on every process; one of them, known by its id, is its home."""
        home = zlib.crc32(sample.id.encode()) % self._world.size
        return replace(self._encoder.prompt(sample), home=home)

    def prefetch(self, samples: Sequence[Sample]) -> None:
        """Start decoding this process's share."""
        self._encoder.prefetch(self._world.share(samples))

    def decoded(self, prompt: Prompt, wanted: Callable[[EncodedMedium], bool]) -> dict[str, Media]:
        """The wanted media of a prompt by hash, decoded again wherever they were before."""
        return self._encoder.decoded(prompt, wanted)

    def beside(self, world: World) -> SplitEncoder:
        """The same encoder with another exchange, for a thread of its own."""
        return SplitEncoder(self._encoder, world)

    def close(self) -> None:
        """Stop the decoding threads."""
        self._encoder.close()


def _at_home(encoded: Encoded, rank: int) -> Encoded:
    if isinstance(encoded, MediaError):
        return encoded
    return [replace(prompt, home=rank) for prompt in encoded]


def _light(encoded: Encoded) -> Encoded:
    """Without what is large and what every process has: tensors and the sample."""
    if isinstance(encoded, MediaError):
        return encoded
    return [_bare(prompt) for prompt in encoded]


def _bare(prompt: Prompt) -> Prompt:
    nothing = Sample("", "", (), None)
    media = tuple(replace(medium, tensors={}, source=None) for medium in prompt.media)
    return replace(prompt, sample=nothing, media=media)


def _asked(encoded: Encoded, variants: Sequence[Sample]) -> Encoded:
    if isinstance(encoded, MediaError):
        return encoded
    return [replace(p, sample=sample) for p, sample in zip(encoded, variants, strict=True)]


class SplitEngine:
    """Rolls out the prompts whose media are here, episodes to their end.

    `gathered` makes the policy's weights whole meanwhile, for an engine that samples with them.
    """

    def __init__(self, engine: Engine, world: World, gathered: Gathered) -> None:
        self._engine, self._world, self._gathered = engine, world, gathered

    def generate(
        self, prompts: Sequence[Prompt], counts: Sequence[int], sampling: Sampling, seed: int
    ) -> list[list[Response]]:
        """Responses to all prompts; every process draws from a seed of its own."""
        own = [i for i, prompt in enumerate(prompts) if prompt.home == self._world.rank]
        with self._gathered():
            drawn = self._engine.generate(
                [prompts[i] for i in own],
                [counts[i] for i in own],
                sampling,
                # Far apart: engines count on from the seed they are given.
                seed + (self._world.rank << 32),
            )
        here = dict(zip(own, drawn, strict=True))
        if self._world.size == 1:
            return [here[i] for i in range(len(prompts))]
        parts = self._world.gather({i: list(map(_sent, group)) for i, group in here.items()})
        others = {i: group for part in parts for i, group in part.items() if i not in here}
        return [
            here[i] if i in here else [_received(r, prompt.sample) for r in others[i]]
            for i, prompt in enumerate(prompts)
        ]

    def sync(self, weights: Weights) -> None:
        """Let the engine take over the weights."""
        self._engine.sync(weights)

    def close(self) -> None:
        """Free what the engine holds."""
        self._engine.close()


def _sent(response: Response) -> Response:
    """Without what stays at home: sources of media, and the tensors and samples of branches."""
    observed = response.observed
    if observed is not None:
        media = tuple(replace(medium, source=None) for medium in observed.media)
        observed = replace(observed, media=media)
    branches = tuple((_bare(prompt), _sent(part)) for prompt, part in response.branches)
    return replace(response, observed=observed, branches=branches)


def _received(response: Response, sample: Sample) -> Response:
    """A response from elsewhere; what its branches are about is known here."""
    branches = tuple((replace(p, sample=sample), part) for p, part in response.branches)
    return replace(response, branches=branches) if branches else response


class SplitScorer:
    """Scores this process's share of the answers with its own workers."""

    def __init__(self, scorer: Workers, world: World) -> None:
        self._scorer, self._world = scorer, world

    def score(self, jobs: Sequence[ScoreJob], moment: Moment = OUTSIDE) -> list[Score]:
        """Score all answers in order; those of one call in one process."""
        calls = self._scorer.calls(jobs)
        own = [i for call in self._world.share(calls) for i in call]
        scored = self._scorer.score([jobs[i] for i in own], moment)
        found: dict[int, Score] = {}
        for part in self._world.gather(dict(zip(own, scored, strict=True))):
            found |= part
        return [found[i] for i in range(len(jobs))]

    def close(self) -> None:
        """Kill the workers."""
        self._scorer.close()
