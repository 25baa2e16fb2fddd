"""Tries every image-text and audio type of the installed transformers: shared, plain, or why not.

    python tools/family_survey.py                 # all types: the table, and the data behind it
    python tools/family_survey.py molmo2 aria     # some types: prints what is found
    python tools/family_survey.py --keep molmo2   # some types, into the table of all
    python tools/family_survey.py --oldest        # all types of an older library: their number only

A type that no family serves is made tiny (`tests/families/other_types.py`), in a process of its
own, and goes through the generic family: the trial on loading, and, where prompts are shared, the
embedded engine against the model's own `generate`. What cannot be made is listed with the reason.
Towers of gemma3n, perception_lm and fast_vlm need the timm package.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import queue
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
import transformers as tf  # noqa: E402
from transformers.models.auto import modeling_auto, processing_auto  # noqa: E402

from mmrl import plugins  # noqa: E402
from mmrl.engines import plain_generate  # noqa: E402
from mmrl.engines.engine import Sampling  # noqa: E402
from mmrl.engines.hf import HFEngine  # noqa: E402
from mmrl.errors import one_line  # noqa: E402
from mmrl.policy.families import generic  # noqa: E402
from mmrl.policy.families import survey as known  # noqa: E402
from mmrl.policy.family import Limits  # noqa: E402
from mmrl.policy.policy import wrap  # noqa: E402
from mmrl.policy.shared_prefix import SharedRow  # noqa: E402
from tests.families import other_types  # noqa: E402
from tests.families.cases import relative, shared  # noqa: E402

DATA = ROOT / "mmrl" / "policy" / "families" / "survey.json"
PAGE = ROOT / "docs" / "family_survey.md"
SECONDS = 900
NOT_MADE = {
    "evolla": "reads proteins, not pictures",
    "pi0": "a robot's policy: it makes actions, not tokens",
    "kyutai_speech_to_text": "adds sound to every token: nothing stands for it in a prompt",
    "voxtral_realtime": "adds sound to every token: nothing stands for it in a prompt",
    "diffusion_gemma": "writes blocks by diffusion, not token by token",
    "unlimited_ocr": "decodes with another attention than its forward has",
    "blip": "its `generate` leaves out the last token of its prompt",
    "udop": "reads words with their boxes, which OCR finds",
    "shieldgemma2": "its processor asks about each of its policies, not what the prompt asks",
    "voxtral": "its processor takes sound through the chat of the mistral-common package alone",
}
"""Types that are not tried, and why."""

Row = dict[str, Any]


def survey(names: Sequence[str]) -> list[Row]:
    """A row for each type of model."""
    own = {
        kind: name
        for name in plugins.available("family")
        for kind in plugins.load("family", name).DECLARATION.model_types
    }
    return [_row(name, own.get(name)) for name in names]


def _row(name: str, family: str | None) -> Row:
    if family is not None:
        declared = plugins.load("family", family).DECLARATION
        return {"type": name, "verdict": "family", "takes": declared.takes, "why": family}
    why = NOT_MADE.get(name) or _rule(name)
    if why:
        return {"type": name, "verdict": "refused", "takes": (), "why": why}
    if name not in other_types.RECIPES:
        return {"type": name, "verdict": "not tried", "takes": (), "why": "no tiny model of it yet"}
    return _apart(name)


def _rule(name: str) -> str:
    """Why no model of a type can be served, by the library's tables."""
    served = name in processing_auto.PROCESSOR_MAPPING_NAMES or name in other_types.RECIPES
    return "" if served else "the library has no processor for it"


def _apart(name: str) -> Row:
    """Try a type in a process of its own: what fails there fails alone."""
    context = multiprocessing.get_context("fork")
    answers: Any = context.Queue()
    process = context.Process(target=_tried, args=(name, answers))
    process.start()
    try:
        row: Row = answers.get(timeout=SECONDS)
    except queue.Empty:
        row = {"verdict": "refused", "takes": (), "why": f"no answer in {SECONDS} s"}
    process.kill()
    process.join()
    return {"type": name, **row}


def _tried(name: str, answers: Any) -> None:
    warnings.filterwarnings("ignore")
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    try:
        model, processor = other_types.make(name)
    except Exception as error:  # whatever a class of the library raises
        answers.put({"verdict": "not tried", "takes": (), "why": one_line(error)})
        return
    try:
        answers.put(_served(model, processor))
    except Exception as error:
        answers.put({"verdict": "refused", "takes": (), "why": one_line(error)})


