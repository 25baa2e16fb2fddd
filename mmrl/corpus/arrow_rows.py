"""Arrow files, folders that `datasets` saved, and its cache of hub data sets, mapped from disk."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmrl.corpus.table import Table, named
from mmrl.errors import DataError, one_line


class Arrow:
    """An Arrow stream or file; its rows stay on disk until they are asked for."""

    format = "Arrow"

    def __init__(self, path: Path) -> None:
        self._stem, self._root = path.stem, path.parent
        self._table = _mapped(path)

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def row(self, number: int) -> dict[str, Any]:
        row: dict[str, Any] = self._table.slice(number, 1).to_pylist()[0]
        return row

    def name(self, number: int, row: dict[str, Any]) -> str:
        return named(row, f"{self._stem}-{number + 1}")

    def names(self) -> Iterator[str]:
        if "id" not in self._table.column_names:
            return (f"{self._stem}-{i + 1}" for i in range(len(self)))
        ids = (v for chunk in self._table.column("id").chunks for v in chunk.to_pylist())
        return (self.name(i, {"id": own}) for i, own in enumerate(ids))

    def root(self, number: int) -> Path:
        return self._root


class HubRows:
    """A data set of `datasets`, in Arrow form, so that its media are not decoded by it."""

    format = "hub data set"

    def __init__(self, dataset: Any, name: str) -> None:
        self._rows, self._name = dataset.with_format("arrow"), name

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, number: int) -> dict[str, Any]:
        row: dict[str, Any] = self._rows[number : number + 1].to_pylist()[0]
        return row

    def name(self, number: int, row: dict[str, Any]) -> str:
        return named(row, f"{self._name}-{number + 1}")

    def names(self) -> Iterator[str]:
        if "id" not in self._rows.column_names:
            return (f"{self._name}-{i + 1}" for i in range(len(self)))
        ids = self._rows.select_columns(["id"])
        return (
            self.name(i, {"id": own})
            for i, own in enumerate(
                own
                for start in range(0, len(ids), 4096)
                for own in ids[start : start + 4096].column("id").to_pylist()
            )
        )

    def root(self, number: int) -> Path:
        return Path.cwd()


def hub(name: str) -> Table:
    """Open `owner/name[:config]@split` of the hub, out of the cache if it is there.

    Raises DataError without a split, and where it can neither be found nor fetched.
    """
    whole, found, split = name.rpartition("@")
    if not found:
        raise DataError(f"hf:{name}: name the split, such as hf:{name}@train")
    repository, _, config = whole.partition(":")
    try:
        import datasets
    except ImportError:
        raise DataError("hub data sets need datasets: pip install 'mmrl[data]'") from None
    try:
        dataset = datasets.load_dataset(repository, config or None, split=split)
    except Exception as error:  # of the network, the hub, the cache, or a data set's own files
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
        raise DataError(
            f"hf:{name}: not in the cache, and cannot be fetched{offline}: {one_line(error, 120)}"
        ) from None
    return HubRows(dataset, f"{repository.replace('/', '-')}-{split}")


def saved_files(folder: Path, split: str | None) -> list[Path]:
    """The Arrow files of a data set that `save_to_disk` wrote, or of one of its splits."""
    if (folder / "dataset_dict.json").is_file():
        splits = json.loads((folder / "dataset_dict.json").read_text("utf-8"))["splits"]
        if split is None and len(splits) > 1:
            listed = ", ".join(splits)
            raise DataError(f"{folder} has the splits {listed}: write {folder}@{splits[0]}")
        if split is not None and split not in splits:
            raise DataError(f"{folder} has no split '{split}': {', '.join(splits)}")
        folder = folder / (split or splits[0])
    state = json.loads((folder / "state.json").read_text("utf-8"))
    return [folder / file["filename"] for file in state["_data_files"]]


def _mapped(path: Path) -> Any:
    try:
        import pyarrow
    except ImportError:
        raise DataError("reading .arrow needs pyarrow: pip install 'mmrl[data]'") from None
    source = pyarrow.memory_map(str(path))
    try:
        return pyarrow.ipc.open_stream(source).read_all()
    except pyarrow.ArrowInvalid:
        source.seek(0)
    try:
        return pyarrow.ipc.open_file(source).read_all()
    except pyarrow.ArrowInvalid as error:
        raise DataError(f"{path}: not an Arrow file ({one_line(error)})") from None
