"""The page of an evaluation: the number, what was counted, by group, and the answers themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from mmrl.evaluate.answers import Answers, Asked
from mmrl.evaluate.summary import Evaluation
from mmrl.report.cards import card_of, visible
from mmrl.report.charts import Interval, intervals
from mmrl.report.rendering import MAX_BYTES, assets, environment, fitting, write_whole
from mmrl.runlog.journal import plain
from mmrl.types import Sample, Text

REJECTED_SHOWN = 100
GROUPS = ("passed", "sometimes passed", "not passed", "no verdict")


@dataclass(frozen=True)
class _Shown:
    """A record with its rows of `Evaluation.answers`."""

    sample: Sample
    asked: Asked
    rows: Sequence[Mapping[str, Any]]


def write_page(
    path: Path,
    evaluation: Evaluation,
    facts: Mapping[str, str],
    samples: Sequence[Sample],
    answers: Answers,
    folder: Path,
) -> Path:
    """Write the page beside the result; `folder` holds the thumbnails. Returns its path."""
    return write_whole(path, render(path.stem, evaluation, facts, samples, answers, folder))


def render(
    title: str,
    evaluation: Evaluation,
    facts: Mapping[str, str],
    samples: Sequence[Sample],
    answers: Answers,
    folder: Path,
    *,
    max_bytes: int = MAX_BYTES,
) -> str:
    """Render the page; records are sampled so that it stays under `max_bytes`."""
    page = environment().get_template("evaluation.html.j2")
    context = {**_context(evaluation), **assets(), "title": title, "kicker": "mmrl evaluation"}
    context["facts"] = [(name, value) for name, value in facts.items() if value]
    bare = visible(page.render(context, cards=[]))
    cards = _cards(
        evaluation, samples, answers, folder, max_bytes - len(bare.encode("utf-8", "replace"))
    )
    return visible(page.render(context, cards=cards))


def _context(evaluation: Evaluation) -> dict[str, Any]:
    official = evaluation.official or {}
    bars = [Interval("as scored", evaluation.metric, evaluation.low, evaluation.high)]
    if official:
        bars += [Interval("official", official["metric"], official["low"], official["high"])]
    theirs, passes = official.get("breakdown", {}), official.get("pass_at_k", {})
    params = official.get("params", {})
    return {
        "e": evaluation,
        "drawn": intervals(bars),
        "official_params": ", ".join(f"{name} = {value}" for name, value in params.items()),
        "counts": _counts(evaluation),
        "passes": [(k, v, passes.get(k)) for k, v in evaluation.pass_at_k.items()],
        "breakdown": [(n, v, theirs.get(n)) for n, v in evaluation.breakdown.items()],
        "rejected": evaluation.rejected[:REJECTED_SHOWN],
        "groups": GROUPS,
        "state": "",
    }


def _counts(evaluation: Evaluation) -> list[tuple[str, int]]:
    return [
        ("records asked", evaluation.records),
        ("answers", evaluation.records * evaluation.samples),
        ("unparsable answers", evaluation.unparsable),
        ("truncated answers", evaluation.truncated),
        ("answers without a verdict", evaluation.unscorable),
        ("records with unreadable media", evaluation.unreadable),
        ("records rejected", len(evaluation.rejected)),
    ]


def _cards(
    evaluation: Evaluation,
    samples: Sequence[Sample],
    answers: Answers,
    folder: Path,
    budget: int,
) -> list[Markup]:
    macro = environment().get_template("record.html.j2").module.verdict  # type: ignore[attr-defined]
    each = evaluation.samples

    def card(index: int) -> Markup | None:
        asked = answers.find(samples[index], each)
        if asked is None:
            return None
        rows = evaluation.answers[index * each : (index + 1) * each]
        passed = sum(evaluation.passes(row["metric"]) for row in rows)
        made = card_of(_card_row(_Shown(samples[index], asked, rows)), folder)
        group = _group(rows, passed)
        return Markup(macro(made, index, group, passed, asked.unreadable))

    return [markup for _, markup in fitting(len(samples), card, budget)]


def _group(rows: Sequence[Mapping[str, Any]], passed: int) -> str:
    if all(row["metric"] is None for row in rows):
        return "no verdict"
    if not passed:
        return "not passed"
    return "passed" if passed == len(rows) else "sometimes passed"


def _card_row(shown: _Shown) -> dict[str, Any]:
    """The record as a line of a run's transcript; the metric stands where the reward does."""
    asked = shown.asked
    responses = [
        {
            "text": row["text"],
            "length": length,
            "finish": "length" if cut else "stop",
            "reward": row["metric"],
            "status": row["status"],
            "reason": row["reason"],
            "marks": row.get("marks", []),
        }
        for row, length, cut in zip(shown.rows, asked.lengths, asked.truncated, strict=False)
    ]
    prompt = [p.text if isinstance(p, Text) else f"[{p.kind}]" for p in shown.sample.parts]
    return {
        "id": shown.sample.id,
        "task": shown.sample.task,
        "prompt": "\n".join(prompt),
        "media": list(asked.media),
        "gold": plain(shown.sample.gold),
        "responses": responses,
    }
