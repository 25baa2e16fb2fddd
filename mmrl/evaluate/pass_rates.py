"""`mmrl rate`: the records of a file again, each with the share of a model's answers that pass."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from mmrl import plugins
from mmrl.corpus.fields import Fields
from mmrl.data.samples import Rows, open_rows
from mmrl.errors import ConfigError
from mmrl.evaluate.benchmark import EvalConfig, Outcome, run_benchmark
from mmrl.evaluate.summary import Evaluation
from mmrl.runlog.journal import to_json
from mmrl.scoring.tasks import load_task

COLUMN = "pass_rate"
_AT_ONCE = 256  # rows of a Parquet file that are written together


@dataclass(frozen=True)
class Rated:
    """Where the rated records are, how many have a rate, and the evaluation the rates are of."""

    path: Path
    rates: Mapping[str, float]
    records: int
    outcome: Outcome

    def lines(self) -> list[str]:
        """What became of the records, in words."""
        tenths = Counter(min(int(rate * 10), 9) for rate in self.rates.values())
        without = self.records - len(self.rates)
        return [
            f"{self.path}: {self.records} records, {without} of them without a rate"
            if without
            else f"{self.path}: {self.records} records",
            "by tenth of the pass rate: " + " ".join(str(tenths[i]) for i in range(10)),
            "draw a band of them with data.keep: {pass_rate: [0.1, 0.9]}",
        ]


def task_of(data: Path) -> str:
    """The task that a folder of records is named after; raises ConfigError where none is."""
    name = data.parent.name
    if name not in plugins.available("task"):
        raise ConfigError(f"--task: no task is called '{name}', like the folder of {data}; name it")
    return name


def rated_path(data: Path) -> Path:
    """A file beside the records, where their media paths hold; a folder raises ConfigError."""
    if not data.is_file():
        raise ConfigError(f"--out: say where the records go, {data} is no single file")
    suffix = ".parquet" if data.suffix == ".parquet" else ".jsonl"
    return data.with_name(f"{data.stem}.rated{suffix}")


def rate(
    config: EvalConfig,
    out: Path,
    *,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Rated:
    """Ask, score, and write the records with their `pass_rate`, whole or not at all.

    Answers are kept beside `out` as they come, so that a killed call goes on; an evaluation with
    these settings is written there too. A record without a scored answer has the rate null.
    """
    if out.absolute() == config.data.absolute():
        raise ConfigError(f"--out: {out} are the records themselves: name another file")
    beside = config.model_copy(update={"out": out.with_suffix(".json")})
    outcome = run_benchmark(beside, overwrite=overwrite, on_progress=on_progress)
    rates = rates_of(outcome.evaluation)
    count = _write(config, out, rates)
    return Rated(out, rates, count, outcome)


def rates_of(evaluation: Evaluation) -> dict[str, float]:
    """The share of each record's scored answers that pass; those without any are not in it."""
    found: dict[str, list[bool]] = defaultdict(list)
    for row in evaluation.answers:
        if row["metric"] is not None:
            found[row["id"]].append(evaluation.passes(row["metric"]))
    return {name: sum(passed) / len(passed) for name, passed in found.items()}


def _write(config: EvalConfig, out: Path, rates: Mapping[str, float]) -> int:
    """Write the rows that were asked, as they are but for their rate; returns how many."""
    rows = open_rows(load_task(config.task, config.params), config.data)
    count = min(len(rows), config.limit or len(rows))
    column = [rates.get(name) for name in _distinct(islice(rows.names(), count))]
    out.parent.mkdir(parents=True, exist_ok=True)
    half = out.with_name(out.name + ".tmp")
    if out.suffix == ".parquet":
        _parquet(config.data, half, column)
    else:
        _lines(rows, half, column)
    os.replace(half, out)
    return count


def _distinct(names: Iterable[str]) -> Iterator[str]:
    """Ids with the suffix that a run gives to those that several records share."""
    seen: Counter[str] = Counter()
    for name in names:
        seen[name] += 1
        yield name if seen[name] == 1 else f"{name}#{seen[name]}"


def _lines(rows: Rows, path: Path, column: Sequence[float | None]) -> None:
    with path.open("wb") as file:
        for number, value in enumerate(column):
            record = rows.record(number)
            fields = record.fields
            own = fields.own if isinstance(fields, Fields) else fields
            if _holds_bytes(own):
                raise ConfigError("--out: the records hold their media: name a .parquet file")
            file.write(to_json({"id": record.id, **own, COLUMN: value}) + b"\n")


def _parquet(source: Path, path: Path, column: Sequence[float | None]) -> None:
    """Copy a Parquet file with one more column, batch after batch."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if source.suffix != ".parquet":
        raise ConfigError(f"--out: {source} is no Parquet file: name a .jsonl file")
    file = pq.ParquetFile(source)
    kept = [name for name in file.schema_arrow.names if name != COLUMN]
    schema = pa.schema([file.schema_arrow.field(n) for n in kept] + [(COLUMN, pa.float64())])
    start = 0
    with pq.ParquetWriter(path, schema) as writer:
        for batch in file.iter_batches(batch_size=_AT_ONCE, columns=kept):
            own = column[start : start + len(batch)]
            values = [*batch.slice(0, len(own)).columns, pa.array(own, pa.float64())]
            writer.write_table(pa.Table.from_arrays(values, schema=schema))
            start += len(batch)


def _holds_bytes(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_holds_bytes, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_holds_bytes, value))
    return isinstance(value, bytes | bytearray | memoryview)
