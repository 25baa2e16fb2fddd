"""The command about systems of papers: what there is, one of them, and whether they run."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from mmrl.commands.output import Commands, command, show
from mmrl.errors import ConfigError
from mmrl.paper_config import PaperGroup, PaperModality, PaperStatus

if TYPE_CHECKING:
    from mmrl.papers.paper_files import PaperFile


def add(commands: Commands) -> None:
    """Add the command."""
    parser = command(commands, "papers", "list systems of papers, show one, or check that they run")
    parser.add_argument("names", nargs="*", metavar="NAME", help="one to show, or those to check")
    parser.add_argument("--group", choices=get_args(PaperGroup))
    parser.add_argument("--modality", choices=get_args(PaperModality))
    parser.add_argument("--status", choices=get_args(PaperStatus))
    parser.add_argument("--algorithm", help="those with a phase of it")
    parser.add_argument("--check", action="store_true", help="run the small form of each")
    parser.add_argument("--shard", metavar="I/N", help="with --check: the I-th of N equal parts")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the page of docs")
    parser.set_defaults(command=_papers)


def _papers(arguments: argparse.Namespace) -> None:
    from mmrl.papers import overview, paper_files, papers_page

    if arguments.write:
        page = papers_page.page(paper_files.all_papers())
        arguments.write.write_text(page, encoding="utf-8")
        show(arguments, [str(arguments.write)], {"page": arguments.write})
        return
    papers = [p for p in paper_files.find_papers(arguments.names) if _is_asked(p, arguments)]
    if arguments.check:
        _check(arguments, papers)
    elif arguments.names:
        everyone = paper_files.all_papers()
        texts = ["\n".join(overview.described(paper, everyone)) for paper in papers]
        show(arguments, ["\n\n".join(texts)], [overview.row(paper) for paper in papers])
    else:
        lines = [*map(overview.line, papers), "", *overview.counted(papers)]
        show(arguments, lines, [overview.row(paper) for paper in papers] if arguments.json else [])


def _is_asked(paper: PaperFile, arguments: argparse.Namespace) -> bool:
    from mmrl.papers.overview import algorithms

    about, name = paper.about, arguments.algorithm
    return (
        arguments.group in (None, about.group)
        and (arguments.modality is None or arguments.modality in about.modality)
        and arguments.status in (None, about.status)
        and (name is None or name in algorithms(paper).split(", "))
    )


def _check(arguments: argparse.Namespace, papers: list[PaperFile]) -> None:
    from mmrl.papers.overview import counted
    from mmrl.papers.proof import Proof, prove

    def tell(proof: Proof) -> None:
        if not arguments.json:
            print(proof.line(), flush=True)

    mine = papers[_shard(arguments.shard)]
    proofs = prove(mine, tell)
    failed = [proof for proof in proofs if proof.problem]
    seconds = sum(proof.seconds for proof in proofs)
    total = f"{len(proofs) - len(failed)} of {len(proofs)} as they say, in {seconds:.0f} s"
    show(arguments, ["", *counted(mine), total], [asdict(proof) for proof in proofs])
    if failed:
        raise SystemExit(1)


def _shard(asked: str | None) -> slice:
    """Every N-th from the I-th; I/N counts from 1."""
    if asked is None:
        return slice(None)
    first, _, of = asked.partition("/")
    if not (first.isdigit() and of.isdigit() and 1 <= int(first) <= int(of)):
        raise ConfigError(f"--shard {asked}: write it as I/N, such as 1/4")
    return slice(int(first) - 1, None, int(of))
