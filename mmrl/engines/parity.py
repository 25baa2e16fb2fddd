"""Does the engine sample what the trainer trains? The same responses, scored by both.

A gap is the distance between the engine's and the trainer's log-prob of a sampled token, in nats.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mmrl.engines.engine import Engine, Sampling
from mmrl.errors import MediaError, TrainingError
from mmrl.policy.encoder import Encodes
from mmrl.runlog.metrics import modality_of
from mmrl.types import Floats, Group, MediaRef, Prompt, Sample, TrainSample

RESPONSES = 2
MAX_NEW_TOKENS = 64
TRIES = 8

Scoring = Callable[[Sequence[TrainSample]], list[Floats]]


@dataclass(frozen=True)
class Gaps:
    """Gaps over the sampled tokens of one modality."""

    tokens: int
    mean: float
    p99: float
    largest: float


class Parity:
    """A gate: probes are answered by the engine and scored by the trainer.

    `limit` bounds the mean gap of every modality, in nats.
    """

    def __init__(
        self,
        engine: Engine,
        score: Scoring,
        probes: Sequence[Prompt],
        sampling: Sampling,
        limit: float,
    ) -> None:
        self._engine, self._score, self._probes = engine, score, probes
        self._sampling, self._limit = sampling, limit

    def check(self, seed: int) -> dict[str, float]:
        """Metrics by modality; a gap over the limit raises TrainingError with the table."""
        counts = [RESPONSES] * len(self._probes)
        answers = self._engine.generate(self._probes, counts, self._sampling, seed)
        groups = [Group(p, tuple(a), ()) for p, a in zip(self._probes, answers, strict=True)]
        gaps = by_modality(groups, self._score)
        # A NaN is over every limit.
        if not all(gap.mean <= self._limit for gap in gaps.values()):
            raise TrainingError(
                "the engine does not sample what the trainer trains: a mean gap of their log-probs "
                f"is over rollout.parity_limit={self._limit:g}\n{table(gaps)}"
            )
        return {
            f"parity/{modality}/{name}": value
            for modality, gap in gaps.items()
            for name, value in (("mean", gap.mean), ("p99", gap.p99), ("max", gap.largest))
        }


def parity_limit(dtype: str) -> float:
    """The mean gap that rounding alone does not make, in nats."""
    return 1e-3 if dtype == "float32" else 0.05


def by_modality(groups: Sequence[Group], score: Scoring) -> dict[str, Gaps]:
    """Gaps of the groups' responses, by the kinds of media of their prompts."""
    found: dict[str, list[Floats]] = defaultdict(list)
    samples = [(group, s) for group in groups for s in _samples(group)]
    trained = score([sample for _, sample in samples])
    for (group, sample), values in zip(samples, trained, strict=True):
        gaps = np.abs(sample.response.logprobs - values)
        found[modality_of(group)].append(gaps[sample.mask])
    return {modality: _gaps(np.concatenate(rows)) for modality, rows in sorted(found.items())}


def _samples(group: Group) -> list[TrainSample]:
    return [TrainSample(group.prompt, r, np.zeros(len(r.ids)), r.written) for r in group.responses]


def _gaps(gaps: Floats) -> Gaps:
    return Gaps(len(gaps), float(gaps.mean()), float(np.percentile(gaps, 99)), float(gaps.max()))


def table(gaps: Mapping[str, Gaps]) -> str:
    """The gaps as lines of text."""
    rows = [f"{'modality':16} {'tokens':>7} {'mean':>9} {'p99':>9} {'max':>9}"]
    for modality, gap in gaps.items():
        numbers = " ".join(f"{value:9.2e}" for value in (gap.mean, gap.p99, gap.largest))
        rows.append(f"{modality:16} {gap.tokens:7d} {numbers}")
    return "\n".join(rows)


def probes(samples: Iterable[Sample], encoder: Encodes) -> list[Prompt]:
    """A usable prompt for every way media occur in the data: which kinds, and one or several."""
    found: dict[str, Prompt] = {}
    failed: dict[str, int] = defaultdict(int)
    for sample in samples:
        kinds = [part.kind for part in sample.parts if isinstance(part, MediaRef)]
        shape = " ".join(sorted(f"{kind}{'s' * (kinds.count(kind) > 1)}" for kind in set(kinds)))
        if shape in found or failed[shape] == TRIES:
            continue
        try:
            found[shape] = encoder.prompt(sample)
        except MediaError:
            failed[shape] += 1
    return list(found.values())
