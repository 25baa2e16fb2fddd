"""Commands that score: eval asks a model, score reads answers from a file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmrl.commands.output import Commands, command, show
from mmrl.errors import ConfigError


def add(commands: Commands) -> None:
    """Add the commands of this file."""
    _add_eval(commands)
    _add_score(commands)


def _add_eval(commands: Commands) -> None:
    parser = command(
        commands,
        "eval",
        "score a model on a task's records",
        epilog="Overrides: params.NAME of the task, model., media., rollout., weights. as in a "
        "configuration; ways., verify (docs/evaluation.md). With --out, a killed evaluation goes "
        "on when it is called again.",
    )
    parser.add_argument("overrides", nargs="*", metavar="a.b=c", help="e.g. params.think=none")
    parser.add_argument("--model", required=True, help="model folder, checkpoint or adapter")
    parser.add_argument("--task", required=True)
    parser.add_argument("--data", type=Path, help="records; default: the task's own fixture")
    parser.add_argument("--engine", choices=("hf", "vllm"), help="default: hf")
    parser.add_argument("--limit", type=int, help="the first records only")
    parser.add_argument("--samples", type=int, help="answers to each record; default: 1, greedy")
    parser.add_argument("--temperature", type=float, help="default: 0, with --samples 1")
    parser.add_argument("--k", type=int, nargs="+", help="of pass@k; default: 1 2 4 ... samples")
    parser.add_argument("--pass-threshold", type=float, help="metric from which an answer passes")
    parser.add_argument("--max-new-tokens", type=int)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="also writes FILE.html")
    parser.add_argument("--overwrite", action="store_true", help="ask everything again")
    parser.set_defaults(command=_eval, goes_on="the same command with --out goes on")


def _eval(arguments: argparse.Namespace) -> None:
    from mmrl.doctor.preflight import check_evaluation

    check_evaluation(vars(arguments), arguments.overrides)
    from mmrl.evaluate.benchmark import run_benchmark, settings_of

    def count(done: int, total: int) -> None:
        print(f"{done}/{total}", file=sys.stderr)

    config = settings_of(vars(arguments), arguments.overrides)
    outcome = run_benchmark(config, overwrite=arguments.overwrite, on_progress=count)
    page = [f"report: {outcome.page}"] if outcome.page else []
    value = {**outcome.evaluation.to_json(), "report": outcome.page}
    show(arguments, [*outcome.evaluation.lines(), *page], value)


def _add_score(commands: Commands) -> None:
    parser = command(commands, "score", "score answers from a file, without a model")
    parser.add_argument("task")
    parser.add_argument("overrides", nargs="*", metavar="params.a=b", help="the task's parameters")
    parser.add_argument("--data", type=Path, help="records; default: the task's own fixture")
    parser.add_argument(
        "--answers",
        type=Path,
        required=True,
        help='lines {"id", "answer"}, or what `mmrl eval --out` wrote',
    )
    parser.add_argument("--out", type=Path, required=True, help="scores, a line an answer")
    parser.add_argument(
        "--space",
        choices=("source_pixels", "unit", "thousand"),
        default="source_pixels",
        help="what coordinates in the answers mean; default: pixels of the file",
    )
    parser.add_argument(
        "--secrets", nargs="+", default=(), metavar="NAME", help="variables that rewards may see"
    )
    parser.set_defaults(command=_score)


def _score(arguments: argparse.Namespace) -> None:
    from mmrl.evaluate.score_file import score_file, write_scores
    from mmrl.scoring.tasks import fixture_path

    data = arguments.data or fixture_path(arguments.task)
    params = params_of(arguments.overrides)
    found = score_file(
        arguments.task,
        data,
        arguments.answers,
        params=params,
        space=arguments.space,
        secrets=arguments.secrets,
    )
    write_scores(arguments.out, found)
    said = f"{len(found.scores)} answers, {len(found.unanswered)} records without any"
    value = {
        "answers": len(found.scores),
        "unanswered": found.unanswered,
        "refused": found.refused,
        "evaluation": found.evaluation.to_json() if found.evaluation else None,
        "scores": arguments.out,
    }
    show(arguments, [*(found.evaluation.lines() if found.evaluation else ()), said], value)
    for record, reason in found.refused.items():
        print(f"record '{record}' cannot be asked: {reason}", file=sys.stderr)


def params_of(overrides: Sequence[str]) -> dict[str, Any]:
    """The task's parameters that `params.a=b` overrides name."""
    return dict(data_options(overrides)["params"])


def data_options(overrides: Sequence[str], **more: Any) -> dict[str, Any]:
    """The overrides of a task's parameters and of how its records are read.

    `more` are further options of a command, with their defaults.
    """
    from mmrl.validation import apply_override

    values: dict[str, Any] = {"params": {}, "columns": {}, "media_roots": (), **more}
    for override in overrides:
        apply_override(values, override)
    if unknown := values.keys() - {"params", "columns", "media_roots", *more}:
        known = ", ".join(["params.", "columns.", *(f"{name}." for name in more)])
        raise ConfigError(f"'{min(unknown)}' is no option here: {known} and media_roots are")
    roots = values.pop("media_roots")
    values["roots"] = [Path(root) for root in ([roots] if isinstance(roots, str) else roots)]
    return values
