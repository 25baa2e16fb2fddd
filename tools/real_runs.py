"""A supervised start and GRPO runs on real weights, each a process of its own, and their table."""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from make_tiny_model import first_ready
from real_models import count
from real_packages import install

from mmrl.evaluate.summary import Estimate, mean_estimate
from mmrl.runlog.journal import Journal
from mmrl.train import checkpoint

CONFIGS = Path(__file__).parent.parent / "configs" / "real"
CPU = "cpu.json"
HEAD = (
    "| weights | trained | rewards | seed | before | after | s a step | CPU s in all | MiB |\n"
    "|---|---|---|---|---|---|---|---|---|"
)
MEANS_HEAD = (
    "| weights | trained | rewards | seeds | before | after, lowest to highest | change |\n"
    "|---|---|---|---|---|---|---|"
)
LORA = ("model.lora={rank: 16, alpha: 32}", "optimizer.learning_rate=3.0e-4")


@dataclass(frozen=True)
class Cell:
    """What distinguishes a run from the others."""

    dtype: str
    adapters: bool = False
    shuffled: bool = False
    seed: int = 0

    @property
    def name(self) -> str:
        parts = [self.dtype, "lora" if self.adapters else "full"]
        return "-".join([*parts, *(["shuffled"] if self.shuffled else []), str(self.seed)])

    @property
    def labels(self) -> tuple[str, str, str]:
        trained = "adapters" if self.adapters else "language model"
        return self.dtype, trained, "shuffled" if self.shuffled else "as scored"

    def overrides(self) -> Iterator[str]:
        yield f"model.dtype={self.dtype}"
        yield f"seed={self.seed}"
        if self.shuffled:
            yield "trainer.reward_control=shuffle"
        if self.adapters:
            yield from LORA


def cells(seeds: Sequence[int]) -> list[Cell]:
    """All runs, those that say most first."""
    first, *others = seeds
    dtypes = ("float32", "bfloat16")
    return [
        *(Cell(dtype, seed=first) for dtype in dtypes),
        *(Cell(dtype, shuffled=True, seed=first) for dtype in dtypes),
        *(Cell(dtype, seed=seed) for seed in others for dtype in dtypes),
        *(Cell(dtype, adapters=True, seed=seed) for seed in seeds for dtype in dtypes),
    ]


@dataclass(frozen=True)
class Experiment:
    """What a model is made of, what it is asked, and the configurations of its two phases.

    The supervised phase ends at its first checkpoint with the held-out metrics `ready`, a start
    that leaves reinforcement learning something to do.
    """

    packages: tuple[str, ...]
    assemble: Callable[[Path], tuple[Any, Any]]
    source: Path
    write: Callable[[Path, Path], None]
    warm: Path
    grpo: Path
    ready: Mapping[str, float]

    def model(self, out: Path) -> Path:
        """Put the model together, unless it is there."""
        folder = out / "assembled"
        if not (folder / "config.json").is_file():
            model, processor = self.assemble(install(out / "packages", *self.packages))
            print(count(model, ["model.multi_modal_projector"]))
            processor.save_pretrained(folder)
            model.save_pretrained(folder)
        return folder


