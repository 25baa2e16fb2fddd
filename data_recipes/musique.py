"""MuSiQue (Trivedi et al., 2022): questions of two to four hops over twenty passages.

Layout of StonyBrookNLP/musique's archive: `musique_{ans,full}_v1.0_{train,dev}.jsonl` with `id`,
`paragraphs` (`idx`, `title`, `paragraph_text`, `is_supporting`), `question`,
`question_decomposition`, `answer`, `answer_aliases`, `answerable`. Questions whose passages do not
hold the answer, and those of the test files, whose answers are not public, are left out. The
answers of the hops are the key steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmrl.recipes.medium import LeftOut
from mmrl.recipes.raw_folder import Source
from mmrl.recipes.recipe import About, Recipe, Rows

ABOUT = About(
    name="musique",
    summary="questions of several hops, with passages to search",
    task="search_qa",
    license="CC-BY-4.0",
    url="https://github.com/StonyBrookNLP/musique",
    layout="musique_ans_v1.0_train.jsonl and musique_ans_v1.0_dev.jsonl",
)


def rows(source: Source) -> Rows:
    """The rows of the answerable version's files, else of the full one's."""
    names = ("musique_ans_*.jsonl", "musique_full_*.jsonl")
    for file in source.need(*names, *(f"*/{name}" for name in names)):
        for row in source.rows(file):
            yield file.stem.rpartition("_")[2], row


def convert(raw: Any, source: Source) -> Mapping[str, Any]:
    """The question, its answers, its passages and the hops."""
    if not raw.get("answer"):
        raise LeftOut("the answer is not public")
    if not raw.get("answerable", True):
        raise LeftOut("its passages do not hold the answer")
    kept = ("title", "paragraph_text")
    return {
        "id": raw["id"],
        "question": raw["question"],
        "answer": raw["answer"],
        "answer_aliases": list(raw.get("answer_aliases") or ()),
        "paragraphs": [{key: each[key] for key in kept} for each in raw["paragraphs"]],
        "key_steps": [str(hop["answer"]) for hop in raw["question_decomposition"]],
    }


build = Recipe(
    about=ABOUT,
    question=("question",),
    rows=rows,
    convert=convert,
).build
