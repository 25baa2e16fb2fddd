"""The numbers of one step under flat names, and `metrics.jsonl`.

A trainer merges `group_metrics(groups)`, `clock.lap()`, `memory_metrics()` and its own numbers
into one row and hands it to `MetricsLog.write`. docs/metrics.md says what each name means.
"""

from __future__ import annotations

import resource
import sys
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mmrl.algorithms.stages.credit import families, lengths_of
from mmrl.rewards.thoughts import thought_of
from mmrl.runlog.journal import Journal
from mmrl.types import Answer, Floats, Group, MediaRef, Score

Metrics = dict[str, float]

RESERVED_PARTS = frozenset({"mean", "std", "group_std"})
EQUAL_REWARDS = 1e-9  # rewards of a group that differ by less teach nothing
HISTORY_STEPS = 200  # rows kept in memory for the diagnosis


def group_metrics(groups: Sequence[Group]) -> Metrics:
    """Summarise scored groups; a mean over nothing is NaN.

    Unscorable answers (reward None) are left out of every reward number and counted in
    `share/unscorable`. Standard deviations have ddof 0. Lengths are tokens that the model wrote.
    """
    scores = [score for group in groups for score in group.scores]
    by_task = _split(groups, lambda group: group.prompt.sample.task)
    by_modality = _split(groups, modality_of)
    return {
        **_rewards(groups, scores),
        **(_by_name("task", by_task) if len(by_task) > 1 else {}),
        **(_by_name("modality", by_modality) if len(by_modality) > 1 else {}),
        **_shares(groups, scores),
        **_counts(groups),
        **_episodes(groups),
        **_logged(scores),
        "media/without": float(sum(_lacks_media(group) for group in groups)),
        "media/shrunk": float(sum(group.prompt.shrunk for group in groups)),
    }


def _rewards(groups: Sequence[Group], scores: Sequence[Score]) -> Metrics:
    rewards = _scorable(groups)
    spreads = [float(np.std(_known(group))) for group in groups if len(_known(group))]
    parts: dict[str, list[float]] = defaultdict(list)
    for score in scores:
        for name, value in score.parts.items():
            if name in RESERVED_PARTS:
                raise ValueError(f"reward part '{name}': the name is taken, choose another")
            if score.reward is not None:
                parts[name].append(value)
    return {
        "reward/mean": _mean(rewards),
        "reward/std": float(np.std(rewards)) if len(rewards) else float("nan"),
        "reward/group_std": _mean(spreads),
        **{f"reward/{name}": _mean(values) for name, values in sorted(parts.items())},
        "metric/mean": _mean(_metric_values(scores)),
    }


def _by_name(prefix: str, split: Mapping[str, Sequence[Group]]) -> Metrics:
    found: Metrics = {}
    for name, groups in sorted(split.items()):
        scores = [score for group in groups for score in group.scores]
        found[f"{prefix}/{name}/reward"] = _mean(_scorable(groups))
        found[f"{prefix}/{name}/metric"] = _mean(_metric_values(scores))
    return found


def _shares(groups: Sequence[Group], scores: Sequence[Score]) -> Metrics:
    responses = [response for group in groups for response in group.responses]
    comparable = [_known(group) for group in groups if len(_known(group)) > 1]
    unscorable = [score.reward is None for score in scores]
    unparsable = [s.status not in ("ok", "unscorable") for s in scores]
    return {
        **_over_variants(groups),
        **_thoughts(groups),
        "share/zero_variance": _mean([float(np.ptp(r)) < EQUAL_REWARDS for r in comparable]),
        "share/truncated": _mean([response.truncated for response in responses]),
        "share/unparsable": _mean(unparsable),
        "share/unscorable": _mean(unscorable),
    }


def _thoughts(groups: Sequence[Group]) -> Metrics:
    """Share of closed thoughts without a word, of those that the model itself opened or filled."""
    closed = [
        thought
        for group in groups
        for response in group.responses
        if (thought := thought_of(Answer(response.text, opening=group.prompt.opening))) is not None
    ]
    return {"share/empty_thought": _mean([not t.strip() for t in closed])} if closed else {}


def _over_variants(groups: Sequence[Group]) -> Metrics:
    """Share of questions whose answers all earn the same, over all variants of the question."""
    questions = families(groups)
    if len(questions) == len(groups):
        return {}
    joined = [np.concatenate([_known(group) for group in family]) for family in questions]
    equal = [float(np.ptp(r)) < EQUAL_REWARDS for r in joined if len(r) > 1]
    return {"share/zero_variance_over_variants": _mean(equal)}


def _counts(groups: Sequence[Group]) -> Metrics:
    lengths = np.concatenate([np.empty(0), *(lengths_of(group) for group in groups)])
    media = sum(medium.num_tokens for group in groups for medium in group.prompt.media)
    return {
        "length/mean": _mean(lengths),
        "length/max": float(lengths.max(initial=0)),
        "tokens/prompt": float(sum(len(group.prompt.ids) for group in groups)),
        "tokens/media": float(media),
        "tokens/response": float(lengths.sum()),
    }