def _served(model: Any, processor: Any) -> Row:
    own_attention = model.config.get_text_config()._attn_implementation
    family = generic.build(model, processor, Limits(4000))
    made = wrap(model, processor, family)
    declared = family.declaration
    found: Row = {"takes": declared.takes, "why": declared.notes.partition("reason: ")[2]}
    if not declared.shared_prefix:
        return {"verdict": "plain", **found}
    prompts = list(family.trials())
    engine = HFEngine(made)
    greedy = Sampling(max_new_tokens=8, temperature=0.0)
    ours = engine.generate(prompts, [1] * len(prompts), greedy, 0)
    drawn = engine.generate(prompts, [2] * len(prompts), Sampling(max_new_tokens=8), 0)
    rows = [
        SharedRow(p, tuple(r.ids for r in group)) for p, group in zip(prompts, drawn, strict=True)
    ]
    with torch.no_grad():
        trained = shared(made, rows)
    sampled = torch.cat([torch.from_numpy(r.logprobs) for group in drawn for r in group])
    found["gap"] = relative(trained.double(), sampled)
    alone = replace(made, family=family.declared(shared_prefix=False))
    with torch.no_grad(), family.attending(own_attention):
        theirs = plain_generate.generate(alone, prompts, [1] * len(prompts), greedy, 0)
    same = [a[0].ids.tolist() == b[0][0].tolist() for a, b in zip(ours, theirs, strict=True)]
    found["greedy"] = f"{sum(same)} of {len(same)}"
    return {"verdict": "shared" if all(same) and found["gap"] < 1e-4 else "differs", **found}


def page(found: Row) -> str:
    """What was found as a page of the documentation."""
    rows, counts = found["types"], _counts(found["types"])
    lines = [
        "# Which models run, type by type",
        "",
        "Made by `python tools/family_survey.py`; not written by hand. It tries each of the "
        f"{len(rows)} types of `AutoModelForMultimodalLM` in transformers "
        f"{found['transformers']}: as a tiny random model of the real class, through `generic`, in "
        "float32 on a CPU. `mmrl families --all` prints the same.",
        "",
        *(f"- **{verdict}** ({counts[verdict]}): {words}" for verdict, words in WORDS.items()),
        "",
        f"In transformers {found['oldest']['transformers']}, the oldest that is supported, of "
        f"{sum(found['oldest']['counts'].values())} types: "
        + ", ".join(f"{n} {verdict}" for verdict, n in found["oldest"]["counts"].items() if n)
        + ".",
        "",
        "| type | | takes | greedy | gap | remarks |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        gap = f"{row['gap']:.0e}" if "gap" in row else ""
        takes = ", ".join(kind for kind in row["takes"] if kind != "screenshot")
        cells = (row["type"], row["verdict"], takes, row.get("greedy", ""), gap, row["why"])
        lines.append("| " + " | ".join(str(c).replace("|", "\\|") for c in cells) + " |")
    return "\n".join(lines) + "\n"


def _counts(rows: Sequence[Row]) -> dict[str, int]:
    """How many types have each verdict."""
    return {verdict: sum(row["verdict"] == verdict for row in rows) for verdict in WORDS}


WORDS = {
    "family": "a family of its own serves it (the remark names it)",
    "shared": "`generic` shares prompts: log-probs and gradients of shared rows equal those with a "
    "copy of the prompt for every response (relative errors below 1e-5 and 1e-4); greedy answers "
    "of the embedded engine equal `generate`'s for so many of the trial prompts; `gap` is the "
    "relative difference between sampled and trained log-probs",
    "plain": "`generic` trains and samples every response with its own copy of the prompt",
    "differs": "shares by the trial, but the embedded engine disagrees: a fault",
    "refused": "not served, for the reason in the remark",
    "not tried": "nobody has made a tiny model of it, or it needs a package that is not installed",
}


def main() -> None:
    """Write the table of all types, or print what is found of some."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("types", nargs="*")
    parser.add_argument("--keep", action="store_true", help="write these types into the table")
    parser.add_argument("--oldest", action="store_true", help="write how many of each verdict")
    given = parser.parse_args()
    every = sorted(modeling_auto.MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES)
    before = {row["type"]: row for row in known.rows()} if given.keep else {}
    for name in given.types or every:
        (before[name],) = survey([name])
        print(json.dumps(before[name]), flush=True)
        if given.keep:
            _write({"types": [before[kind] for kind in every]})
    if given.types:
        return
    rows = [before[kind] for kind in every]
    counts = {"transformers": tf.__version__, "counts": _counts(rows)}
    _write({"oldest": counts} if given.oldest else {"types": rows})


def _write(news: Row) -> None:
    """Put news beside what is known; `types` are of the installed library."""
    before = json.loads(DATA.read_text(encoding="utf-8"))
    version = {"transformers": tf.__version__} if "types" in news else {}
    found = {**before, **version, **news}
    DATA.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main()
