"""MMAU (Sakshi et al., 2024): questions about sound, music and speech.

Layout of Sakshi113/MMAU: `mmau-test-mini.json` (`id`, `audio_id` as a path, `question`,
`choices`, `answer` as text, `task`, `difficulty` ...) and the wav files at those paths;
`mmau-test.json` has no answers, its rows are left out. Revisions change about a quarter of the
questions: the manifest's hash of the annotations says which one it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmrl.recipes.medium import LeftOut
from mmrl.recipes.raw_folder import Source
from mmrl.recipes.recipe import About, Recipe, Rows

ABOUT = About(
    name="mmau",
    summary="multiple choice about sound, music and speech",
    task="audio_qa",
    license="Apache-2.0",
    url="https://github.com/Sakshi113/MMAU",
    layout="mmau-test-mini.json with test-mini-audios/",
)


def rows(source: Source) -> Rows:
    """The records of each json file; its name gives the split."""
    for file in source.need("mmau-*.json"):
        for row in source.rows(file):
            yield file.stem.removeprefix("mmau-"), row


def convert(raw: Any, source: Source) -> Mapping[str, Any]:
    """The row with its sound."""
    if not raw.get("answer"):
        raise LeftOut("the answer is not public")
    return {**raw, "audio_id": source.medium(raw["audio_id"])}


build = Recipe(
    about=ABOUT,
    question=("question", "choices"),
    rows=rows,
    convert=convert,
    training=(),
).build
