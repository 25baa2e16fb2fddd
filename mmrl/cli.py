"""The command line. Heavy imports happen inside the commands, so that `--help` is instant."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from mmrl import __version__
from mmrl.errors import MediaError, UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; a user's mistake prints one line and returns 2."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    # argparse takes positionals in one run only; overrides may also follow the flags.
    if rest and "overrides" in arguments and not any(word.startswith("-") for word in rest):
        arguments.overrides += rest
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        arguments.command(arguments)
    except (UserError, MediaError) as error:
        print(f"mmrl: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"mmrl: interrupted; {arguments.goes_on}".rstrip("; "), file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mmrl", description="Reinforcement learning for vision-language and audio models."
    )
    parser.add_argument("--version", action="version", version=f"mmrl {__version__}")
    parser.set_defaults(goes_on="")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_train(commands)
    _add_eval(commands)
    _add_serve(commands)
    _add_doctor(commands)
    _add_export(commands)
    _add_report(commands)
    _add_data(commands)
    _add_tasks(commands)
    _add_score(commands)
    _add_algorithms(commands)
    _add_families(commands)
    return parser


Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def _add_train(commands: Commands) -> None:
    parser = commands.add_parser("train", help="carry out a run from a YAML configuration")
    parser.add_argument("config", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="a.b=c", help="configuration overrides")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument("--overwrite", action="store_true", help="replace the run folder")
    parser.add_argument("--print-config", action="store_true", help="show what would run, and stop")
    parser.set_defaults(command=_train, goes_on="`--resume` goes on from the last checkpoint")


def _train(arguments: argparse.Namespace) -> None:
    from mmrl.config import load_config
    from mmrl.doctor.preflight import check_run

    config = load_config(arguments.config, arguments.overrides)
    notes = check_run(config)
    if arguments.print_config:
        print(config.to_yaml(), end="")
        print("".join(f"# {note}\n" for note in notes), end="")
        return
    from mmrl.train.run import train

    result = train(config, resume=arguments.resume, overwrite=arguments.overwrite)
    if os.environ.get("RANK", "0") != "0":
        return  # one process of many speaks
    before, after = result["before"], result["after"]
    if before is not None and after is not None:
        print(f"held-out {before:.1%} -> {after:.1%} in {result['seconds']:.0f} s")
    print(f"report: {config.run / 'report.html'}")


def _add_eval(commands: Commands) -> None:
    parser = commands.add_parser(
        "eval",
        help="score a model on a task's records",
        epilog="Overrides: params.NAME of the task, model., media., rollout., weights. as in a "
        "configuration. With --out, a killed evaluation goes on when it is called again.",
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

    def show(done: int, total: int) -> None:
        print(f"{done}/{total}", file=sys.stderr)

    config = settings_of(vars(arguments), arguments.overrides)
    outcome = run_benchmark(config, overwrite=arguments.overwrite, on_progress=show)
    print("\n".join(outcome.evaluation.lines()))
    if outcome.page:
        print(f"report: {outcome.page}")


def _add_serve(commands: Commands) -> None:
    parser = commands.add_parser("serve", help="be a vLLM server for runs of a configuration")
    parser.add_argument("config", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="a.b=c", help="configuration overrides")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0: reachable from elsewhere")
    parser.add_argument("--port", type=int, default=8000)
    parser.set_defaults(command=_serve)


def _serve(arguments: argparse.Namespace) -> None:
    from mmrl.config import load_config
    from mmrl.doctor.preflight import check_model
    from mmrl.policy.model_folder import check_media

    config = load_config(arguments.config, arguments.overrides)
    check_model(config.model)
    check_media(config.model)
    from mmrl.rollout.build import serve

    serve(config, arguments.host, arguments.port)


def _add_doctor(commands: Commands) -> None:
    parser = commands.add_parser("doctor", help="packages, devices, and whether a run will fit")
    parser.add_argument("config", type=Path, nargs="?")
    parser.add_argument("overrides", nargs="*", metavar="a.b=c", help="configuration overrides")
    parser.add_argument("--processes", type=int, default=1, help="how many will share the run")
    parser.add_argument("--nodes", type=int, default=1, help="machines that the processes are on")
    parser.add_argument("--memory-gib", type=float, help="of one process's device; default: here")
    parser.add_argument("--host-gib", type=float, help="of one machine; default: here")
    parser.set_defaults(command=_doctor)


def _doctor(arguments: argparse.Namespace) -> None:
    from mmrl.config import load_config
    from mmrl.doctor.preflight import check_run

    config = load_config(arguments.config, arguments.overrides) if arguments.config else None
    if config is not None:
        check_run(config, records=False)
    from mmrl.doctor import packages, placement
    from mmrl.doctor.report import report

    conflicts = packages.conflicts()
    fit = conflicts or ["the packages fit each other"]
    print("\n".join([*packages.versions(), *fit, *placement.devices()]))
    if config is not None:
        given = arguments.processes, arguments.memory_gib, arguments.nodes, arguments.host_gib
        print("\n".join(report(config, *given)))
    elif conflicts:
        raise UserError("the packages do not fit each other: see the lines above")


def _add_export(commands: Commands) -> None:
    parser = commands.add_parser("export", help="write a checkpoint as a model folder")
    parser.add_argument("source", type=Path, help="run, checkpoint or adapter folder")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--merge", action="store_true", help="merge adapters into their base")
    parser.add_argument("--dtype", help="precision of a merged model; default: the base's own")
    parser.set_defaults(command=_export)


def _export(arguments: argparse.Namespace) -> None:
    if not arguments.source.is_dir():
        raise UserError(f"no folder at {arguments.source}")
    from mmrl.train.export import export

    print(export(arguments.source, arguments.out, merge=arguments.merge, dtype=arguments.dtype))


def _add_report(commands: Commands) -> None:
    parser = commands.add_parser("report", help="write a run's report.html")
    parser.add_argument("run", type=Path)
    parser.set_defaults(command=_report)


def _report(arguments: argparse.Namespace) -> None:
    from mmrl.report import write_report

    if not arguments.run.is_dir():
        raise UserError(f"no run folder at {arguments.run}")
    print(write_report(arguments.run))


def _add_data(commands: Commands) -> None:
    parser = commands.add_parser("data", help="list data recipes, or turn raw data into records")
    parser.add_argument("recipe", nargs="?", help="default: list all; without --out: show it")
    parser.add_argument("--in", dest="source", type=Path, help="folder of the raw data")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--copy", action="store_true", help="copy media instead of linking them")
    parser.add_argument("--difficulty", type=Path, help="scored answers to take pass rates from")
    parser.add_argument(
        "--against", type=Path, nargs="+", default=[], help="folders to look for overlap with"
    )
    parser.add_argument(
        "--drop",
        choices=("none", "question", "media"),
        default="none",
        help="leave out training records that share this with another split or with --against",
    )
    parser.add_argument("--verify", type=Path, metavar="DIR", help="compare DIR with its manifest")
    parser.set_defaults(command=_data)


def _data(arguments: argparse.Namespace) -> None:
    from mmrl.recipes import command
    from mmrl.recipes.settings import Options

    if arguments.verify:
        print(command.check(arguments.verify))
    elif arguments.recipe is None:
        print("\n".join(command.listing()))
    elif arguments.out is None:
        print(command.describe(arguments.recipe))
    else:
        options = Options(
            copy=arguments.copy,
            difficulty=arguments.difficulty,
            against=tuple(arguments.against),
            drop=arguments.drop,
        )
        source, out, seed = arguments.source, arguments.out, arguments.seed
        print(command.carry_out(arguments.recipe, source, out, seed, options))


def _add_tasks(commands: Commands) -> None:
    parser = commands.add_parser("tasks", help="list tasks, show, check or preview one")
    parser.add_argument("name", nargs="?")
    parser.add_argument("overrides", nargs="*", metavar="params.a=b", help="the task's parameters")
    parser.add_argument("--json", action="store_true", help="list as JSON")
    parser.add_argument("--check", action="store_true", help="gold pays in full, junk nothing")
    parser.add_argument("--preview", type=Path, metavar="OUT.html", help="records as they are seen")
    parser.add_argument("--data", type=Path, help="records; default: the task's own fixture")
    parser.add_argument("--limit", type=int, default=50, help="records to check or preview")
    parser.set_defaults(command=_tasks)


def _tasks(arguments: argparse.Namespace) -> None:
    from mmrl.scoring import tasks

    if arguments.check:
        _check_tasks(arguments)
    elif arguments.preview:
        from mmrl.report.preview import write_preview

        if not arguments.name:
            raise UserError("--preview needs the name of a task")
        task = tasks.load_task(arguments.name, _params(arguments))
        data = arguments.data or tasks.fixture_path(arguments.name)
        print(write_preview(task, data, arguments.preview, arguments.limit))
    elif arguments.name:
        print(tasks.describe(arguments.name, _params(arguments), arguments.data))
    else:
        print(tasks.listing(as_json=arguments.json))


def _check_tasks(arguments: argparse.Namespace) -> None:
    from mmrl import plugins
    from mmrl.scoring import tasks
    from mmrl.scoring.check import check, lines_of

    wrong = 0
    # The task `custom` is nothing without a function.
    names = (
        [arguments.name] if arguments.name else sorted(set(plugins.available("task")) - {"custom"})
    )
    for name in names:
        task = tasks.load_task(name, _params(arguments))
        data = arguments.data or tasks.fixture_path(name)
        found = check(task, data, arguments.limit)
        wrong += len(found.problems)
        print("\n".join(lines_of(name, found)), flush=True)
    if wrong:
        raise UserError(f"{wrong} problems: the lines above say where")


def _params(arguments: argparse.Namespace) -> dict[str, Any]:
    from mmrl.config import apply_override

    values: dict[str, Any] = {"params": {}}
    for override in arguments.overrides:
        apply_override(values, override)
    return dict(values["params"])


def _add_score(commands: Commands) -> None:
    parser = commands.add_parser("score", help="score answers from a file, without a model")
    parser.add_argument("task")
    parser.add_argument("overrides", nargs="*", metavar="params.a=b", help="the task's parameters")
    parser.add_argument("--data", type=Path, help="records; default: the task's own fixture")
    parser.add_argument("--answers", type=Path, required=True, help='lines {"id", "answer"}')
    parser.add_argument("--out", type=Path, required=True, help="scores, a line an answer")
    parser.add_argument(
        "--space",
        choices=("source_pixels", "unit", "thousand"),
        default="source_pixels",
        help="what coordinates in the answers mean; default: pixels of the file",
    )
    parser.set_defaults(command=_score)


def _score(arguments: argparse.Namespace) -> None:
    from mmrl.evaluate.score_file import score_file, write_scores
    from mmrl.scoring.tasks import fixture_path

    data = arguments.data or fixture_path(arguments.task)
    params = _params(arguments)
    found = score_file(
        arguments.task, data, arguments.answers, params=params, space=arguments.space
    )
    write_scores(arguments.out, found)
    if found.evaluation:
        print("\n".join(found.evaluation.lines()))
    print(f"{len(found.scores)} answers, {len(found.unanswered)} records without any")


def _add_algorithms(commands: Commands) -> None:
    parser = commands.add_parser("algorithms", help="list algorithms, show one, or try it")
    parser.add_argument("name", nargs="?")
    parser.add_argument("--case", type=Path, help="JSON of rewards and log-probs to evaluate it on")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(command=_algorithms)


def _algorithms(arguments: argparse.Namespace) -> None:
    from mmrl.algorithms import catalogue

    if arguments.case and not arguments.name:
        raise UserError("--case needs the name of an algorithm")
    if arguments.case:
        from mmrl.train.algorithm_case import evaluate_file

        print(evaluate_file(arguments.name, arguments.case, as_json=arguments.json))
    else:
        print(catalogue.show(arguments.name, as_json=arguments.json))


def _add_families(commands: Commands) -> None:
    parser = commands.add_parser("families", help="list model families and what each takes")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--all", action="store_true", help="every type of model, as it was tried")
    parser.set_defaults(command=_families)


def _families(arguments: argparse.Namespace) -> None:
    from dataclasses import asdict

    from mmrl import plugins

    if arguments.all:
        from mmrl.policy.families import survey

        print(survey.listing(as_json=arguments.json))
        return
    found = {
        name: plugins.load("family", name).DECLARATION
        for name in sorted(plugins.available("family"))
    }
    if arguments.json:
        rows = [
            {"name": name, **asdict(d), "lora_pattern": d.lora_pattern} for name, d in found.items()
        ]
        print(json.dumps(rows, indent=1))
        return
    for name, declared in found.items():
        print(f"{name:18} {', '.join(declared.takes)}{', own sound' * declared.video_sound}")
        shared = "shared prefix" if declared.shared_prefix else "no shared prefix"
        vllm = f"vLLM: {', '.join(declared.vllm)}" if declared.vllm else "no vLLM"
        print(f"{'':18} {shared}; {vllm}; answers in {declared.space}")
        if declared.notes:
            print(f"{'':18} {declared.notes}")


if __name__ == "__main__":
    sys.exit(main())
