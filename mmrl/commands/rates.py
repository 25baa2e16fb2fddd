"""The command that rates records: how often a model answers each of them right."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mmrl.commands.output import Commands, command, show


def add(commands: Commands) -> None:
    """Add the command of this file."""
    parser = command(
        commands,
        "rate",
        "add to records how often a model answers them right (pass_rate)",
        epilog="Overrides as of `mmrl eval`. A killed call goes on when it is called again; "
        "data.keep draws a band of the rates, docs/data.md says how.",
    )
    parser.add_argument("overrides", nargs="*", metavar="a.b=c", help="e.g. params.think=none")
    parser.add_argument("--model", required=True, help="model folder, checkpoint or adapter")
    parser.add_argument("--data", type=Path, required=True, help="records")
    parser.add_argument("--task", help="default: the name of the folder that the records are in")
    parser.add_argument("--samples", type=int, default=8, help="answers to each; default: 8")
    parser.add_argument("--engine", choices=("hf", "vllm"), help="default: hf")
    parser.add_argument("--limit", type=int, help="the first records only")
    parser.add_argument("--temperature", type=float, help="default: rollout.temperature, 1")
    parser.add_argument("--pass-threshold", type=float, help="metric from which an answer passes")
    parser.add_argument("--max-new-tokens", type=int)
    parser.add_argument("--seed", type=int)
    parser.add_argument(
        "--out", type=Path, help=".jsonl or .parquet; default: NAME.rated.jsonl beside the records"
    )
    parser.add_argument("--overwrite", action="store_true", help="ask everything again")
    parser.set_defaults(command=_rate, goes_on="the same command goes on")


def _rate(arguments: argparse.Namespace) -> None:
    from mmrl.doctor.preflight import check_evaluation
    from mmrl.evaluate.benchmark import settings_of
    from mmrl.evaluate.pass_rates import rate, rated_path, task_of

    out = arguments.out or rated_path(arguments.data)
    flags = {**vars(arguments), "task": arguments.task or task_of(arguments.data), "out": None}
    check_evaluation(flags, arguments.overrides)

    def count(done: int, total: int) -> None:
        print(f"{done}/{total}", file=sys.stderr)

    config = settings_of(flags, arguments.overrides)
    found = rate(config, out, overwrite=arguments.overwrite, on_progress=count)
    value = {
        "records": found.records,
        "out": found.path,
        "rates": found.rates,
        "evaluation": found.outcome.evaluation.to_json(),
    }
    show(arguments, [*found.outcome.evaluation.lines(), *found.lines()], value)
