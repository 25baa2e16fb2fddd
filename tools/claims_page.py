"""docs/claims.md, written from configs/claims and its results."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from claims_measures import MEANS

if TYPE_CHECKING:
    from claims import Claim

HEAD = """# Claims in miniature

Written by `python tools/claims.py --page`; a test keeps it true to `configs/claims`.

What systems of the literature say of themselves, each in a metric of its own, tried small: the tiny
Qwen2.5-VL (1.4 M parameters) counts handwritten digits, system and control with the same seeds.
That a claim shows here does not mean that it holds at the paper's size, and that it does not show
does not mean that it fails there: the effect may need long answers, a large model or more than the
12 to 28 steps here. Settings are the papers', scaled, chosen before the runs; what was tried
besides is said.

`shows`: better for every seed. `opposite`: worse for every seed. `does not show`: seeds disagree.
`shows, at a cost`: better for every seed, but accuracy, which the paper keeps, fell by more than
the margin. With three seeds chance alone says `shows` once in eight. The start of claims about
lengths is right in 88% of its greedy answers, and GRPO alone shortens the 12 to 14 tokens of its
sampled ones to 5 to 10, which leaves less to show.

<!-- not run: minutes of training; tests/tools/test_claims.py checks the files and this page -->
```bash
OMP_NUM_THREADS=1 python tools/claims.py cppo ton   # these anew; --all: every one
```
"""


def page(claims: Mapping[str, Claim], results: Mapping[str, Mapping[str, Any]]) -> str:
    """The page as Markdown."""
    tried = {name: results[name] for name in claims if name in results}
    found = Counter(row["verdict"] for row in tried.values())
    counted = ", ".join(f"{count} {verdict}" for verdict, count in found.most_common())
    machines = " or ".join(sorted({row["machine"] for row in tried.values()}))
    text = f"{HEAD}\n{len(tried)} claims tried on {machines}: {counted}. Medians (least to most)."
    if untried := sorted(set(claims) - set(tried)):
        text += f" Written down, and not yet tried: {', '.join(f'`{name}`' for name in untried)}."
    text += "\n\n"
    text += _table(claims, tried) + "\n## Each\n"
    for name in tried:
        text += "\n" + _told(name, claims[name], tried[name])
    return text


def _table(claims: Mapping[str, Claim], results: Mapping[str, Mapping[str, Any]]) -> str:
    lines = [
        "| claim | against | counted | better | system | control | here |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in results.items():
        claim = claims[name]
        cells = (
            f"[`{name}`](#{name}): {claim.claim}",
            claim.against,
            MEANS[claim.metric.name],
            claim.better,
            spread(row["system"]),
            spread(row["control"]),
            f"**{row['verdict']}**",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _told(name: str, claim: Claim, row: Mapping[str, Any]) -> str:
    """A claim in full: every seed, and what was counted beside."""
    last = f", mean of the last {claim.metric.last} steps" if claim.metric.last else ""
    lines = [
        f"### {name}",
        "",
        f"`configs/papers/{claim.paper}.yaml` against {claim.against}: {claim.claim}.",
        claim.setting,
        "",
        f"- {MEANS[claim.metric.name]}{last}: {_seeds(row)}",
    ]
    lines += [f"- {MEANS[key]}: {_seeds(values)}" for key, values in row["beside"].items()]
    lines += [f"- **{row['verdict']}**; `{row['command']}`"]
    return "\n".join(lines) + "\n"


def _seeds(row: Mapping[str, Sequence[float]]) -> str:
    told = (f"{arm} {', '.join(map(number, row[arm]))}" for arm in ("system", "control"))
    return "; ".join(told)


def spread(values: Sequence[float]) -> str:
    """The median, and the least and the most."""
    low, high = min(values), max(values)
    middle = number(statistics.median(values))
    return middle if low == high else f"{middle} ({number(low)} to {number(high)})"


def number(value: float) -> str:
    """Three digits that count."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
