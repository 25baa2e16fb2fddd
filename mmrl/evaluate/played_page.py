"""A played episode as a page: screens, what was said at each, where it landed, what it earned."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

from markupsafe import Markup

from mmrl.evaluate.playing import Played
from mmrl.frame import Frame
from mmrl.report.cards import card_of, visible
from mmrl.report.preview import described
from mmrl.report.rendering import assets, environment, write_whole
from mmrl.runlog.journal import plain
from mmrl.runlog.transcript import marks_on
from mmrl.types import MediaRef, Text


def write_played(found: Played, out: Path) -> Path:
    """Write the page; returns its path."""
    page = environment().get_template("played.html.j2")
    macro = environment().get_template("record.html.j2").module.shown  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory(prefix="mmrl-") as folder:
        card = Markup(macro(card_of(_row(found, Path(folder)), Path(folder))))
    context = {
        **assets(),
        "kicker": "mmrl play",
        "title": found.sample.id,
        "facts": [("Task", found.task.name), (found.task.metric, str(found.score.metric))],
        "state": found.task.summary,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    return write_whole(out, visible(page.render(context, card=card)))


def _row(found: Played, folder: Path) -> dict[str, Any]:
    """The episode as a line of a run's transcript."""
    sample, answer, score = found.sample, found.answer, found.score
    asked = [part for part in sample.parts if isinstance(part, MediaRef)]
    frames = list(answer.frames)
    screens = [len(asked) - 1]
    turns: list[dict[str, Any]] = [{"said": said, "media": []} for said in answer.turns]
    for number, seen in enumerate(found.observations):
        media = [part for part in seen.parts if isinstance(part, MediaRef)]
        turns[number]["earned"] = seen.reward
        if number + 1 < len(turns):
            turns[number + 1]["media"] = [described(ref, folder) for ref in media]
            # Of several pictures the last is the screen; the others have no places on them.
            frames += [answer.screens[number + 1] or Frame()] * len(media)
        screens.append(screens[-1] + len(media))
    marks = [
        dataclasses.replace(mark, medium=screens[mark.turn]) if mark.turn is not None else mark
        for mark in score.marks
    ]
    return {
        "id": sample.id,
        "task": found.task.name,
        "prompt": "\n".join(p.text if isinstance(p, Text) else f"[{p.kind}]" for p in sample.parts),
        "media": [described(ref, folder) for ref in asked],
        "gold": plain(sample.gold),
        "responses": [
            {
                "text": answer.text,
                "reward": score.reward,
                "parts": dict(score.parts),
                "metric": score.metric,
                "status": score.status,
                "reason": score.reason,
                "turns": turns,
                "after": _after(found, folder),
                "marks": marks_on(marks, frames),
            }
        ],
    }


def _after(found: Played, folder: Path) -> dict[str, Any] | None:
    """What the environment showed and said after the last turn, if it did."""
    seen = found.observations[-1] if found.observations else None
    if seen is None or not (seen.parts or seen.text):
        return None
    texts = [part.text for part in seen.parts if isinstance(part, Text)] or [seen.text]
    return {
        "media": [described(part, folder) for part in seen.parts if isinstance(part, MediaRef)],
        "said": "\n".join(text for text in texts if text.strip()),
    }
