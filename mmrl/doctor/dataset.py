"""Every record of a run's data, decoded and encoded as the run will: what is large, broken, twice.

Records are read in order by one thread and looked at by several, each of which decodes in a process
of its own, so that decoding and encoding overlap. Golds are scored in the run's scoring workers.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mmrl.config import RunConfig
from mmrl.corpus.table import missing
from mmrl.data.samples import Samples, load_samples
from mmrl.data_config import DataConfig
from mmrl.doctor.counts import family_of
from mmrl.doctor.shapes import OncePerShape
from mmrl.errors import ConfigError, MediaError
from mmrl.policy.encoder import Encoder
from mmrl.policy.family import Family
from mmrl.recipes.contamination import Fingerprint, OverlapIndex, fingerprint
from mmrl.scoring.pool import ScoreJob, Scorer, TaskSpec
from mmrl.scoring.tasks import load_task, resolve_weights
from mmrl.task import Task
from mmrl.types import Answer, EncodedMedium, MediaRef, Prompt, Sample, Score, Text

Split = Literal["training", "held-out"]
AHEAD = 4
"""Records that are begun ahead of need, for each worker."""
SCORED_TOGETHER = 64
KEPT_BYTES = 64 << 20
"""Of encoded media: enough for pictures that records of a neighbourhood share."""
SHOWN = 5
BINS = 24


@dataclass(frozen=True)
class Looked:
    """What one record is like; `gold` is its right answer as the task would write it."""

    id: str
    tokens: int
    media: tuple[tuple[str, int, float], ...]
    print: Fingerprint
    job: ScoreJob | None
    problem: str = ""


@dataclass
class Surveyed:
    """What was found in one file of records; ids by what is wrong with them."""

    path: Path
    split: Split
    records: int
    seconds: float = 0.0
    tokens: list[int] = field(default_factory=list)
    longest: str = ""
    media: dict[str, list[tuple[int, float]]] = field(default_factory=lambda: defaultdict(list))
    """Tokens and size of every medium by kind: pixels of a picture, seconds of a clip or sound."""
    unusable: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    golds: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    twice: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def lines(self) -> Iterator[str]:
        """What was found, for a terminal."""
        rate = self.records / max(self.seconds, 1e-9)
        yield (
            f"{self.split} {self.path}: {self.records} records in {self.seconds:.0f} s, "
            f"{rate:.0f} a second"
        )
        if self.tokens:
            yield f"  tokens    {spread(self.tokens)}; longest: {self.longest}"
        for kind, found in sorted(self.media.items()):
            unit = "pixels" if kind in ("image", "screenshot") else "seconds"
            yield f"  {kind:<9} {len(found)}; tokens {spread([tokens for tokens, _ in found])}"
            yield f"  {'':<9} {unit} {spread([size for _, size in found])}"
        for what, found_by in (
            ("cannot be used", self.unusable),
            ("have a gold that earns less than full marks", self.golds),
            ("are there twice", self.twice),
        ):
            yield from _listed(what, found_by)

    def figures(self) -> dict[str, Any]:
        """What was found, as data."""
        by_kind = {
            kind: {
                "count": len(found),
                "tokens": histogram([tokens for tokens, _ in found]),
                "size": histogram([size for _, size in found]),
            }
            for kind, found in self.media.items()
        }
        return {
            "path": str(self.path),
            "split": self.split,
            "records": self.records,
            "seconds": self.seconds,
            "tokens": histogram(self.tokens),
            "longest": self.longest,
            "media": by_kind,
            **{name: dict(getattr(self, name)) for name in ("unusable", "golds", "twice")},
        }


def survey(
    config: RunConfig,
    workers: int = 2,
    limit: int | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Surveyed]:
    """Look at all records of a run, or the first `limit` of each file.

    `on_progress` is told how many records are done, of how many in a file.
    """
    family = family_of(config)
    found = []
    for index, data in enumerate(config.data):
        task, seen = load_task(data.task, data.params), OverlapIndex()
        splits: list[tuple[Split, Path | None]] = [
            ("training", data.path),
            ("held-out", data.eval_path),
        ]
        for split, path in splits:
            if path is None or missing(path):
                continue
            look = _Look(config, data, f"{data.task}-{index}", task, family, split)
            found.append(look.at(path, workers, limit, seen, on_progress))
    return found


def refuse(config: RunConfig, found: Sequence[Surveyed]) -> None:
    """Raise ConfigError where more records cannot be used than the run allows."""
    allowed = {data.path: data.max_unusable_share for data in config.data}
    for each in found:
        bad = sum(map(len, each.unusable.values()))
        most = allowed.get(each.path, 1.0)
        if each.records and bad / each.records > most:
            raise ConfigError(
                f"{each.path}: {bad} of {each.records} records cannot be used; "
                f"data.max_unusable_share={most:g} allows fewer"
            )


class _Look:
    """Looks at the records of one file."""

    def __init__(
        self,
        config: RunConfig,
        data: DataConfig,
        key: str,
        task: Task,
        family: Family,
        split: Split,
    ) -> None:
        self._config, self._data, self._key, self._task = config, data, key, task
        self._family, self._split = family, split
        self._weights = resolve_weights(task, data.weights)

    def at(
        self,
        path: Path,
        workers: int,
        limit: int | None,
        seen: OverlapIndex,
        on_progress: Callable[[int, int], None],
    ) -> Surveyed:
        """Look at every record, several at a time, in order."""
        started = time.monotonic()
        found = Surveyed(path, self._split, 0)
        samples = load_samples(
            self._task,
            path,
            self._key,
            lambda record, reason: found.unusable[reason].append(record),
            limit,
            self._data.columns,
            self._data.media_roots,
            looked_at=0,
        )
        found.records = len(samples)
        encoder = Encoder(
            self._family,
            KEPT_BYTES,
            self._config.media,
            workers,
            self._config.model.overflow,
            OncePerShape(self._family.encode_medium),
        )
        spec = {self._key: TaskSpec(self._data.task, self._data.params, self._data.weights)}
        rollout = self._config.rollout
        with (
            ThreadPoolExecutor(workers) as pool,
            Scorer(
                spec,
                workers,
                rollout.scoring_timeout_seconds,
                secrets=rollout.scoring_secrets,
            ) as scorer,
        ):
            try:
                waiting = list[Looked]()
                for done, looked in enumerate(self._in_order(samples, encoder, pool, workers), 1):
                    self._take(found, looked, seen)
                    waiting += [looked] if looked.job else []
                    if len(waiting) == SCORED_TOGETHER or done == len(samples):
                        self._score(found, scorer, waiting)
                        waiting = []
                    on_progress(done, len(samples))
                self._score(found, scorer, waiting)
            finally:
                encoder.close()
        found.seconds = time.monotonic() - started
        return found

    def _in_order(
        self, samples: Samples, encoder: Encoder, pool: ThreadPoolExecutor, workers: int
    ) -> Iterator[Looked]:
        """What each usable record is like; a few are worked on ahead."""
        begun: deque[Future[Looked]] = deque()
        for sample in samples.usable():
            begun.append(pool.submit(self._looked, sample, encoder))
            while len(begun) > AHEAD * workers:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()

    def _looked(self, sample: Sample, encoder: Encoder) -> Looked:
        try:
            prompt = encoder.prompt(sample)
        except MediaError as error:
            return Looked(sample.id, 0, (), Fingerprint("", "", (), ""), None, str(error))
        text = "\n".join(part.text for part in sample.parts if isinstance(part, Text))
        hashes = [medium.hash for medium in prompt.media]
        mark = fingerprint(sample.id, self._split, {"asked": text}, ("asked",), hashes)
        media = tuple((m.kind, m.num_tokens, _size(m)) for m in prompt.media)
        return Looked(sample.id, len(prompt.ids), media, mark, self._job(sample, prompt))

    def _job(self, sample: Sample, prompt: Prompt) -> ScoreJob | None:
        """The right answer to a record, to be scored; None where none can be written."""
        if sample.start is not None:  # an episode's is written turn by turn
            return None
        asked = sum(isinstance(part, MediaRef) for part in sample.parts)
        blank = Answer("", frames=prompt.frames[:asked], space=prompt.space)
        text = self._task.completion(sample, blank)
        if text is None:
            return None
        answer = Answer(text, frames=blank.frames, space=blank.space)
        return ScoreJob(self._key, sample.gold, answer)

    def _take(self, found: Surveyed, looked: Looked, seen: OverlapIndex) -> None:
        if looked.problem:
            found.unusable[looked.problem].append(looked.id)
            return
        if looked.tokens > max(found.tokens, default=0):
            found.longest = looked.id
        found.tokens.append(looked.tokens)
        for kind, tokens, size in looked.media:
            found.media[kind].append((tokens, size))
        seen.enter(looked.print)
        for match in seen.matches(looked.print):
            if match.kind != "text":  # the same words about another picture are another question
                what = f"the same {match.kind} in {match.of_split} records"
                found.twice[what].append(f"{match.id} = {match.of}")

    def _score(self, found: Surveyed, scorer: Scorer, asked: Sequence[Looked]) -> None:
        scores = scorer.score([looked.job for looked in asked if looked.job])
        for looked, score in zip(asked, scores, strict=True):
            for problem in self._lacks(score):
                found.golds[problem].append(looked.id)

    def _lacks(self, score: Score) -> Iterator[str]:
        """What a right answer does not get."""
        if score.status != "ok":
            yield f"{score.status}: {score.reason}"
            return
        for name, part in self._task.parts.items():
            most, got = part.high, score.parts.get(name, math.nan)
            if self._weights.get(name) and math.isfinite(most) and got < most - 1e-6:
                yield f"{got:g} of {most:g} for '{name}'"


def _size(medium: EncodedMedium) -> float:
    """Pixels of a picture as the model sees it, seconds of a clip or a sound."""
    frame = medium.frame
    if medium.kind in ("image", "screenshot"):
        width, height = frame.processed_size
        return float(width * height)
    return frame.seconds[-1] - frame.seconds[0] if frame.seconds else 0.0


def spread(values: Sequence[float]) -> str:
    """Least, median, 95th percentile and largest of numbers [n], and a sketch of how they lie."""
    low, half, most, high = np.percentile(values, (0, 50, 95, 100))
    counts = histogram(values)["counts"]
    tallest = max(counts) + 1
    bars = "".join("▁▂▃▄▅▆▇█"[int(8 * count / tallest)] if count else " " for count in counts)
    return f"{low:,.6g} to {high:,.6g}, half at most {half:,.6g}, 95 % at most {most:,.6g} |{bars}|"


def histogram(values: Sequence[float]) -> dict[str, list[float]]:
    """Counts [bins] of numbers [n] and the edges [bins + 1] of the bins; empty for none."""
    if not len(values):
        return {"edges": [], "counts": []}
    counts, edges = np.histogram(values, BINS if min(values) < max(values) else 1)
    return {"edges": edges.tolist(), "counts": counts.tolist()}


def _listed(what: str, found: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """How many records have something, by what it is, the commonest first, with some ids."""
    total = sum(map(len, found.values()))
    if total:
        yield f"  {total} {what}:"
    for reason, ids in sorted(found.items(), key=lambda each: -len(each[1]))[:SHOWN]:
        more = ", ..." if len(ids) > SHOWN else ""
        yield f"    {len(ids)}: {reason} ({', '.join(ids[:SHOWN])}{more})"
