"""GSM8K (Cobbe et al., 2021): school mathematics in words, solved step by step.

Two layouts: openai/grade-school-math's `train.jsonl` and `test.jsonl`, or the hub's
`main/SPLIT-*.parquet`; rows are `question` and `answer`, a solution that ends in `#### 72`. What
its `<<48/2=24>>` work out are the key steps; the socratic version is passed over.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mmrl.recipes.raw_folder import Source, split_of
from mmrl.recipes.recipe import About, Recipe, Rows

ABOUT = About(
    name="gsm8k",
    summary="school mathematics in words, a number as answer",
    task="math",
    license="MIT",
    hub="openai/gsm8k",
    url="https://github.com/openai/grade-school-math",
    layout="train.jsonl and test.jsonl, or main/*.parquet",
)
_WORKED_OUT = re.compile(r"<<([^<>=]{1,60})=([^<>=]{1,30})>>")


def rows(source: Source) -> Rows:
    """The rows of every file, numbered."""
    patterns = [f"{above}{end}" for above in ("", "*/", "*/*/") for end in ("train.jsonl",)]
    files = source.find(*patterns)
    files = [*files, *source.find(*(p.replace("train", "test") for p in patterns))]
    for file in files or source.need("main/*.parquet", "*.parquet"):
        for number, row in enumerate(source.rows(file)):
            yield split_of(file), {"id": f"{split_of(file)}-{number}", **row}


def convert(raw: Any, source: Source) -> Mapping[str, Any]:
    """`question`, the number as `answer`, and `key_steps`."""
    solution, mark, answer = str(raw["answer"]).rpartition("####")
    if not mark:
        raise ValueError("the solution does not end in ####")
    steps = [f"{left.strip()}={right.strip()}" for left, right in _WORKED_OUT.findall(solution)]
    return {
        "id": raw["id"],
        "question": raw["question"],
        "answer": answer.strip(),
        "key_steps": list(dict.fromkeys(steps)),
    }


build = Recipe(
    about=ABOUT,
    question=("question",),
    rows=rows,
    convert=convert,
).build
