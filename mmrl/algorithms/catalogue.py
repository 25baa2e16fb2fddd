"""What `mmrl algorithms` prints: every algorithm's name, paper, the stages it fills, its needs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmrl import plugins
from mmrl.algorithm import Algorithm, Updates, one_variant
from mmrl.algorithms import common
from mmrl.algorithms.compose import compose
from mmrl.algorithms.stages.credit import FixedGroup
from mmrl.algorithms.stages.lengths import lengths_of
from mmrl.objective import Objective, Reducer
from mmrl.stage import NEEDS


@dataclass(frozen=True)
class Entry:
    """One algorithm with its default parameters."""

    name: str
    summary: str
    paper: str
    stages: tuple[str, ...]
    needs: tuple[str, ...]


def entry(name: str) -> Entry:
    """Describe an algorithm; an unknown name raises UserError."""
    module = plugins.load("algorithm", name)
    algorithm = compose({"name": name})
    return Entry(
        name=name,
        summary=module.SUMMARY,
        paper=module.PAPER,
        stages=tuple(filled(algorithm)),
        needs=tuple(sorted(algorithm.needs)),
    )


def filled(algorithm: Algorithm) -> dict[str, object]:
    """The stages an algorithm fills with something of its own, in order."""
    idle: dict[str, object] = {
        "sampler": None,
        "expand": one_variant,
        "length": None,
        "cuts": None,
        "prompt_factor": 1.0,
        "shape": (),
        "edit": (),
        "credit": None,
        "refine": (),
        "objective": None,
        "reducer": Reducer(),
        "kl": None,
        "updates": Updates(),
    }
    if not isinstance(algorithm.plan, FixedGroup):
        idle["plan"] = None
    found = {stage: getattr(algorithm, stage) for stage in idle}
    return {stage: value for stage, value in found.items() if value != idle[stage]}


def show(name: str | None, options: Mapping[str, Any] | None = None, *, as_json: bool) -> str:
    """Write the list of all algorithms, or everything about one with these options."""
    if name is None:
        entries = [entry(n) for n in sorted(plugins.available("algorithm"))]
        if as_json:
            return json.dumps([dataclasses.asdict(e) for e in entries])
        return "\n".join(_line(e) for e in entries)
    found = entry(name)
    composed, own = compose({**(options or {}), "name": name}), _params(name)
    params = {key: (options or {}).get(key, value) for key, value in own.items()}
    if as_json:
        return json.dumps({**dataclasses.asdict(found), "params": params})
    stages = filled(composed)
    lines = [f"{name}: {found.summary} ({found.paper})", "", "parameters:"]
    lines += [f"  {key} = {value!r}" for key, value in params.items()]
    lines += ["", "stages:", *(f"  {stage}: {_said(value)}" for stage, value in stages.items())]
    if composed.needs:
        lines += ["", "needs:", *(f"  {need}: {NEEDS[need]}" for need in sorted(composed.needs))]
    return "\n".join(lines)


def _said(stage: object) -> str:
    """A stage with its options; an objective with its paper too."""
    return f"{stage} ({stage.paper})" if isinstance(stage, Objective) else str(stage)


def _params(name: str) -> dict[str, Any]:
    """The algorithm's parameters, and the common options it uses, with its own values."""
    module = plugins.load("algorithm", name)
    params = module.Params()
    unused = module.unused(params) if hasattr(module, "unused") else {}
    return {**params.model_dump(), **common.defaults(module.build(params), unused)}


def common_table() -> list[str]:
    """A Markdown table of the common options that every algorithm uses, with its own values."""
    head = ("algorithm", "`group_size`", "KL", "clip", "`numerics`", "`part`", "lengths")
    rows = [_common_row(name) for name in sorted(plugins.available("algorithm"))]
    return [f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows)]


def _common_row(name: str) -> tuple[str, ...]:
    params, module = _params(name), plugins.load("algorithm", name)
    kl = [
        f"{value:g}" if isinstance(value := params[key], float) else value
        for key in common.IN_STAGES[:3]
        if key in params
    ]
    clip = [f"{params[key]:.4g}" for key in common.IN_STAGES[3:] if key in params]
    readings = common.choices(module.Params, "numerics")
    lengths = [f"`{key}` {length}" for key, length in lengths_of(module.Params).items()]
    return (
        f"`{name}`",
        f"{params.get('group_size', '-')}",
        ", ".join(kl) or "-",
        ", ".join(clip) or "-",
        ", ".join(readings) or "-",
        "yes" if "part" in params else "-",
        ", ".join(lengths) or "-",
    )


def _line(found: Entry) -> str:
    needs = f"; needs {', '.join(found.needs)}" if found.needs else ""
    stages = ", ".join(found.stages)
    return f"{found.name:22} {found.summary} ({found.paper}) [{stages}{needs}]"
