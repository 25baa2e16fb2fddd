"""What a run that goes on has otherwise than it began with. Nothing here needs torch."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from mmrl.config import RunConfig
from mmrl.data.samples import CHECKED, Samples
from mmrl.errors import ConfigError, UserError
from mmrl.runlog.claim import CONFIG
from mmrl.runlog.journal import to_json
from mmrl.types import Part, Sample, Text
from mmrl.validation import validate

Say = Callable[[str], None]

FREE = re.compile(
    r"(phases\.\d+\.)?(critic\.path|data\.(\d+\.)?(path|eval_path|stored|recipe.*)"
    r"|model\.(gradient_checkpointing|trust_remote_code)"
    r"|trainer\.(steps|backend|deepspeed|checkpoint_every|checkpoint_minutes|keep_checkpoints"
    r"|eval_every|eval_limit|trackers.*|tracked_answers|write_rollouts_every"
    r"|tokens_per_micro_batch|exchange_timeout_seconds)"
    r"|rollout\.(max_sequences|scoring_\w+|max_unscorable_share|vllm.*|servers.*|adapter_sync"
    r"|parity_\w+)"
    r"|judges\.\w+\.(url|key_variable|device|batch|in_flight|timeout_seconds|retries|price_\w+))"
)
"""Keys that say where and how long a run works, what it writes and how it is cut into passes.

The records themselves are compared by what is in them, wherever they lie.
"""


ADDRESS = re.compile(rb" at 0x[0-9a-f]+")
"""How Python writes what has no text of its own: another in every process."""


def changes(run: Path, config: RunConfig) -> dict[str, str]:
    """What differs between the configuration in a run's folder and this one, by key, in words."""
    file = run / CONFIG
    if not file.is_file():
        return {}
    before = yaml.safe_load(file.read_text(encoding="utf-8"))
    try:
        before = validate(RunConfig, before, str(file)).model_dump(mode="json")
    except UserError:  # of a version that had other keys
        before = before if isinstance(before, dict) else {}
    # Where its folder is, a run does not say.
    old, new = (
        {**dict(_flat(each)), "run": ""} for each in (before, config.model_dump(mode="json"))
    )
    return {
        key: f"{key} {old.get(key, 'unset')} -> {new.get(key, 'unset')}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    }


def refuse_changes(run: Path, config: RunConfig, *, allowed: bool) -> list[str]:
    """Raise ConfigError for changes that make it another run, unless `allowed`; returns all."""
    found = changes(run, config)
    grave = [words for key, words in found.items() if not FREE.fullmatch(key)]
    if grave and not allowed:
        raise ConfigError(
            f"{run} began otherwise: {listed(grave)}; undo it, or pass --allow-changes to go on so"
        )
    return list(found.values())


def accept(run: Path, config: RunConfig, step: int, allowed: bool, say: Say) -> None:
    """Write the configuration into a run's folder; what differs is said, the old one kept."""
    found = refuse_changes(run, config, allowed=allowed)
    if found:
        say(f"changed from step {step + 1} on: {listed(found)}")
        kept = run / f"config_until_step_{step}.yaml"
        if not kept.exists():  # of a start that made no step, the one before it is what was
            (run / CONFIG).replace(kept)
    (run / CONFIG).write_text(config.to_yaml(), encoding="utf-8")


def refuse_records(
    before: Mapping[str, str], now: Mapping[str, str], *, allowed: bool, say: Say
) -> None:
    """Raise ConfigError where the records of a source are not those that the run began with.

    Both give a digest by source; a checkpoint of an older version has none.
    """
    other = [key for key in now if before.get(key, now[key]) != now[key]]
    if not other:
        return
    words = f"the records of {', '.join(other)} are not those that the run began with"
    if not allowed:
        raise ConfigError(f"{words}; bring them back, or pass --allow-changes to go on with these")
    say(words)


def digest(samples: Sequence[Sample]) -> str:
    """A digest of what is asked and what is right, in order.

    Of media files the name and the size count: to read them all would take as long as an epoch. Of
    samples that are made when they are drawn, all ids count, which of them are drawn, and the first
    `CHECKED` records: the others are not read before a run begins.
    """
    found = sha256()
    read: Iterable[Sample] = samples
    if isinstance(samples, Samples):
        found.update(f"{samples.ids_digest} {len(samples)}".encode() + samples.places.tobytes())
        read = samples.usable(CHECKED)
    for sample in read:
        asked = [_told(part) for part in sample.parts]
        begins = [sample.system, sample.start, sample.turns]
        row = [sample.id, asked, begins, sample.gold, sample.target, sample.meta]
        row += [sample.reference.ranked] if sample.reference and sample.reference.ranked else []
        found.update(ADDRESS.sub(b"", to_json(row)) + b"\n")
    return found.hexdigest()


def _told(part: Part) -> Any:
    """What a digest knows of a part: bytes by their own digest, and no folder of this machine."""
    if isinstance(part, Text):
        return part.text
    source: Any = part.source
    if isinstance(source, bytes):
        source = sha256(source).hexdigest()
    elif isinstance(source, Path):
        source = [source.name, source.stat().st_size if source.is_file() else None]
    return [part.kind, source, part.options]


def listed(words: Sequence[str], most: int = 8) -> str:
    """The first of many changes, and how many more there are."""
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return f"{', '.join(words[:most])}{more}"


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of nested sections and lists by its dotted key."""
    items = enumerate(value) if isinstance(value, list) else value.items()
    for key, inner in items:
        name = f"{prefix}{key}"
        if isinstance(inner, dict | list):
            yield from _flat(inner, f"{name}.")
        else:
            yield name, inner
