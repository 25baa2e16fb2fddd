"""After the records: what they share with one another, and training records dropped for it."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence, Set
from pathlib import Path
from typing import Any

from mmrl.recipes.contamination import FINGERPRINTS, Match, OverlapIndex, read_fingerprints
from mmrl.recipes.settings import Drop
from mmrl.recipes.store import MediaStore
from mmrl.recipes.writer import LEFT_OUT

OVERLAP = "overlap.jsonl"


def find_overlap(out: Path, index: OverlapIndex, against: Iterable[Path]) -> dict[str, Any]:
    """Write `overlap.jsonl`, a line for each record and split that it shares something with.

    Returns the number of repeated questions by split, and by 'SPLIT ~ OTHER' and kind how many
    records of SPLIT share something with OTHER. Splits of `against` are named `FOLDER/SPLIT`.
    """
    for folder in against:
        for seen in read_fingerprints(folder):
            index.enter(seen.in_split(f"{folder.name}/{seen.split}"))
    repeated: Counter[str] = Counter()
    shared: dict[str, Counter[str]] = {}
    with (out / OVERLAP).open("w", encoding="utf-8") as file:
        for record in read_fingerprints(out):
            for match in index.matches(record):
                print(json.dumps(match.to_json()), file=file)
                if match.split == match.of_split:
                    repeated[match.split] += 1
                else:
                    pair = shared.setdefault(f"{match.split} ~ {match.of_split}", Counter())
                    pair[match.kind] += 1
    pairs = {pair: dict(sorted(counts.items())) for pair, counts in sorted(shared.items())}
    return {"repeated_questions": dict(sorted(repeated.items())), "shared": pairs}


def drop_shared(
    out: Path, index: OverlapIndex, training: Sequence[str], drop: Drop, store: MediaStore
) -> dict[str, Counter[str]]:
    """Take training records out that repeat a question or share one with another split.

    With `drop` "media" a shared medium is enough. Each goes to `left_out.jsonl`; media that no
    record needs any longer go too. Returns the numbers by split and reason.
    """
    reasons: dict[tuple[str, str], str] = {}
    media: set[str] = set()
    for record in read_fingerprints(out):
        matches = index.matches(record) if record.split in training else []
        reason = next(filter(None, (_reason(m, training, drop) for m in matches)), "")
        if reason:
            reasons[record.split, record.id] = reason
        else:
            media.update(record.media)
    for split in training:
        _remove(out / f"{split}.jsonl", reasons.keys(), split)
    _remove(out / FINGERPRINTS, reasons.keys())
    store.keep_only(media)
    counts: dict[str, Counter[str]] = {}
    with (out / LEFT_OUT).open("a", encoding="utf-8") as file:
        for (split, id), reason in reasons.items():
            print(json.dumps({"split": split, "id": id, "reason": reason}), file=file)
            counts.setdefault(split, Counter())[reason] += 1
    return counts


def _reason(match: Match, training: Sequence[str], drop: Drop) -> str:
    """Why the match costs the record its place; "" if it does not.

    Of training records that repeat a question the first stays.
    """
    if match.of_split in training:
        first = match.split == match.of_split or (
            training.index(match.of_split) < training.index(match.split)
        )
        return "repeats a question" if match.kind == "question" and first else ""
    if match.kind == "question" or (match.kind == "media" and drop == "media"):
        return f"shares its {match.kind} with {match.of_split}"
    return ""


def _remove(path: Path, gone: Set[tuple[str, str]], split: str | None = None) -> None:
    """Take the lines of these (split, id) out of a file; `split` is that of a file without any."""
    if not path.is_file():
        return
    kept = path.with_name(path.name + ".tmp")
    with path.open(encoding="utf-8") as lines, kept.open("w", encoding="utf-8") as file:
        for line in lines:
            row = json.loads(line)
            if (split or row["split"], row["id"]) not in gone:
                file.write(line)
    os.replace(kept, path)
