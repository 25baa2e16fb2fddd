"""Spider (Yu et al., EMNLP 2018): questions to SQL over 200 databases.

Layout: `train_spider.json`, `train_others.json`, `dev.json` (`db_id`, `question`, `query`) and
`database/ID/ID.sqlite`. Every gold query is run: one that fails, or gives no rows, says nothing
and is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmrl.recipes.raw_folder import Source
from mmrl.recipes.recipe import About, Recipe, Rows

ABOUT = About(
    name="spider",
    summary="a question and a schema, answered with one query",
    task="text_to_sql",
    license="CC-BY-SA-4.0",
    hub="xlangai/spider",
    url="https://yale-lily.github.io/spider",
    layout="train_spider.json, train_others.json, dev.json and database/ID/ID.sqlite",
)
_FILES = {"train_spider": "train", "train_others": "train", "dev": "dev", "test": "test"}


def rows(source: Source) -> Rows:
    """The records of each file that is there."""
    files = [source.root / f"{name}.json" for name in _FILES]
    found = [file for file in files if file.is_file()]
    if not found:
        raise source.missing("train_spider.json or dev.json")
    for file in found:
        for number, row in enumerate(source.rows(file)):
            yield _FILES[file.stem], {**row, "id": f"{file.stem}-{number}"}


def convert(raw: Any, source: Source) -> Mapping[str, Any]:
    """`question`, `query`, `db_id`, and the database, which the task finds beside the records."""
    name = raw["db_id"]
    database = source.medium("database", name, f"{name}.sqlite")
    kept = {key: raw[key] for key in ("id", "db_id", "question", "query")}
    return {**kept, "database": database}


build = Recipe(
    about=ABOUT,
    question=("question",),
    rows=rows,
    convert=convert,
).build
