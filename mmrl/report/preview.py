"""A task's records as a model sees them, with the right answer drawn into the picture."""

from __future__ import annotations

import dataclasses
import re
import tempfile
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image, ImageDraw

from mmrl import plugins
from mmrl.report.cards import card_of, visible
from mmrl.report.rendering import MAX_BYTES, assets, environment, fitting, write_whole
from mmrl.runlog.journal import plain
from mmrl.runlog.transcript import file_stem, preview
from mmrl.scoring.tasks import asked, example_answer, resolve_weights, weigh
from mmrl.task import Task
from mmrl.types import Answer, Media, MediaRef, Sample, Text

Marks = Sequence[tuple[float, ...]]
_NUMBERS = re.compile(r"[\[(]\s*(-?[\d.]+(?:\s*,\s*-?[\d.]+){1,3})\s*[\])]")
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
    marks = coordinates(task, sample, blank)
    media = [part for part in sample.parts if isinstance(part, MediaRef)]
    asked = [p.text if isinstance(p, Text) else f"[{p.kind}]" for p in sample.parts]
    return {
        "id": sample.id,
        "prompt": "\n".join([*([f"system: {sample.system}"] if sample.system else []), *asked]),
        "media": [_medium(ref, marks if i == 0 else (), folder) for i, ref in enumerate(media)],
        "gold": plain(sample.gold),
        "responses": [
            {
                "text": text,
                "reward": score.reward,
                "parts": dict(score.parts),
                "status": score.status,
                "reason": score.reason,
            }
            for text, score in zip(texts, scores, strict=True)
        ],
    }


def coordinates(task: Task, sample: Sample, blank: Answer) -> Marks:
    """Boxes and points of the right answer in pixels of the first picture.

    Which numbers of it are coordinates shows in that they change with the space.
    """
    if not blank.frames:
        return ()
    pixels = _groups(task.target(sample, dataclasses.replace(blank, space="processed_pixels")))
    units = _groups(task.target(sample, dataclasses.replace(blank, space="unit")))
    if len(pixels) != len(units):
        return ()
    return [p for p, u in zip(pixels, units, strict=True) if p != u and len(p) in (2, 4)]


def _groups(text: str | None) -> list[tuple[float, ...]]:
    found = []
    for match in _NUMBERS.finditer(text or ""):
        try:
            found.append(tuple(float(number) for number in match[1].split(",")))
        except ValueError:
            continue
    return found


def _medium(ref: MediaRef, marks: Marks, folder: Path) -> dict[str, Any]:
    medium: Media = plugins.load("modality", ref.kind).decode(ref)
    if marks and medium.array.ndim == 3:
        medium = dataclasses.replace(medium, array=_drawn(medium.array, marks))
    name = f"media/{file_stem(medium.hash)}{'.wav' if ref.kind == 'audio' else '.jpg'}"
    (folder / "media").mkdir(exist_ok=True)
    (folder / name).write_bytes(preview(medium))
    return {
        "kind": ref.kind,
        "thumbnail": name,
        "processed_size": list(medium.frame.source_size),
        "seconds": list(medium.frame.seconds),
    }


def _drawn(array: Any, marks: Marks) -> Any:
    image = Image.fromarray(array).convert("RGB")
    pen = ImageDraw.Draw(image)
    width = max(2, round(max(image.size) / 200))
    for mark in marks:
        if len(mark) == 4:
            x0, x1 = sorted(mark[::2])
            y0, y1 = sorted(mark[1::2])
            pen.rectangle((x0, y0, x1, y1), outline="#ff2d55", width=width)
        else:
            x, y = mark
            reach = 3 * width
            pen.ellipse(
                (x - reach, y - reach, x + reach, y + reach), outline="#ff2d55", width=width
            )
    return np.asarray(image)
