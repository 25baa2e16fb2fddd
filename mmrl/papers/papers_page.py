"""docs/papers.md, written from the files of configs/papers."""

from __future__ import annotations

from collections.abc import Sequence

from mmrl.papers.overview import GROUPS, algorithms, counted
from mmrl.papers.paper_files import PaperFile

HEAD = """# Papers

Written by `mmrl papers --write docs/papers.md`; a test keeps it true.

Systems of the literature, a configuration each in `configs/papers`. `mmrl papers NAME` shows one:
its stages, its reward, what differs from the authors' code, and which options are ours because
nothing published was found for them.

```bash
mmrl papers --modality video     # a list; also --group, --status, --algorithm, --json
mmrl papers r1_vl                # one
```

<!-- not run: they train; tests/papers does the same -->
```bash
mmrl train configs/papers/r1_vl.yaml --small
mmrl papers --check r1_vl open_rs   # the small forms of these; without names, of all
mmrl papers --check --shard 1/4     # a quarter of them, for several machines or jobs
```

`--small` keeps what a method is made of (phases, algorithm, task, reward, curriculum) and takes
the tiny model, the records that ship with the task, and two steps a phase; the section `small` of a
file says what it has otherwise. That a small form runs shows that a system runs, not that it
reproduces the paper's figures.

`works`: what the paper is about is here, and its small form runs. `parts`: its small form runs;
what is missing stands below the table. `nothing`: why. Whether their losses are the papers' is
checked apart from that: [Preference pairs](preferences.md#which-numbers-are-checked).
"""


def page(papers: Sequence[PaperFile]) -> str:
    """The page as Markdown."""
    text = HEAD + "\n" + "\n".join(f"- {line}" for line in counted(papers)) + "\n"
    text += _namesakes(papers)
    for group, title in GROUPS.items():
        found = [paper for paper in papers if paper.about.group == group]
        if found:
            text += f"\n## {title}\n\n" + _table(found) + _lacking(found)
    return text


def _table(papers: Sequence[PaperFile]) -> str:
    rows = [
        "| file | system | what is new | modality | algorithm | here |",
        "|---|---|---|---|---|---|",
    ]
    for paper in papers:
        about = paper.about
        system = f"{about.name}, {about.source}"
        used = algorithms(paper)
        cells = (
            f"`{paper.id}`",
            system,
            about.summary,
            ", ".join(about.modality),
            ", ".join(f"`{name}`" for name in used.split(", ")) if used else "-",
            about.status,
        )
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def _lacking(papers: Sequence[PaperFile]) -> str:
    found = [paper for paper in papers if paper.about.lacks]
    if not found:
        return ""
    lines = [f"- `{paper.id}`: {'; '.join(paper.about.lacks)}" for paper in found]
    return "\nWhat is missing:\n\n" + "\n".join(lines) + "\n"


def _namesakes(papers: Sequence[PaperFile]) -> str:
    """Systems that share a name."""
    names: dict[str, list[PaperFile]] = {}
    for paper in papers:
        for name in dict.fromkeys((paper.about.name, *paper.about.also)):
            names.setdefault(name, []).append(paper)
    lines = []
    for name, found in sorted(names.items()):
        each = [f"`{p.id}` ({p.about.title}, {p.about.source})" for p in found]
        named = [p for p in found if p.about.name == name]
        each += [f"not here: {other}" for p in named for other in p.about.namesakes]
        lines += [f"- {name}: {'; '.join(each)}"] if len(each) > 1 else []
    if not lines:
        return ""
    return "\nNames that several systems have:\n\n" + "\n".join(lines) + "\n"
