"""Super-CLEVR (Li et al., CVPR 2023): how many vehicles there are in a rendered scene.

Layout of RyanWW/Super-CLEVR: `superCLEVR_questions_30k.json` (or `..._NoRedundant`,
`..._AllRedundant`) with `questions` of `image_filename`, `question`, `answer`, and `images/` with
`superCLEVR_new_000000.png` on. Questions that begin with "How many" are taken, as R1-V does. The
first 20,000 scenes are `train`, the next 5,000 `val`, the last 5,000 `test`, as its README says.
R1-V's own 200 test lines are read by `clevr_counting`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mmrl.recipes.raw_folder import Source
from mmrl.recipes.recipe import About, Recipe, Rows

ABOUT = About(
    name="super_clevr",
    summary="how many vehicles there are in a rendered scene",
    task="counting",
    license="MIT",
    hub="RyanWW/Super-CLEVR",
    url="https://github.com/Lizw14/Super-CLEVR",
    layout="superCLEVR_questions_*.json with images/",
)
_SCENE = re.compile(r"superCLEVR_new_(\d{1,9})\.png")
TRAIN, VAL = 20_000, 25_000


def rows(source: Source) -> Rows:
    """The counting questions, numbered within their file."""
    for file in source.need("superCLEVR_questions_*.json"):
        for number, row in enumerate(source.array(file, "questions")):
            if str(row["question"]).lower().startswith("how many"):
                yield split_of_scene(row["image_filename"]), {"id": f"{file.stem}-{number}", **row}
            else:
                source.skipped["questions that are not counts"] += 1


def split_of_scene(name: str) -> str:
    """The split of a scene by its number; a name without one is `all`."""
    found = _SCENE.fullmatch(name)
    scene = int(found[1]) if found else -1
    return "all" if scene < 0 else "train" if scene < TRAIN else "val" if scene < VAL else "test"


def convert(raw: Any, source: Source) -> Mapping[str, Any]:
    """`image`, `problem` and `solution`."""
    return {
        "id": raw["id"],
        "image": source.locate(raw["image_filename"], "images", "images/images"),
        "problem": raw["question"],
        "solution": str(raw["answer"]),
        "source": "Super-CLEVR",
    }


build = Recipe(
    about=ABOUT,
    question=("problem",),
    rows=rows,
    convert=convert,
).build
