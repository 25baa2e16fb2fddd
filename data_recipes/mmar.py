"""MMAR (Ma et al., 2025): questions about speech, sound, music and their mixtures.

Layout of BoJack/MMAR: `MMAR-meta.json` (`id`, `audio_path` such as `./audio/ID.wav`, `question`,
`choices`, `answer` as text, `modality`, `category`, `sub-category`, `language`) and the sounds at
those paths. It is MMAU's form with speech at its centre; MMAU's own is `mmau`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmrl.recipes.raw_folder import Source
from mmrl.recipes.recipe import About, Recipe, Rows

ABOUT = About(
    name="mmar",
    summary="multiple choice about speech, sound, music and their mixtures",
    task="audio_qa",
    license="CC-BY-NC-4.0",
    hub="BoJack/MMAR",
    url="https://github.com/ddlBoJack/MMAR",
    layout="MMAR-meta.json with audio/",
)


def rows(source: Source) -> Rows:
    """The questions, all of them a test."""
    for file in source.need("MMAR-meta.json", "*/MMAR-meta.json"):
        for row in source.rows(file):
            yield "test", row


def convert(raw: Any, source: Source) -> Mapping[str, Any]:
    """MMAU's columns: what kind of sound is the `task`."""
    return {
        "id": raw["id"],
        "audio_id": source.locate(raw["audio_path"].removeprefix("./"), "", "audio"),
        "question": raw["question"],
        "choices": raw["choices"],
        "answer": raw["answer"],
        "task": raw["modality"],
        "category": raw["category"],
        "language": raw.get("language"),
    }


build = Recipe(
    about=ABOUT,
    question=("question", "choices"),
    rows=rows,
    convert=convert,
    training=(),
).build
