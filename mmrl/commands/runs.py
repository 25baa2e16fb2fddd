"""Commands around a run: train, serve, doctor, export, report."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mmrl.commands.output import Commands, command, overridable, show
from mmrl.errors import ConfigError, UserError

if TYPE_CHECKING:
    from mmrl.config import RunConfig
    from mmrl.doctor.dataset import Surveyed


def add(commands: Commands) -> None:
    """Add the commands of this file."""
    _add_train(commands)
    _add_serve(commands)
    _add_doctor(commands)
    _add_export(commands)
    _add_report(commands)


def _add_train(commands: Commands) -> None:
    parser = command(commands, "train", "carry out a run from a YAML configuration")
    overridable(parser)
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument("--overwrite", action="store_true", help="replace the run folder")
    parser.add_argument(
        "--allow-changes", action="store_true", help="resume with what makes it another run"
    )
    parser.add_argument("--print-config", action="store_true", help="show what would run, and stop")
    parser.add_argument(
        "--small", action="store_true", help="of a paper's file: all phases, made small"
    )
    parser.set_defaults(
        command=_train, goes_on="`--resume` goes on from the last checkpoint, if one was written"
    )


def _train(arguments: argparse.Namespace) -> None:
    from mmrl.doctor.preflight import check_place, check_run

    config = _config_of(arguments)
    notes = check_run(config, resume=arguments.resume)
    asked = {name: getattr(arguments, name) for name in ("resume", "overwrite", "allow_changes")}
    if arguments.print_config:
        text = config.to_yaml() + "".join(f"# {note}\n" for note in notes)
        value = {"config": config.model_dump(mode="json"), "notes": notes}
        show(arguments, text.splitlines(), value)
        return
    check_place(config, **asked)
    from mmrl.train.run import train

    result = train(config, **asked)
    if os.environ.get("RANK", "0") != "0":
        return  # one process of many speaks
    before, after = result["before"], result["after"]
    lines = [f"report: {config.run / 'report.html'}"]
    if before is not None and after is not None:
        form = "{:.1%} -> {:.1%}" if _is_share(config) else "{:.4g} -> {:.4g}"
        lines.insert(0, f"held-out {form.format(before, after)} in {result['seconds']:.0f} s")
    files = {"run": config.run, "report": config.run / "report.html"}
    show(arguments, lines, {**result, **files})


def _config_of(arguments: argparse.Namespace) -> RunConfig:
    if arguments.small:
        from mmrl.papers.paper_files import small_config

        return small_config(arguments.config, arguments.overrides)
    from mmrl.config import load_config

    return load_config(arguments.config, arguments.overrides)


def _is_share(config: RunConfig) -> bool:
    """True if the first source's metric is read in per cent: not an error, nor a reward at will."""
    from mmrl.scoring.tasks import load_task

    task = load_task(config.data[0].task, config.data[0].params)
    part = task.parts.get(task.metric)
    return task.better == "higher" and (part is None or (part.low >= 0 and part.high <= 1))


def _add_serve(commands: Commands) -> None:
    parser = command(commands, "serve", "be a vLLM server for runs of a configuration")
    overridable(parser)
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="0.0.0.0: reachable from elsewhere, which wants a key in MMRL_SERVER_KEY",
    )
    parser.add_argument("--port", type=int, default=8000)
    parser.set_defaults(command=_serve)


def _serve(arguments: argparse.Namespace) -> None:
    from mmrl.config import load_config
    from mmrl.doctor.preflight import check_host, check_run

    check_host(arguments.host)
    config = load_config(arguments.config, arguments.overrides)
    check_run(config, records=False)
    from mmrl.rollout.build import serve

    serve(config, arguments.host, arguments.port)


def _add_doctor(commands: Commands) -> None:
    parser = command(commands, "doctor", "packages, devices, and whether a run will fit")
    parser.add_argument("config", type=Path, nargs="?")
    parser.add_argument("overrides", nargs="*", metavar="a.b=c", help="configuration overrides")
    parser.add_argument("--processes", type=int, default=1, help="how many will share the run")
    parser.add_argument("--nodes", type=int, default=1, help="machines that the processes are on")
    parser.add_argument("--memory-gib", type=float, help="of one process's device; default: here")
    parser.add_argument("--host-gib", type=float, help="of one machine; default: here")
    parser.add_argument("--data", action="store_true", help="look at every record, too")
    parser.add_argument("--limit", type=int, help="with --data: at so many of each file")
    parser.add_argument("--workers", type=int, default=2, help="with --data: records at a time")
    parser.set_defaults(command=_doctor)