def _episodes(groups: Sequence[Group]) -> Metrics:
    """Turns of episodes, and the tokens of environments; nothing where there are none."""
    played = [r for group in groups for r in group.responses if r.episode is not None]
    if not played:
        return {}
    whole = [[r, *(branch for _, branch in r.branches)] for r in played]
    turns = [sum(len(p.episode.turns) for p in parts if p.episode) for parts in whole]
    observed = sum(len(p.ids) - int(p.written.sum()) for parts in whole for p in parts)
    branches = sum(len(parts) - 1 for parts in whole)
    left_out = sum(
        p.episode.left_out * len(p.episode.turns) for parts in whole for p in parts if p.episode
    )
    return {
        "turns/mean": _mean(turns),
        "turns/max": float(max(turns)),
        "tokens/environment": float(observed),
        **({"turns/branches": branches / len(whole)} if branches else {}),
        **({"turns/screens_left_out": left_out / sum(turns)} if left_out else {}),
    }


def _logged(scores: Sequence[Score]) -> Metrics:
    """Means of the numbers that rewards log, over the answers that have them."""
    found: dict[str, list[float]] = defaultdict(list)
    for score in scores:
        for name, value in score.logged.items():
            if isinstance(value, int | float):
                found[f"logged/{name}"].append(float(value))
    return {name: _mean(values) for name, values in sorted(found.items())}


def questions(groups: Sequence[Group]) -> int:
    """How many samples were asked, all variants of one together."""
    return len(families(groups))


def modality_of(group: Group) -> str:
    """Name the kinds of media of a group's prompt: `image`, `audio+video`, or `text` for none."""
    return "+".join(sorted({medium.kind for medium in group.prompt.media})) or "text"


def _lacks_media(group: Group) -> bool:
    asked = sum(isinstance(part, MediaRef) for part in group.prompt.sample.parts)
    seen = sum(medium.num_tokens > 0 for medium in group.prompt.media)
    return seen < asked


def _split(groups: Sequence[Group], key: Callable[[Group], str]) -> dict[str, list[Group]]:
    split: dict[str, list[Group]] = defaultdict(list)
    for group in groups:
        split[key(group)].append(group)
    return split


def _known(group: Group) -> Floats:
    rewards = group.rewards
    return rewards[~np.isnan(rewards)]


def _scorable(groups: Sequence[Group]) -> Floats:
    return np.concatenate([np.empty(0), *(_known(group) for group in groups)])


def _metric_values(scores: Sequence[Score]) -> list[float]:
    return [s.metric for s in scores if s.metric is not None and s.reward is not None]


def _mean(values: Sequence[float] | Floats) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


class Clock:
    """Adds up the wall seconds of named stages; the GPU is not waited for.

    A stage inside another counts in both.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._lap_start = now()
        self._seconds: Metrics = defaultdict(float)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a block under `time/<name>`, also when it raises."""
        start = self._now()
        try:
            yield
        finally:
            self._seconds[f"time/{name}"] += self._now() - start

    def lap(self) -> Metrics:
        """Return the seconds by stage since the last lap, with `time/step` for all, and restart."""
        end = self._now()
        seconds = {**self._seconds, "time/step": end - self._lap_start}
        self._lap_start, self._seconds = end, defaultdict(float)
        return seconds


def memory_metrics() -> Metrics:
    """Peaks in MiB: `memory/peak` of this process so far; `memory/cuda_peak` since the last call.

    The CUDA number appears only where CUDA is already in use.
    """
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    found = {"memory/peak": peak * unit / 2**20}
    torch = sys.modules.get("torch")  # never imported for the sake of a number
    if torch is not None and torch.cuda.is_initialized():
        found["memory/cuda_peak"] = torch.cuda.max_memory_allocated() / 2**20
        torch.cuda.reset_peak_memory_stats()
    return found


class MetricsLog:
    """Writes `metrics.jsonl`, one object a step, and keeps the latest rows for the diagnosis."""

    def __init__(self, run: Path) -> None:
        self._journal = Journal(run / "metrics.jsonl")
        self._load()

    @property
    def recent(self) -> Sequence[Mapping[str, Any]]:
        """The latest rows, oldest first; missing values are None or NaN."""
        return tuple(self._rows)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append one step; NaN and infinities are written as null."""
        row = {"step": step, **metrics}
        self._journal.append([row])
        self._rows.append(row)

    def rows(self) -> Iterable[Mapping[str, Any]]:
        """Read every row back from disk, oldest first."""
        return self._journal.rows()

    def truncate_to_step(self, step: int) -> None:
        """Drop the rows of later steps, before a run resumes from `step`."""
        self._journal.truncate_to_step(step)
        self._load()

    def _load(self) -> None:
        self._rows: deque[Mapping[str, Any]] = deque(self._journal.rows(), maxlen=HISTORY_STEPS)