@dataclass(frozen=True)
class Folder:
    """Where an experiment's model, data and runs are."""

    out: Path
    experiment: Experiment

    def start(self) -> Path:
        """Run the supervised phase; its first checkpoint that is ready."""
        run, ready = self.out / "warm", self.experiment.ready
        self._train(self.experiment.warm, run, self.experiment.model(self.out), "warm", [])
        step = first_ready(Journal(run / "metrics.jsonl").rows(), ready)
        if step is None:
            raise SystemExit(f"no checkpoint of {run} reached {ready}: raise trainer.steps")
        return checkpoint.at(run, step).path

    def train(self, start: Path, cell: Cell) -> None:
        overrides = list(cell.overrides())
        self._train(self.experiment.grpo, self.folder(cell), start, "train", overrides)
        # With the optimiser's state a run's are up to 2 GiB; the table needs none of them.
        shutil.rmtree(self.folder(cell) / "checkpoints", ignore_errors=True)

    def folder(self, cell: Cell) -> Path:
        return self.out / "grpo" / cell.name

    def _train(self, config: Path, run: Path, model: Path, part: str, more: list[str]) -> None:
        """`mmrl train` in a process, so that its peak memory is its own; not if it is done."""
        if (run / "result.json").is_file():
            return
        data = self.out / "data"
        overrides = [
            f"run={run}",
            f"model.path={model}",
            f"data.path={data / part}.jsonl",
            f"data.eval_path={data / 'test'}.jsonl",
            *more,
        ]
        paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
        used = _cpu_seconds()
        subprocess.run(
            [sys.executable, "-m", "mmrl.cli", "train", str(config), "--overwrite", *overrides],
            check=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        )
        spent = {"cpu_seconds": round(_cpu_seconds() - used)}
        (run / CPU).write_text(json.dumps(spent), encoding="utf-8")

    def write_table(self, asked: Sequence[Cell]) -> str:
        """Markdown of the runs that are done; `table.md` and `results.json` are written anew."""
        done = [cell for cell in asked if (self.folder(cell) / "result.json").is_file()]
        lines = [HEAD, *(self._row(cell) for cell in done), "", MEANS_HEAD]
        for kind in dict.fromkeys(cell.labels for cell in done):
            lines.append(self._mean([cell for cell in done if cell.labels == kind]))
        missing = [cell.name for cell in asked if cell not in done]
        lines += ["", f"Not run: {', '.join(missing)}."] if missing else []
        text = "\n".join(lines) + "\n"
        (self.out / "table.md").write_text(text, encoding="utf-8")
        results = [{**asdict(cell), **self._numbers(cell)} for cell in done]
        (self.out / "results.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
        return text

    def _numbers(self, cell: Cell) -> dict[str, Any]:
        """What a finished run says of itself, intervals by the bootstrap over records."""
        folder = self.folder(cell)
        rows = list(Journal(folder / "metrics.jsonl").rows())
        when = {w: _read(folder / f"eval_{w}.json") for w in ("before", "after")}
        return {
            **{w: {k: e[k] for k in ("metric", "low", "high")} for w, e in when.items()},
            "records": when["after"]["records"],
            "steps": len(rows),
            "step_seconds": statistics.median(row["time/step"] for row in rows),
            "seconds": _read(folder / "result.json")["seconds"],
            # On a machine that others use, too, the clock says little.
            **(_read(folder / CPU) if (folder / CPU).is_file() else {"cpu_seconds": None}),
            "memory_mib": max(row["memory/peak"] for row in rows),
            "sampled_first": rows[0]["metric/mean"],
        }

    def _row(self, cell: Cell) -> str:
        n = self._numbers(cell)
        cells = (
            *cell.labels,
            cell.seed,
            _interval(n["before"]),
            _interval(n["after"]),
            f"{n['step_seconds']:.1f}",
            "-" if n["cpu_seconds"] is None else n["cpu_seconds"],
            f"{n['memory_mib']:.0f}",
        )
        return f"| {' | '.join(map(str, cells))} |"

    def _mean(self, same: Sequence[Cell]) -> str:
        """Means over seeds; the change with its interval over the held-out records."""
        numbers = [self._numbers(cell) for cell in same]
        before = statistics.mean(n["before"]["metric"] for n in numbers)
        after = [n["after"]["metric"] for n in numbers]
        change = self._change(same)
        cells = (
            *same[0].labels,
            len(same),
            f"{before:.1%}",
            f"{statistics.mean(after):.1%} ({min(after):.1%} to {max(after):.1%})",
            f"{change.value:+.1%} [{change.low:+.1%}, {change.high:+.1%}]",
        )
        return f"| {' | '.join(map(str, cells))} |"

    def _change(self, same: Sequence[Cell]) -> Estimate:
        """Mean change of a held-out record over the seeds, 95 % over resampled records."""
        changes = []
        for cell in same:
            before, after = (
                {a["id"]: a["metric"] or 0.0 for a in _read(self.folder(cell) / name)["answers"]}
                for name in ("eval_before.json", "eval_after.json")
            )
            changes.append([after[record] - before[record] for record in before])
        means = [statistics.mean(record) for record in zip(*changes, strict=True)]
        return mean_estimate(means, [[i] for i in range(len(means))])


def _cpu_seconds() -> float:
    """Of the processes that were started and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _interval(number: Mapping[str, float]) -> str:
    return f"{number['metric']:.1%} [{number['low']:.1%}, {number['high']:.1%}]"


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def carry_out(experiment: Experiment, description: str) -> None:
    """The command line of an experiment."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--data", type=Path, default=experiment.source, help="raw data")
    parser.add_argument("--assemble-only", action="store_true")
    args = parser.parse_args()
    experiment.model(args.out)
    if args.assemble_only:
        return
    experiment.write(args.data, args.out / "data")
    folder = Folder(args.out, experiment)
    start = folder.start()
    asked = cells(args.seeds)
    for cell in asked:
        folder.train(start, cell)
        print(folder.write_table(asked))
