"""Rows of every kind of file are read by number, alike, and nothing is held but an index."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from mmrl.corpus.json_rows import is_object
from mmrl.corpus.table import missing, open_table
from mmrl.errors import UserError
from mmrl.records import read_records

ROWS = [
    {"id": "a", "question": 'Say "x",\nthen y', "answer": "1"},
    {"id": "b", "question": "na\u00efve \u732b", "answer": "2"},
    {"id": "c", "question": "plain", "answer": "3"},
]


def jsonl(path: Path, rows: list[Any] = ROWS) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def table(path: Path, delimiter: str) -> Path:
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, list(ROWS[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(ROWS)
    return path


def parquet(path: Path, rows: list[Any] = ROWS, size: int = 2) -> Path:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=size)
    return path


def saved(path: Path) -> Path:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list(ROWS).save_to_disk(path, num_shards=2)
    return path


def tar(path: Path) -> Path:
    with tarfile.open(path, "w") as file:
        for row in ROWS:
            add(file, f"{row['id']}.json", json.dumps(row).encode())
    return path


def add(file: tarfile.TarFile, name: str, held: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(held)
    file.addfile(member, io.BytesIO(held))


def written(folder: Path, form: str) -> Path:
    match form:
        case "jsonl":
            return jsonl(folder / "d.jsonl")
        case "json":
            (folder / "d.json").write_text(json.dumps(ROWS, indent=1))
        case "json lines":
            return jsonl(folder / "d.json")
        case "csv" | "tsv":
            return table(folder / f"d.{form}", "," if form == "csv" else "\t")
        case "parquet":
            return parquet(folder / "d.parquet")
        case "datasets":
            return saved(folder / "d")
        case "tar":
            return tar(folder / "d.tar")
        case "shards" | "glob":
            jsonl(folder / "part-00001.jsonl", ROWS[2:])
            jsonl(folder / "part-00000.jsonl", ROWS[:2])
            return folder / "part-*.jsonl" if form == "glob" else folder
    return folder / "d.json"


FORMS = [
    "jsonl",
    "json",
    "json lines",
    "csv",
    "tsv",
    "parquet",
    "datasets",
    "tar",
    "shards",
    "glob",
]


@pytest.mark.parametrize("form", FORMS)
def test_rows_by_number_in_any_order(tmp_path: Path, form: str) -> None:
    found = open_table(written(tmp_path, form))
    assert len(found) == 3 and list(found.names()) == ["a", "b", "c"]
    for number in (2, 0, 1, 1, 2):
        row = found.row(number)
        assert {name: row[name] for name in ROWS[0]} == ROWS[number]
        assert found.name(number, row) == ROWS[number]["id"]
    inside = {"datasets": tmp_path / "d"}.get(form, tmp_path)
    assert found.root(2) == inside


def test_a_mark_of_byte_order_blank_lines_and_rows_without_an_id(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\n   \n{"a": 2, "id": null}')
    assert [(r.id, r.fields["a"]) for r in read_records(path)] == [("d-1", 1), ("d-4", 2)]


def test_rows_of_parquet_in_batches_and_groups(tmp_path: Path) -> None:
    rows = [{"n": i} for i in range(100)]
    found = open_table(parquet(tmp_path / "d.parquet", rows, size=40))
    for number in (99, 3, 50, 51, 49, 39, 40, 0, 17, 16, 15):
        assert found.row(number) == {"n": number}


def test_a_saved_dictionary_of_data_sets_needs_its_split(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    parts = {name: datasets.Dataset.from_list(ROWS[:n]) for name, n in (("train", 2), ("test", 1))}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "d")
    assert len(open_table(tmp_path / "d@train")) == 2
    with pytest.raises(UserError, match=r"has the splits train, test: write .*d@train"):
        open_table(tmp_path / "d")
    with pytest.raises(UserError, match="no split 'dev'"):
        open_table(tmp_path / "d@dev")


def test_members_of_a_tar_by_their_names(tmp_path: Path) -> None:
    path = tmp_path / "d.tar"
    with tarfile.open(path, "w") as file:
        for key in ("s/1", "s/2"):
            add(file, f"{key}.0.png", b"left")
            add(file, f"{key}.1.png", b"right")
            add(file, f"{key}.question.txt", b"Which? ")
            add(file, f"{key}.cls", b"4")
            add(file, f"{key}.wav", b"RIFF")
    row = open_table(path).row(1)
    assert row == {"__key__": "s/2", "images": [b"left", b"right"], "audio": b"RIFF",
                   "question": "Which?", "label": "4"}  # fmt: skip
    assert list(open_table(path).names()) == ["s/1", "s/2"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("d.jsonl", '{"a": 1}\n{"a": ', "d.jsonl:2: not JSON"),
        ("d.jsonl", "[1]\n", "d.jsonl:1: expected an object"),
        ("d.json", "{}", "expected a list"),
        ("d.json", "", "not JSON"),
        ("d.json", '[{"a": 1},]', "not JSON"),
        ("d.json", '[{"a": 1}', "not JSON"),
        ("d.json", '[{"a": 1}] x', "not JSON"),
        ("d.csv", "", "should name the columns"),
        ("d.csv", "a,b\n1,2,3\n", "row 1 has 3 cells for 2 columns"),
        ("d.parquet", "no", "not a whole parquet file"),
        ("d.tar", "no" * 600, "not a plain tar"),
        ("d.arrow", "no", "not an Arrow file"),
        ("d.xlsx", "a", "cannot read '.xlsx' files"),
    ],
)
def test_what_cannot_be_read_is_one_line(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message):
        list(read_records(tmp_path / name))


def test_a_folder_of_several_sets_is_not_read_as_one(tmp_path: Path) -> None:
    for name in ("train", "test"):
        jsonl(tmp_path / f"{name}.jsonl")
    with pytest.raises(UserError, match=r"several sets \(test.jsonl, train.jsonl\): name one"):
        open_table(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no data file in"):
        open_table(tmp_path / "empty")


def test_paths_that_are_not_there(tmp_path: Path) -> None:
    assert "no data file at" in missing(tmp_path / "x.jsonl")
    assert "no file matches" in missing(tmp_path / "*.jsonl")
    assert missing(Path("hf:owner/name@train")) == ""
    with pytest.raises(UserError, match="name the split, such as hf:owner/name@train"):
        open_table(Path("hf:owner/name"))


def test_a_hub_data_set_that_is_not_cached_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        UserError, match="hf:no/such:main@train: not in the cache, and cannot"
    ) as told:
        open_table(Path("hf:no/such:main@train"))
    assert "\n" not in str(told.value)


def test_one_object_is_a_tasks_own_form(tmp_path: Path) -> None:
    (tmp_path / "o.json").write_text('{\n "1": {"a": 1},\n "2": {"a": 2}\n}')
    assert is_object(tmp_path / "o.json")
    assert not is_object(jsonl(tmp_path / "l.json"))