def _doctor(arguments: argparse.Namespace) -> None:
    from mmrl.config import load_config
    from mmrl.doctor.preflight import check_run

    config = load_config(arguments.config, arguments.overrides) if arguments.config else None
    if config is not None:
        check_run(config, records=False)
    from mmrl.doctor import packages, placement
    from mmrl.doctor.dataset import refuse
    from mmrl.doctor.report import lines_of, plans

    conflicts = packages.conflicts()
    fit = conflicts or ["the packages fit each other"]
    lines = [*packages.versions(), *fit, *placement.devices()]
    given = arguments.processes, arguments.memory_gib, arguments.nodes, arguments.host_gib
    found = plans(config, *given) if config is not None else []
    value = {
        "packages": packages.installed(),
        "conflicts": conflicts,
        "devices": placement.devices(),
        "phases": [planned.figures() for planned in found],
    }
    lines += lines_of(found)
    surveyed: list[Surveyed] = []
    if arguments.data:
        surveyed = _survey(arguments, config)
        lines += [line for each in surveyed for line in each.lines()]
        value["data"] = [each.figures() for each in surveyed]
    show(arguments, lines, value)
    for planned in found:
        planned.refuse()
    if config is not None:
        refuse(config, surveyed)
    if config is None and conflicts:
        raise UserError("the packages do not fit each other: see the lines above")


def _survey(arguments: argparse.Namespace, config: RunConfig | None) -> list[Surveyed]:
    """Look at all records, and say on stderr how far that is."""
    from mmrl.doctor.dataset import survey
    from mmrl.runlog.progress import counted

    if config is None:
        raise UserError("--data needs a configuration: mmrl doctor CONFIG --data")
    with counted("records") as done:
        return survey(config, arguments.workers, arguments.limit, done)


def _add_export(commands: Commands) -> None:
    parser = command(commands, "export", "write a checkpoint as a model folder")
    parser.add_argument("source", type=Path, help="run, checkpoint or adapter folder")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--merge", action="store_true", help="merge adapters into their base")
    parser.add_argument("--dtype", help="precision of a merged model; default: the base's own")
    parser.add_argument("--card", action="store_true", help="write a model card, README.md")
    parser.add_argument("--push", metavar="OWNER/NAME", help="upload it to the hub, with its card")
    parser.add_argument("--public", action="store_true", help="with --push; else it is private")
    parser.set_defaults(command=_export)


def _export(arguments: argparse.Namespace) -> None:
    if not arguments.source.is_dir():
        raise ConfigError(f"no folder at {arguments.source}")
    from mmrl.train.export import export

    said = [export(arguments.source, arguments.out, merge=arguments.merge, dtype=arguments.dtype)]
    if arguments.card or arguments.push:
        from mmrl.train.card import push, write_card

        said.append(f"{write_card(arguments.source, arguments.out)}: its card")
        if arguments.push:
            said.append(push(arguments.out, arguments.push, public=arguments.public))
    show(arguments, said, {"folder": arguments.out, "said": said})


def _add_report(commands: Commands) -> None:
    parser = command(commands, "report", "write a run's report.html")
    parser.add_argument("run", type=Path)
    parser.add_argument("--watch", action="store_true", help="again and again until the run ends")
    parser.add_argument("--every", type=int, default=15, metavar="SECONDS", help="with --watch")
    parser.set_defaults(command=_report)


def _report(arguments: argparse.Namespace) -> None:
    from mmrl.report import write_report, write_until_it_ends

    if not arguments.run.is_dir():
        raise ConfigError(f"no run folder at {arguments.run}")
    if arguments.watch:
        print(f"open {arguments.run / 'report.html'}: it loads itself again", file=sys.stderr)
        page = write_until_it_ends(arguments.run, arguments.every)
    else:
        page = write_report(arguments.run)
    show(arguments, [str(page)], {"report": page})
