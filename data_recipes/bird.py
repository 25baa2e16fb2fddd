"""BIRD (Li et al., NeurIPS 2023): questions to SQL over large databases, with outside knowledge.

Layout: `dev.json` (`question_id`, `db_id`, `question`, `evidence`, `SQL`, `difficulty`) with
`dev_databases/ID/ID.sqlite`, and `train.json` with `train_databases/`, in the folder or in
`dev_20240627/` and `train/`. The records are for `compare: bird`, BIRD's own rule, under which
empty results count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from mmrl.recipes.raw_folder import Source
from mmrl.recipes.recipe import About, Recipe, Rows

ABOUT = About(
    name="bird",
    summary="a question, a hint and a large schema, answered with one query",
    task="text_to_sql",
    license="CC-BY-SA-4.0",
    url="https://bird-bench.github.io/",
    layout="{train,dev}.json with {train,dev}_databases/ID/ID.sqlite (or train/ and dev_*/ with "
    "both)",
)


def rows(source: Source) -> Rows:
    """The records of both splits, as far as they are there."""
    found = [
        (split, file)
        for split in ("train", "dev")
        for file in source.find(f"{split}.json", f"{split}*/{split}.json")[:1]
    ]
    if not found:
        raise source.missing("train.json or dev.json")
    for split, file in found:
        folder = file.parent.relative_to(source.root).as_posix()
        for number, row in enumerate(source.rows(file)):
            yield split, {**row, "id": f"{split}-{number}", "folder": folder, "split": split}


def convert(raw: Any, source: Source) -> Mapping[str, Any]:
    """The record with its database, which the task finds beside the records."""
    fields = dict(raw)
    name, folder = raw["db_id"], f"{fields.pop('split')}_databases"
    found = source.medium(fields.pop("folder"), folder, name, f"{name}.sqlite")
    fields["database"] = replace(found, place=PurePosixPath(folder, name, f"{name}.sqlite"))
    return fields


build = Recipe(
    about=ABOUT,
    question=("question", "evidence"),
    rows=rows,
    convert=convert,
    params={"compare": "bird"},
).build
