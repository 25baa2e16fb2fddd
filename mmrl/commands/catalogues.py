"""Commands that show what there is, and try it: data, tasks, algorithms, families."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mmrl.commands.output import Commands, command, show
from mmrl.commands.scores import data_options
from mmrl.errors import ConfigError, DataError


def add(commands: Commands) -> None:
    """Add the commands of this file."""
    _add_data(commands)
    _add_tasks(commands)
    _add_algorithms(commands)
    _add_families(commands)


def _add_data(commands: Commands) -> None:
    parser = command(
        commands,
        "data",
        "list data recipes, turn raw data into records, or inspect your own",
        epilog="`mmrl data inspect PATH [--task NAME] [columns.question=q ...]` says which layout "
        "PATH has, shows records as a model will see them, and what would be refused.",
    )
    parser.add_argument(
        "recipe", nargs="?", help="default: list all; without --out: show it; or `inspect`"
    )
    parser.add_argument("path", nargs="?", type=Path, help="of inspect: the records")
    parser.add_argument("overrides", nargs="*", metavar="a.b=c", help="of inspect: options of data")
    parser.add_argument("--task", help="of inspect: the task that asks the records")
    parser.add_argument("--limit", type=int, default=100, help="of inspect: records to look at")
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
    from mmrl.recipes import command as recipes
    from mmrl.recipes.settings import Options

    if arguments.recipe == "inspect":
        _inspect(arguments)
    elif arguments.path is not None:
        raise ConfigError(f"a recipe takes no '{arguments.path}': its raw data go by --in")
    elif arguments.verify:
        said = recipes.check(arguments.verify)
        show(arguments, [said], {"folder": arguments.verify, "as_its_manifest": True})
    elif arguments.recipe is None:
        show(arguments, recipes.listing(), recipes.rows() if arguments.json else None)
    elif arguments.out is None:
        lines = recipes.describe(arguments.recipe).splitlines()
        show(arguments, lines, recipes.about(arguments.recipe))
    else:
        options = Options(
            copy=arguments.copy,
            difficulty=arguments.difficulty,
            against=tuple(arguments.against),
            drop=arguments.drop,
        )
        done = recipes.carry_out(
            arguments.recipe, arguments.source, arguments.out, arguments.seed, options
        )
        show(arguments, done.lines, {"folder": arguments.out, **done.facts})


def _inspect(arguments: argparse.Namespace) -> None:
    from mmrl.data.inspection import inspect
    from mmrl.scoring.tasks import load_task

    if arguments.path is None:
        raise ConfigError("name the data: mmrl data inspect PATH")
    options = data_options(arguments.overrides)
    params = options.pop("params")
    task = load_task(arguments.task, params) if arguments.task else None
    found = inspect(arguments.path, task, limit=arguments.limit, **options)
    print(found.to_json() if arguments.json else "\n".join(found.lines()))


def _add_tasks(commands: Commands) -> None:
    parser = command(commands, "tasks", "list tasks, show, check or preview one")
    parser.add_argument("name", nargs="?")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="params.a=b",
        help="the task's parameters; columns. and media_roots of the data; weights. of a check",
    )
    parser.add_argument("--check", action="store_true", help="gold pays in full, junk nothing")
    parser.add_argument("--preview", type=Path, metavar="OUT.html", help="records as they are seen")
    parser.add_argument("--data", type=Path, help="records; default: the task's own fixture")
    parser.add_argument("--limit", type=int, default=50, help="records to check or preview")
    parser.set_defaults(command=_tasks)


def _tasks(arguments: argparse.Namespace) -> None:
    from mmrl.scoring import tasks

    if arguments.check:
        _check_tasks(arguments)
        return
    options = data_options(arguments.overrides)
    params, read = options["params"], (options["columns"], options["roots"])
    if arguments.preview:
        from mmrl.report.preview import write_preview

        if not arguments.name:
            raise ConfigError("--preview needs the name of a task")
        task = tasks.load_task(arguments.name, params)
        data = arguments.data or tasks.fixture_path(arguments.name)
        page = write_preview(task, data, arguments.preview, arguments.limit, *read)
        show(arguments, [str(page)], {"page": page})
    elif arguments.name:
        lines = tasks.describe(arguments.name, params, arguments.data, *read).splitlines()
        show(arguments, lines, tasks.row(arguments.name))
    else:
        found = tasks.listing(as_json=arguments.json)
        print(found)


def _check_tasks(arguments: argparse.Namespace) -> None:
    from mmrl import plugins
    from mmrl.rewards.own_code import own_code
    from mmrl.scoring import tasks
    from mmrl.scoring.check import check, lines_of

    # The task `custom` is nothing without a function.
    names = (
        [arguments.name] if arguments.name else sorted(set(plugins.available("task")) - {"custom"})
    )
    options, rows, wrong = data_options(arguments.overrides, weights={}), [], 0
    for name in names:
        with own_code(f"task '{name}'", all_of_it=tasks.is_own(name)):
            task = tasks.load_task(name, options["params"])
            data = arguments.data or tasks.fixture_path(name)
            weights = tasks.resolve_weights(task, options["weights"])
            read = (options["columns"], options["roots"])
            found = check(task, data, arguments.limit, *read, weights=weights)
        wrong += len(found.problems)
        rows.append({"task": name, **asdict(found)})
        if not arguments.json:
            print("\n".join(lines_of(name, found)), flush=True)
    if arguments.json:
        show(arguments, (), rows)
    if wrong:
        raise DataError(f"{wrong} problems: the lines above say where")


def _add_algorithms(commands: Commands) -> None:
    parser = command(commands, "algorithms", "list algorithms, show one, or try it")
    parser.add_argument("name", nargs="?")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="a.b=c",
        help="its options, and stages in place of its own, as in a configuration's `algorithm`",
    )
    parser.add_argument("--case", type=Path, help="JSON of rewards and log-probs to evaluate it on")
    parser.set_defaults(command=_algorithms)


def _algorithms(arguments: argparse.Namespace) -> None:
    from mmrl.algorithms import catalogue
    from mmrl.validation import apply_override

    options: dict[str, Any] = {}
    for override in arguments.overrides:
        apply_override(options, override)
    if arguments.case and not arguments.name:
        raise ConfigError("--case needs the name of an algorithm")
    if arguments.case:
        from mmrl.train.algorithm_case import evaluate_file

        print(evaluate_file(arguments.name, arguments.case, options, as_json=arguments.json))
    else:
        print(catalogue.show(arguments.name, options, as_json=arguments.json))


def _add_families(commands: Commands) -> None:
    parser = command(commands, "families", "list model families and what each takes")
    parser.add_argument("--all", action="store_true", help="every type of model, as it was tried")
    parser.set_defaults(command=_families)


def _families(arguments: argparse.Namespace) -> None:
    from mmrl import plugins

    if arguments.all:
        from mmrl.policy.families import survey

        print(survey.listing(as_json=arguments.json))
        return
    found = {
        name: plugins.load("family", name).DECLARATION
        for name in sorted(plugins.available("family"))
    }
    lines = []
    for name, declared in found.items():
        lines.append(f"{name:18} {', '.join(declared.takes)}{', own sound' * declared.video_sound}")
        shared = "shared prefix" if declared.shared_prefix else "no shared prefix"
        vllm = f"vLLM: {', '.join(declared.vllm)}" if declared.vllm else "no vLLM"
        lines.append(f"{'':18} {shared}; {vllm}; answers in {declared.space}")
        lines += [f"{'':18} {declared.notes}"] if declared.notes else []
    rows = [
        {"name": name, **asdict(d), "lora_pattern": d.lora_pattern} for name, d in found.items()
    ]
    show(arguments, lines, rows)
