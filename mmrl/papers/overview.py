"""What `mmrl papers` says of systems: a line each, or all of one."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from mmrl.algorithms.compose import compose
from mmrl.data_config import DataConfig
from mmrl.paper_config import PaperGroup, PaperStatus
from mmrl.papers.paper_files import PaperFile
from mmrl.scoring.tasks import load_task, resolve_weights
from mmrl.stage import NEEDS
from mmrl.train.phases import Phase, phases_of

GROUPS: Mapping[PaperGroup, str] = {
    "multimodal": "Systems that see or hear",
    "relative": "Relatives of GRPO",
    "text": "Text tasks",
    "preference": "Preference and value methods",
}


@dataclasses.dataclass(frozen=True)
class Stage:
    """A phase as people read it."""

    name: str
    algorithm: str
    options: Mapping[str, Any]
    reward: tuple[str, ...]
    steps: int
    learning_rate: float


def stages(paper: PaperFile) -> list[Stage]:
    """The phases of a system; none where nothing of it is here."""
    return [_stage(phase) for phase in phases_of(paper.config())] if paper.runs else []


def _stage(phase: Phase) -> Stage:
    config = phase.config
    options = {key: value for key, value in config.algorithm.items() if key != "name"}
    return Stage(
        phase.name or config.algorithm_name,
        config.algorithm_name,
        options,
        tuple(_reward(source) for source in config.data)
        + tuple(f"judge {name}" for name in config.judges),
        config.trainer.steps,
        config.optimizer.learning_rate,
    )


def _reward(source: DataConfig) -> str:
    """A source's task with the weights of its reward parts."""
    task = load_task(source.task, source.params)
    weights = resolve_weights(task, source.weights)
    paid = " + ".join(f"{weight:g} {part}" for part, weight in weights.items() if weight)
    return f"{source.task}: {paid}" if paid else source.task


def algorithms(paper: PaperFile) -> str:
    """The algorithms of its phases, in their order."""
    return ", ".join(dict.fromkeys(stage.algorithm for stage in stages(paper)))


def wanted(paper: PaperFile) -> tuple[str, ...]:
    """What it needs: as its file says, and what its algorithms ask of a run."""
    asked: set[str] = set()
    if paper.runs:
        for phase in phases_of(paper.config()):
            asked |= {str(need) for need in compose(phase.config.algorithm).needs}
    return (*paper.about.needs, *sorted(asked & NEEDS.keys()))


def row(paper: PaperFile) -> dict[str, Any]:
    """A system as data."""
    return {
        "id": paper.id,
        **paper.about.model_dump(),
        "algorithm": algorithms(paper),
        "needs": wanted(paper),
        "stages": [dataclasses.asdict(stage) for stage in stages(paper)],
        "config": str(paper.path),
    }


def line(paper: PaperFile) -> str:
    """A system in a line."""
    about = paper.about
    seen = "+".join(about.modality)
    return (
        f"{paper.id:22} {about.status:8} {seen:12} {algorithms(paper) or '-':22} "
        f"{about.name}: {about.summary} ({about.source})"
    )


def counted(papers: Sequence[PaperFile]) -> list[str]:
    """How many work, in parts, not, a line for each group."""
    lines = []
    for group, title in GROUPS.items():
        found = Counter(paper.about.status for paper in papers if paper.about.group == group)
        if found:
            said = ", ".join(f"{found[status]} {status}" for status in get_args(PaperStatus))
            lines.append(f"{title}: {said}")
    return lines


def evaluated(paper: PaperFile) -> list[str]:
    """The command that gives the paper's own numbers, where those of a run are not they."""
    if not paper.about.evaluation:
        return []
    config = paper.config()
    source = config.data[0]
    options = " ".join(
        f"{key}={shlex.quote(json.dumps(value))}" for key, value in paper.about.evaluation.items()
    )
    where = f"--model {config.run} --task {source.task} --data {source.eval_path}"
    return [f"mmrl eval {where} --max-new-tokens {config.rollout.max_new_tokens} {options}"]


def described(paper: PaperFile, others: Sequence[PaperFile]) -> list[str]:
    """All of one system; `others` are told apart where they have its name."""
    about = paper.about
    lines = [f"{about.name}: {about.summary}", f"{about.title} ({about.source}, {about.year})"]
    lines += [f"code: https://github.com/{about.code}"] if about.code else []
    lines += [f"here: {about.status}", *(f"  lacks: {what}" for what in about.lacks)]
    for other in others:
        if other.id != paper.id and other.about.names & about.names:
            lines.append(f"not to be mistaken for {other.id}: {other.about.title}")
    lines += [f"not to be mistaken for {what}, which is not here" for what in about.namesakes]
    for number, stage in enumerate(stages(paper), 1):
        options = ", ".join(f"{key}={value}" for key, value in stage.options.items())
        rate = f"{stage.steps} steps at {stage.learning_rate:g}"
        lines += ["", f"stage {number}, {stage.name}: {stage.algorithm}, {rate}"]
        lines += [f"  {options}"] if options else []
        lines += [f"  reward: {reward}" for reward in stage.reward]
    for title, said in (
        ("otherwise than in the authors' code", about.differs),
        ("ours, nothing published was found", about.not_published),
        ("needs", wanted(paper)),
    ):
        lines += ["", f"{title}:", *(f"  {each}" for each in said)] if said else []
    if paper.runs:
        lines += ["", f"mmrl train {paper.path.resolve()} [--small]"]
        lines += evaluated(paper)
    return lines
