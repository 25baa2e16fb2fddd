"""A task's records as a model sees them, with the right answer drawn into the picture."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from markupsafe import Markup

from mmrl import plugins
from mmrl.report.cards import card_of, visible
from mmrl.report.rendering import MAX_BYTES, assets, environment, fitting, write_whole
from mmrl.runlog.journal import plain
from mmrl.runlog.transcript import file_stem, marks_on, preview, sheet_indices
from mmrl.scoring.tasks import asked, example_answer, resolve_weights, weigh
from mmrl.task import Task
from mmrl.types import Media, MediaRef, Sample, Text

_JUNK = "I do not know."


def write_preview(
    task: Task,
    path: Path,
    out: Path,
    limit: int,
    columns: Mapping[str, str | None] | None = None,
    roots: Sequence[Path] = (),
) -> Path:
    """Write the page of the first records of a file; returns its path."""
    records = task.records(path, columns, roots)
    samples = [asked(task, record) for record in islice(records, limit)]
    page = environment().get_template("preview.html.j2")
    facts = [("Metric", f"{task.metric}, {task.better} is better"), ("Records", str(path))]
    context = {
        **assets(),
        "kicker": "mmrl task preview",
        "title": task.name,
        "facts": facts,
        "state": task.summary,
        "parts": task.parts,
        "total": len(samples),
    }
    macro = environment().get_template("record.html.j2").module.shown  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory(prefix="mmrl-") as folder:
        cards = fitting(
            len(samples),
            lambda i: Markup(macro(card_of(_row(task, samples[i], Path(folder)), Path(folder)))),
            MAX_BYTES - 100_000,
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    return write_whole(out, visible(page.render(context, cards=[card for _, card in cards])))


def _row(task: Task, sample: Sample, folder: Path) -> dict[str, Any]:
    """A line as of a transcript, whose responses are the right answer, none, and junk."""
    blank = example_answer(sample)
    try:
        target = task.completion(sample, blank)
    except ValueError:  # what the record gives contradicts its gold
        target = task.target(sample, blank)
    weights = resolve_weights(task, {})
    texts = [text for text in (target, "", _JUNK) if text is not None]
    answers = [dataclasses.replace(blank, text=text) for text in texts]
    scores = [weigh(task.score(sample.gold, answer), weights) for answer in answers]
    media = [part for part in sample.parts if isinstance(part, MediaRef)]
    asked = [p.text if isinstance(p, Text) else f"[{p.kind}]" for p in sample.parts]
    return {
        "id": sample.id,
        "prompt": "\n".join([*([f"system: {sample.system}"] if sample.system else []), *asked]),
        "media": [described(ref, folder) for ref in media],
        "gold": plain(sample.gold),
        "responses": [
            {
                "text": text,
                "reward": score.reward,
                "parts": dict(score.parts),
                "status": score.status,
                "reason": score.reason,
                "marks": marks_on(score.marks, blank.frames),
            }
            for text, score in zip(texts, scores, strict=True)
        ],
    }


def described(ref: MediaRef, folder: Path) -> dict[str, Any]:
    """A medium as a transcript describes it; its thumbnail is written into `folder`."""
    medium: Media = plugins.load("modality", ref.kind).decode(ref)
    name = f"media/{file_stem(medium.hash)}{'.wav' if ref.kind == 'audio' else '.jpg'}"
    (folder / "media").mkdir(exist_ok=True)
    (folder / name).write_bytes(preview(medium))
    return {
        "kind": ref.kind,
        "thumbnail": name,
        "processed_size": list(medium.frame.source_size),
        "seconds": list(medium.frame.seconds),
        **({"shown": sheet_indices(len(medium.array))} if ref.kind == "video" else {}),
    }
